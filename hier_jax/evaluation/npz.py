"""Named arrays in NumPy's .npz."""

import pathlib
import zipfile
from collections.abc import Sequence

import numpy as np

from hier_jax.errors import UserError


def read(path, names: Sequence[str], remedy: str) -> dict[str, np.ndarray]:
  """All arrays of a file.

  Args:
    path: of the .npz.
    names: arrays that must be there.
    remedy: what errors tell the user to do.

  Raises:
    UserError: no such file, another format, or an array that is missing.
  """
  path = pathlib.Path(path)
  try:
    with np.load(path, allow_pickle=False) as archive:
      if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError('a single array')
      arrays = dict(archive)
  except FileNotFoundError:
    raise UserError(f'{path} does not exist: {remedy}') from None
  # Of an empty file NumPy says EOFError, which is no OSError.
  except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
    raise UserError(
      f'{path} cannot be read as .npz ({error}): {remedy}'
    ) from error
  missing = [name for name in names if name not in arrays]
  if missing:
    held = ', '.join(sorted(arrays)) or 'nothing'
    raise UserError(
      f'{path} lacks the array {missing[0]!r}, it holds {held}: {remedy}'
    )
  return arrays
