"""PyTorch's checkpoints, read without PyTorch and without running them.

A checkpoint is a pickle, a program that may call anything, in a zip file
beside the bytes of the tensors. The pickle is read as data (`pickles`); names
other than the few that a dictionary of tensors needs are refused.
"""

import math
import mmap
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
from typing import Any

import ml_dtypes  # noqa: F401 for np.dtype('bfloat16')
import numpy as np

from hier_jax.errors import UserError, shown
from hier_jax.models.weights import pickles

__all__ = ['read_legacy', 'read_zip']

_STORAGES = {
  'torch.DoubleStorage': 'float64',
  'torch.FloatStorage': 'float32',
  'torch.HalfStorage': 'float16',
  'torch.BFloat16Storage': 'bfloat16',
  'torch.LongStorage': 'int64',
  'torch.IntStorage': 'int32',
  'torch.ShortStorage': 'int16',
  'torch.CharStorage': 'int8',
  'torch.ByteStorage': 'uint8',
  'torch.BoolStorage': 'bool',
}
_DICTIONARY = 'collections.OrderedDict'
_TENSOR = 'torch._utils._rebuild_tensor_v2'
_PARAMETER = 'torch._utils._rebuild_parameter'
# What training runs keep their arguments in; nobody looks at it here.
_SETTINGS = 'argparse.Namespace'
_KNOWN = {_DICTIONARY, _TENSOR, _PARAMETER, _SETTINGS, *_STORAGES}
# Bytes; that of a ViT-g/14 with its optimizer has less than 2 MB.
_LARGEST_PICKLE = 32 * 2**20
# A network may lie in a dictionary of the checkpoint's.
_LEVELS = 2


# Reads (key, dtype, size) of a file as a flat array.
_Storage = Callable[[str, np.dtype, int], np.ndarray]


def _check_name(name: str) -> None:
  if name not in _KNOWN:
    raise UserError(
      f'refers to {shown(name)}, which is more than tensors by name, so it was'
      ' not run: load it in PyTorch if you trust it, and save its state_dict()'
      ' alone'
    )


def read_zip(path: str | os.PathLike[str]) -> Any:
  """Reads what `torch.save` wrote since PyTorch 1.6.

  Args:
    path: a zip file that holds `<root>/data.pkl`.

  Returns:
    The object saved. Tensors in a dictionary, or in a dictionary within that,
    are read-only arrays that lie in the file, which is mapped into memory.

  Raises:
    UserError: it refers to anything but tensors, numbers and dictionaries.
    ValueError: it is damaged, among other errors of `pickles` and `zipfile`.
  """
  with open(path, 'rb') as file, zipfile.ZipFile(file) as archive:
    data = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    pickled = next(n for n in archive.namelist() if n.endswith('data.pkl'))
    root = pickled.removesuffix('data.pkl')
    order = f'{root}byteorder'
    if (
      order in archive.namelist() and _content(archive, order, 16) != b'little'
    ):
      raise UserError(
        'was written on a big-endian machine: save it anew on another'
      )

    def storage(key: str, dtype: np.dtype, size: int) -> np.ndarray:
      info = archive.getinfo(f'{root}data/{key}')
      if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 1:
        raise ValueError(f'{info.filename} is compressed or encrypted')
      if info.file_size < size * dtype.itemsize:
        raise ValueError(f'{info.filename} holds {info.file_size} bytes')
      return np.frombuffer(data, dtype, size, _start_of_data(data, info))

    program = _content(archive, pickled, _LARGEST_PICKLE)
    return _resolved(pickles.read(program, _check_name), storage, _LEVELS)


def _content(archive: zipfile.ZipFile, name: str, most: int) -> bytes:
  size = archive.getinfo(name).file_size
  if size > most:
    raise ValueError(f'{name} has {size:,} bytes; expected at most {most:,}')
  return archive.read(name)


def _resolved(value: Any, storage: _Storage, levels: int) -> Any:
  """A value with arrays for tensors, in dictionaries up to `levels` deep."""
  while type(value) is pickles.Call and value.name == _PARAMETER:
    value = value.arguments[0]
  if type(value) is pickles.Call and value.name == _TENSOR:
    return _tensor(storage, *value.arguments[:4])
  items = _items(value)
  if items is None or levels == 0:
    return value
  return {k: _resolved(v, storage, levels - 1) for k, v in items.items()}


def _items(value: object) -> dict[Any, Any] | None:
  """What a dictionary of either kind holds; None for anything else."""
  if type(value) is dict:
    return value
  if type(value) is not pickles.Call or value.name != _DICTIONARY:
    return None
  first = value.arguments[0] if value.arguments else []
  return dict(pickles.pairs(first)) | value.items


def _tensor(
  storage: _Storage,
  reference: object,
  offset: Any,
  shape: Any,
  strides: Any,
) -> np.ndarray:
  """A view of a storage; offset and strides count elements."""
  flat = storage(*_storage_of(reference))
  if type(shape) is not tuple or type(strides) is not tuple:
    raise ValueError('a tensor has no shape')
  if not all(type(n) is int for n in (offset, *shape, *strides)):
    raise ValueError('a tensor has a shape of other things than integers')
  if min((offset, *shape, *strides)) < 0:
    raise ValueError(
      f'shape {shown(shape)} has strides {shown(strides)}, offset'
      f' {shown(offset)}'
    )
  last = offset + sum((n - 1) * s for n, s in zip(shape, strides, strict=True))
  count = math.prod(shape)
  # More elements than the storage has, by strides of 0, would fill the memory.
  if count and max(last + 1, count) > flat.size:
    raise ValueError(
      f'a tensor of shape {shown(shape)} is larger than its storage'
    )
  return np.lib.stride_tricks.as_strided(
    flat[offset:],
    shape,
    [s * flat.itemsize for s in strides],
    writeable=False,
  )


def _storage_of(reference: object) -> tuple[str, np.dtype, int]:
  """Key, type and size that ('storage', type, key, device, size) names."""
  match reference:
    case pickles.Reference(('storage', pickles.Global(kind), key, _, size)) if (
      kind in _STORAGES and type(key) is str and type(size) is int
    ):
      return key, np.dtype(_STORAGES[kind]), size
  raise ValueError('a tensor refers to what is no storage of the file')


def _start_of_data(data: mmap.mmap, info: zipfile.ZipInfo) -> int:
  # The header before the data may be longer than its copy in the directory:
  # PyTorch pads it there to align the data.
  name, extra = struct.unpack_from('<HH', data, info.header_offset + 26)
  return info.header_offset + 30 + name + extra


def read_legacy(path: str | os.PathLike[str]) -> Any:
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

  def arrays(value: Any) -> Any:
    if isinstance(value, dict):
      return {key: arrays(v) for key, v in value.items()}
    if not isinstance(value, torch.Tensor):
      return value
    value = value.detach()
    # NumPy has no bfloat16 that PyTorch knows of.
    wide = value.float() if value.dtype == torch.bfloat16 else value
    return wide.numpy()

  return arrays(loaded)
