"""PyTorch's checkpoints, read without PyTorch and without running them.

A checkpoint is a pickle, a program that may call anything, in a zip file
beside the bytes of the tensors. The reader here knows the few names that a
dictionary of tensors needs and refuses all others, so that nothing but itself
is ever called.
"""

import functools
import io
import math
import mmap
import pickle
import pickletools
import struct
import zipfile
from collections import OrderedDict
from typing import Any

import ml_dtypes  # noqa: F401 for np.dtype('bfloat16')
import numpy as np

from hier_jax.errors import UserError

__all__ = ['read_legacy', 'read_zip']

_STORAGES = {
  'DoubleStorage': 'float64',
  'FloatStorage': 'float32',
  'HalfStorage': 'float16',
  'BFloat16Storage': 'bfloat16',
  'LongStorage': 'int64',
  'IntStorage': 'int32',
  'ShortStorage': 'int16',
  'CharStorage': 'int8',
  'ByteStorage': 'uint8',
  'BoolStorage': 'bool',
}


class _Unpickler(pickle.Unpickler):
  """Makes tensors, dictionaries and numbers, and knows nothing else."""

  def __init__(self, file, storage):
    super().__init__(file)
    self._storage = storage
    # New objects for each file: a pickle can set attributes of what it names.
    self._known = {
      'collections.OrderedDict': OrderedDict,
      # What training runs keep their arguments in; nobody looks at it here.
      'argparse.Namespace': type('Namespace', (), {}),
      'torch._utils._rebuild_tensor_v2': functools.partial(_rebuild_tensor),
      'torch._utils._rebuild_parameter': functools.partial(_rebuild_parameter),
    }

  def find_class(self, module, name):
    """What a name of the pickle stands for; all others are refused."""
    if module == 'torch' and name in _STORAGES:
      return _STORAGES[name]
    try:
      return self._known[f'{module}.{name}']
    except KeyError:
      raise UserError(
        f'refers to {module}.{name}, which is more than tensors by name, so it'
        ' was not run: load it in PyTorch if you trust it, and save its'
        ' state_dict() alone'
      ) from None

  def persistent_load(self, pid):
    """The flat array that `('storage', type, key, device, size)` names."""
    kind, dtype, key, _, size = pid
    if kind != 'storage' or dtype not in _STORAGES.values():
      raise ValueError(f'unknown reference {pid!r}')
    return self._storage(key, np.dtype(dtype), size)


def _rebuild_tensor(storage, offset, shape, strides, *_):
  """A view of a storage; offset and strides count elements."""
  if min((offset, *shape, *strides)) < 0:
    raise ValueError(f'shape {shape} has strides {strides}, offset {offset}')
  last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
  count = math.prod(shape)
  # More elements than the storage has, by strides of 0, would fill the memory.
  if count and max(last + 1, count) > storage.size:
    raise ValueError(f'a tensor of shape {shape} is larger than its storage')
  return np.lib.stride_tricks.as_strided(
    storage[offset:],
    shape,
    [s * storage.itemsize for s in strides],
    writeable=False,
  )


def _rebuild_parameter(tensor, *_):
  return tensor


def read_zip(path) -> Any:
  """Reads what `torch.save` wrote since PyTorch 1.6.

  Args:
    path: a zip file that holds `<root>/data.pkl`.

  Returns:
    The object saved, its tensors read-only arrays that lie in the file, which
    is mapped into memory.

  Raises:
    UserError: it refers to anything but tensors, numbers and dictionaries.
    ValueError: it is damaged, among other errors of `pickle` and `zipfile`.
  """
  with open(path, 'rb') as file, zipfile.ZipFile(file) as archive:
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    pickled = next(n for n in archive.namelist() if n.endswith('data.pkl'))
    root = pickled.removesuffix('data.pkl')
    order = f'{root}byteorder'
    if order in archive.namelist() and archive.read(order) != b'little':
      raise UserError(
        'was written on a big-endian machine: save it anew on another'
      )

    def storage(key, dtype, size):
      info = archive.getinfo(f'{root}data/{key}')
      if info.compress_type != zipfile.ZIP_STORED:
        raise ValueError(f'{info.filename} is compressed')
      if info.file_size < size * dtype.itemsize:
        raise ValueError(f'{info.filename} holds {info.file_size} bytes')
      return np.frombuffer(data, dtype, size, _start_of_data(data, info))

    program = archive.read(pickled)
    _check_sizes(program)
    return _Unpickler(io.BytesIO(program), storage).load()


def _check_sizes(program):
  """Raises where a few bytes of a pickle ask for much memory."""
  # The lengths of strings are checked on the way.
  for opcode, argument, _ in pickletools.genops(program):
    slot = argument if opcode.name in ('PUT', 'LONG_BINPUT') else None
    if slot is not None and slot > len(program):
      raise ValueError(f'its pickle refers to its value number {slot}')


def _start_of_data(data, info):
  # The header before the data may be longer than its copy in the directory:
  # PyTorch pads it there to align the data.
  name, extra = struct.unpack_from('<HH', data, info.header_offset + 26)
  return info.header_offset + 30 + name + extra


def read_legacy(path) -> Any:
  """Reads what `torch.save` wrote before PyTorch 1.6, with PyTorch itself.

  Returns:
    The object saved, with arrays for tensors where they lie in dictionaries.

  Raises:
    UserError: PyTorch is not installed, or holds the file to be unsafe.
  """
  try:
    import torch
  except ImportError:
    raise UserError(
      "is of PyTorch's format before 1.6, which only PyTorch reads: pip install"
      " 'hier_jax[torch]', or save it anew with a later PyTorch"
    ) from None
  try:
    loaded = torch.load(path, map_location='cpu', weights_only=True)
  except (pickle.UnpicklingError, RuntimeError, EOFError) as error:
    reason = str(error).splitlines()[0]
    raise UserError(f'cannot be read by PyTorch ({reason})') from error

  def arrays(value):
    if isinstance(value, dict):
      return {key: arrays(v) for key, v in value.items()}
    if not isinstance(value, torch.Tensor):
      return value
    value = value.detach()
    # NumPy has no bfloat16 that PyTorch knows of.
    wide = value.float() if value.dtype == torch.bfloat16 else value
    return wide.numpy()

  return arrays(loaded)
