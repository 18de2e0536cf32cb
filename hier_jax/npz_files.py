"""Arrays of an .npz that a stranger may have written."""

import math
import os
import zipfile

import numpy as np

__all__ = ['read_array']


def read_array(archive: np.lib.npyio.NpzFile, name: str) -> np.ndarray:
  """Reads an array after looking at how much memory it asks for.

  Args:
    archive: of `numpy.load(..., allow_pickle=False)`.
    name: one of `archive.files`.

  Raises:
    ValueError: the array is declared to be larger than what the file holds, or
      than this machine's memory; or it holds Python objects.
  """
  members = archive.zip
  assert members is not None, 'the archive is closed'
  names = members.namelist()
  info = members.getinfo(f'{name}.npy' if f'{name}.npy' in names else name)
  memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  if info.file_size > memory:
    raise ValueError(
      f'{name} takes {info.file_size:,} bytes, more than this machine has'
    )
  declared = _declared_bytes(members, info)
  if declared > info.file_size:
    raise ValueError(
      f'{name} is declared to take {declared:,} bytes, the file holds'
      f' {info.file_size:,} of it'
    )
  return archive[name]


def _declared_bytes(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> int:
  with archive.open(info) as file:
    version = np.lib.format.read_magic(file)
    header = (
      np.lib.format.read_array_header_1_0
      if version == (1, 0)
      else np.lib.format.read_array_header_2_0
    )
    shape, _, dtype = header(file)
  return math.prod(shape) * dtype.itemsize
