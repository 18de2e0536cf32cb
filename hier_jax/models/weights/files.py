"""Arrays by name in files of any framework, and out into safetensors.

The format is recognized by the first bytes, not by the suffix. No reader runs
anything in a file.
"""

import contextlib
import functools
import json
import os
import pathlib
import pickle
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import safetensors
import safetensors.numpy

from hier_jax import npz_files, paths
from hier_jax.errors import UserError, plain, shown
from hier_jax.models.weights import torch_files

__all__ = ['metadata', 'read', 'write']

# Where checkpoints of whole training runs keep the network: DINO's (whose
# teacher is the one that is used), DeiT's and others'.
_NESTED = ('teacher', 'model', 'state_dict')
_KINDS = 'a .safetensors, an .npz or a PyTorch checkpoint'
_DAMAGE = (
  AttributeError,
  EOFError,
  IndexError,
  KeyError,
  OSError,
  MemoryError,
  OverflowError,
  # Of an archive with a password or an unknown compression.
  RuntimeError,
  StopIteration,
  TypeError,
  ValueError,
  pickle.UnpicklingError,
  safetensors.SafetensorError,
  struct.error,
  zipfile.BadZipFile,
  zlib.error,
)


# What the library raises where it cannot write.
_UNWRITTEN = (OSError, safetensors.SafetensorError)


class _Lazy(Mapping[str, np.ndarray]):
  """Arrays by name, each read when it is asked for."""

  def __init__(
    self,
    path: pathlib.Path,
    names: Iterable[str],
    get: Callable[[str], np.ndarray],
  ) -> None:
    self._path, self._names, self._get = path, dict.fromkeys(names), get

  def __getitem__(self, name: str) -> np.ndarray:
    if name not in self._names:
      raise KeyError(name)
    with _naming(self._path):
      return self._get(name)

  def __iter__(self) -> Iterator[str]:
    return iter(self._names)

  def __len__(self) -> int:
    return len(self._names)


def read(path: str | os.PathLike[str]) -> Mapping[str, np.ndarray]:
  """Opens a file of weights.

  Args:
    path: a .safetensors, an .npz, or a checkpoint of PyTorch (.pth, .pt, .bin),
      in which the network may lie under 'teacher', 'model' or 'state_dict'.

  Returns:
    Arrays by their names in the file, with the file's dtypes, each read when it
    is asked for if the format allows it.

  Raises:
    UserError: no such file, another format, a damaged file, or a pickle that
      holds more than tensors (nothing in it is run).
  """
  path = pathlib.Path(path)
  with _naming(path):
    kind = _kind(path)
    if kind == 'safetensors':
      opened = safetensors.safe_open(path, 'numpy')
      return _Lazy(path, opened.keys(), opened.get_tensor)
    if kind == 'npz':
      archive = np.load(path, allow_pickle=False)
      array = functools.partial(npz_files.read_array, archive)
      return _Lazy(path, archive.files, array)
    if kind == 'zip':
      return _network(torch_files.read_zip(path))
    return _network(torch_files.read_legacy(path))


def metadata(path: str | os.PathLike[str]) -> dict[str, str]:
  """What a .safetensors says of itself; empty for other files.

  Raises:
    UserError: as `read`.
  """
  path = pathlib.Path(path)
  with _naming(path):
    if _kind(path) != 'safetensors':
      return {}
    return safetensors.safe_open(path, 'numpy').metadata() or {}


def write(
  path: str | os.PathLike[str],
  arrays: Mapping[str, np.ndarray],
  metadata: Mapping[str, str],
) -> None:
  """Writes a .safetensors atomically."""
  # The library writes the buffers of arrays, whatever their strides.
  packed = {name: np.array(a, order='C') for name, a in arrays.items()}
  with paths.replacing(path, _UNWRITTEN) as temporary:
    # The library leaves a file that its owner alone may read.
    temporary.touch()
    mode = temporary.stat().st_mode
    safetensors.numpy.save_file(packed, temporary, dict(metadata))
    temporary.chmod(mode)


@contextlib.contextmanager
def _naming(path: pathlib.Path) -> Iterator[None]:
  """Names the file in errors, and takes damage for the user's to mend."""
  try:
    yield
  except UserError as error:
    raise UserError(f'{path} {error}') from error
  except FileNotFoundError:
    raise UserError(f'{path} does not exist; expected {_KINDS}') from None
  except IsADirectoryError:
    raise UserError(f'{path} is a folder; expected {_KINDS}') from None
  except _DAMAGE as error:
    # The reader may quote the damage.
    reason = plain(str(error)) or type(error).__name__
    raise UserError(
      f'{path} cannot be read ({reason}): it is damaged, cut short or not'
      f' {_KINDS}'
    ) from error


def _kind(path: pathlib.Path) -> str:
  with open(path, 'rb') as file:
    start = file.read(512)
  if start.startswith(b'PK\x03\x04'):
    names = zipfile.ZipFile(path).namelist()
    return 'zip' if any(n.endswith('data.pkl') for n in names) else 'npz'
  if start[8:9] == b'{':
    return 'safetensors'
  if start.startswith(b'\x80') or start[257:262] == b'ustar':
    return 'legacy'
  raise UserError(
    f'is not {_KINDS}: it starts with {json.dumps(start[:24].decode("latin1"))}'
    if start
    else f'is empty; expected {_KINDS}'
  )


def _network(saved: object) -> dict[str, np.ndarray]:
  """The arrays by name within what a checkpoint holds."""
  if not isinstance(saved, dict):
    raise UserError(
      f'holds one {type(saved).__name__}, expected tensors by name: save a'
      ' state_dict()'
    )
  nested = [saved[n] for n in _NESTED if isinstance(saved.get(n), dict)]
  arrays = {
    name: value
    for name, value in (nested[0] if nested else saved).items()
    if isinstance(value, np.ndarray)
  }
  if not arrays:
    held = ', '.join(map(shown, list(saved)[:5])) or 'nothing'
    raise UserError(
      f'holds no tensors by name, but {held}; they are looked for at the top'
      f' and under {", ".join(map(repr, _NESTED))}'
    )
  return arrays
