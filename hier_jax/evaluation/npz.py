"""Named arrays in NumPy's .npz."""

import zipfile
import zlib
from collections.abc import Sequence

import numpy as np

from hier_jax import npz_files, paths
from hier_jax.errors import UserError, listed, plain

_DAMAGE = (
  # Of an empty file.
  EOFError,
  MemoryError,
  OSError,
  # Of an archive with a password or an unknown compression.
  RuntimeError,
  ValueError,
  zipfile.BadZipFile,
  zlib.error,
)


def read(
  path, names: Sequence[str], remedy: str, optional: Sequence[str] = ()
) -> dict[str, np.ndarray]:
  """Arrays of a file, by name.

  Args:
    path: of the .npz.
    names: arrays that must be there.
    remedy: what errors tell the user to do.
    optional: arrays that are read too where they are there; no others are.

  Raises:
    UserError: no such file, another format, an array that is missing or holds
      Python objects, which would have to be unpickled.
  """
  path = paths.as_path(path)
  try:
    with path.open('rb') as file:
      start = file.read(6)
      file.seek(0)
      # Of anything else NumPy says that it may be a pickle.
      if start and not start.startswith((b'PK', b'\x93NUMPY')):
        raise UserError(f'{path} is no .npz: {remedy}')
      archive = np.load(file, allow_pickle=False)
      if not isinstance(archive, np.lib.npyio.NpzFile):
        raise UserError(
          f'{path} holds one array without a name, as .npy does; expected an '
          f'.npz with {" and ".join(names)}: {remedy}'
        )
      with archive:
        if missing := [name for name in names if name not in archive]:
          held = listed(sorted(archive), 10) or 'nothing'
          raise UserError(
            f'{path} lacks the array {missing[0]!r}, it holds {held}: {remedy}'
          )
        wanted = [name for name in (*names, *optional) if name in archive]
        return {name: _array(path, archive, name) for name in wanted}
  except FileNotFoundError:
    raise UserError(f'{path} does not exist: {remedy}') from None
  except UserError:
    raise
  except _DAMAGE as error:
    raise UserError(
      f'{path} cannot be read as .npz ({plain(str(error))}): {remedy}'
    ) from error


def _array(path, archive, name):
  try:
    return npz_files.read_array(archive, name)
  except ValueError as error:
    if 'Object arrays' not in str(error):
      raise
    raise UserError(
      f'{path}: `{name}` holds Python objects, which are not unpickled; '
      'expected numbers or text: save it as .astype(str) or .astype(float), or '
      'leave it out where it is None'
    ) from error
