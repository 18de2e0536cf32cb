"""Checkpoints as PyTorch writes them, made by hand, honest ones and others."""

import struct
import zipfile

import numpy as np

END = b'.'


def text(value):
  data = value.encode()
  return b'X' + struct.pack('<I', len(data)) + data


def number(value):
  return b'J' + struct.pack('<i', value)


def numbers(values):
  return b'(' + b''.join(number(v) for v in values) + b't'


def named(module, name):
  return f'c{module}\n{name}\n'.encode()


def mapping(items):
  """A dictionary of strings and pickled values."""
  return b'}(' + b''.join(text(k) + v for k, v in items.items()) + b'u'


def tensor(key, size, shape, strides, *, offset=0, storage='FloatStorage'):
  """A view of the storage `key`, of `size` elements."""
  reference = b'(' + text('storage') + named('torch', storage) + text(key)
  reference += text('cpu') + number(size) + b'tQ'
  hooks = named('collections', 'OrderedDict') + b')R'
  arguments = reference + number(offset) + numbers(shape) + numbers(strides)
  rebuild = named('torch._utils', '_rebuild_tensor_v2')
  return rebuild + b'(' + arguments + b'\x89' + hooks + b'tR'


def vector(key, size, **kwargs):
  """A whole storage."""
  return tensor(key, size, (size,), (1,), **kwargs)


def write(path, pickled, storages, order='little', compression=0):
  """Writes a checkpoint of a pickle and the arrays of its storages."""
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr('archive/data.pkl', b'\x80\x02' + pickled + END)
    archive.writestr('archive/byteorder', order)
    for key, array in storages.items():
      archive.writestr(f'archive/data/{key}', np.asarray(array).tobytes())
    archive.writestr('archive/version', '3\n')
  return path
