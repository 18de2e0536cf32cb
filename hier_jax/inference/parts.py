"""Unfinished work in a folder, to go on from."""

import contextlib
import hashlib
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import NamedTuple

import filelock
import numpy as np

from hier_jax import npz_files, paths
from hier_jax.data import cache
from hier_jax.errors import UserError

__all__ = ['Part', 'Parts', 'resumable']


class Part(NamedTuple):
  """Some images of a source, starting after the previous part.

  Attributes:
    stop: number of the first image of the next part.
    rows: `[m, d]`, embeddings of the images that could be read.
    items: their numbers `[m]`.
    unread: the number of each of the others.
    reasons: why, one for each.
  """

  stop: int
  rows: np.ndarray
  items: np.ndarray
  unread: np.ndarray
  reasons: np.ndarray


class Parts:
  """Unfinished work in a folder, to go on from; used by one process at a time.

  Args:
    out: the file that the work is for. The folder lies beside it, or in the
      cache for one in an object store.
    key: what tells the work from another. What is left of another is removed.

  Raises:
    UserError: another process works for the same file.
  """

  def __init__(self, out: str | os.PathLike, key: str):
    out, name = paths.as_path(out), paths.as_path(out).name
    home = out.parent
    if paths.is_remote(out):
      home = cache.folder() / 'embed'
      name = hashlib.sha256(os.fspath(out).encode()).hexdigest()[:32]
    self.folder = home / f'.{name}.parts'
    self._key = key
    with paths.writing(self.folder):
      self.folder.mkdir(parents=True, exist_ok=True)
    self._lock = filelock.FileLock(self.folder / 'lock')
    try:
      self._lock.acquire(blocking=False)
    except filelock.Timeout:
      raise UserError(
        f'another process is writing {out}: wait for it, or name another file'
      ) from None
    self.found = self._read()

  def _read(self) -> list[Part]:
    """The parts of this work, in order; other files are removed."""
    found, stop = [], 0
    for path in sorted(self.folder.glob('*.npz')):
      part = None
      if path.name == self._name(stop):
        part = _read_part(path)
      if part is None:
        path.unlink()
      else:
        found.append(part)
        stop = part.stop
    return found

  def _name(self, start):
    return f'{start:012d}-{self._key}.npz'

  def add(self, start: int, part: Part) -> None:
    """Keeps the part that begins with an image."""
    with (
      paths.replacing(self.folder / self._name(start)) as temporary,
      temporary.open('wb') as file,
    ):
      np.savez(file, **part._asdict())

  def release(self) -> None:
    """Lets another process go on; nothing is left of no work."""
    self._lock.release()
    if not list(self.folder.glob('*.npz')):
      self.remove()

  def remove(self) -> None:
    """Removes the folder, when the work is done or is no good."""
    self._lock.release()
    shutil.rmtree(self.folder, ignore_errors=True)


def _read_part(path: pathlib.Path) -> Part | None:
  """None for one that was damaged: it is made again."""
  try:
    with np.load(path, allow_pickle=False) as archive:
      arrays = {name: npz_files.read_array(archive, name) for name in archive}
      stop = int(arrays.pop('stop'))
      return Part(stop, **arrays)
  except Exception:
    return None


@contextlib.contextmanager
def resumable(out: str | os.PathLike, key: str) -> Iterator[Parts]:
  """The `Parts` of work for a file, for the time of a block.

  They are removed where the block ends well, and kept where it does not: the
  work is done even if its file cannot be written.
  """
  parts = Parts(out, key)
  try:
    yield parts
    parts.remove()
  finally:
    parts.release()
