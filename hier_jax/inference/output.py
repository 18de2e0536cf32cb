"""Files of embeddings and indexes: written, or added to."""

import collections
import dataclasses
import os
from collections.abc import Callable

import numpy as np

from hier_jax import paths
from hier_jax.errors import UserError, listed
from hier_jax.evaluation import embedding_files
from hier_jax.evaluation.embedding_files import SUFFIXES, Embedded
from hier_jax.inference import gallery
from hier_jax.inference.model import Model
from hier_jax.inference.sources import Source

__all__ = ['Old', 'check', 'new_images', 'write']


@dataclasses.dataclass(frozen=True, eq=False)
class Old:
  """A file that is added to.

  Attributes:
    path: of the file.
    embedded: what it holds; None for an index.
    index: the index, or None.
    stamp: what changed with the file, when it was read.
  """

  path: os.PathLike
  embedded: Embedded | None = None
  index: gallery.Index | None = None
  stamp: tuple[float, ...] | None = None

  @property
  def about(self):
    """What it says of its model and its images."""
    return (self.embedded or self.index).about  # type: ignore[union-attr]

  @property
  def root(self) -> str | None:
    """What its ids are relative to."""
    return self.about.get('root')

  def check_unchanged(self) -> None:
    """Raises UserError where another process has written the file since."""
    if self.stamp != _stamp(self.path):
      raise UserError(
        f'another process has written {self.path} since it was read: run the'
        ' same command again'
      )

  def has(self) -> Callable[[str], bool]:
    """What says of an id whether it holds that image."""
    if self.index is not None:
      return self.index.has
    ids = set(self.embedded.ids or ())  # type: ignore[union-attr]
    if paths.as_path(self.path).suffix == '.parquet':
      return lambda name: embedding_files.in_parquet(name) in ids
    return ids.__contains__


def check(path, *, add: bool, inputs, kind: str | None = None) -> Old | None:
  """Checks, before any work, that an output can be written.

  Args:
    path: of the .npz, .parquet or .faiss.
    add: whether it is added to, and must be there.
    inputs: what is read, and must not be written over.
    kind: of an index, see `write_faiss`; None for any.

  Returns:
    What is there, where it is added to.

  Raises:
    UserError: it cannot be written, a package is missing, or what is added to
      is not there, not ours or an index of another kind.
  """
  path = paths.as_path(path)
  inputs = [name for name in inputs if name]
  paths.check_output(path, inputs=inputs, suffixes=[*SUFFIXES, gallery.SUFFIX])
  if path.suffix == gallery.SUFFIX:
    gallery.check(path, inputs=inputs)
  elif path.suffix == '.parquet':
    embedding_files.parquet_library()
  if not add:
    return None
  if not path.exists():
    raise UserError(f'{path} does not exist: leave out --add to write it')
  stamp = _stamp(path)
  if path.suffix == gallery.SUFFIX:
    index = gallery.open_index(path)
    if kind not in (None, index.kind):
      raise UserError(
        f'{path} is an index of kind {index.kind}, to which {kind} cannot be'
        ' added: leave out --index, or leave out --add to write it anew'
      )
    return Old(path, index=index, stamp=stamp)
  old = Old(path, embedded=embedding_files.read(path), stamp=stamp)
  if old.embedded.ids is None or 'digest' not in old.about:  # type: ignore[union-attr]
    raise UserError(
      f'{path} was not written by hier-jax embed: write another file'
    )
  return old


def _stamp(path) -> tuple[float, ...] | None:
  """What changes with a file; None where it is gone."""
  try:
    found = path.stat()
  except FileNotFoundError:
    return None
  if paths.is_remote(path):
    return found.length, found.mtime
  return found.st_ino, found.st_size, found.st_mtime_ns


def new_images(old: Old, model: Model, source: Source) -> Source:
  """The images of a source that a file does not hold yet.

  Raises:
    UserError: the file is of another model, or of other images than files.
  """
  if old.about.get('digest') != model.digest:
    raise UserError(
      f'{old.path} was written with another model,'
      f' {old.about.get("model")}: add with that one, or write another file'
    )
  if old.about.get('data') != source.about.get('data'):
    raise UserError(
      f'{old.path} holds images of {old.about.get("source")}, to which those of'
      f' {source.title} cannot be added: files and data sets do not mix'
    )
  if old.embedded is not None and (old.embedded.labels is None) != (
    source.labels is None
  ):
    raise UserError(
      f'only one of {old.path} and {source.title} has labels: take --labels'
      ' folder or --labels none'
    )
  has = old.has()
  return source.select([i for i, x in enumerate(source.ids) if not has(x)])


def write(
  embedded: Embedded, path, *, old: Old | None = None, kind: str | None = None
) -> int:
  """Writes or adds; returns the number of rows in the file.

  Args:
    embedded: what to write.
    path: of the .npz, .parquet or .faiss.
    old: what is added to, or None.
    kind: of an index that is written, see `write_faiss`; None for 'flat'.

  Raises:
    UserError: it cannot be written, or what is added to has changed since it
      was read.
  """
  path = paths.as_path(path)
  if old is not None:
    old.check_unchanged()
  if path.suffix == gallery.SUFFIX:
    if old is not None and old.index is not None:
      return gallery.add(old.index, embedded)
    return gallery.write(embedded, path, kind=kind or 'flat')
  if old is not None and old.embedded is not None:
    embedded = _joined(old.embedded, embedded)
  embedding_files.write(embedded, path)
  return len(embedded.embeddings)


def _joined(old: Embedded, new: Embedded) -> Embedded:
  if old.embeddings.shape[1] != new.embeddings.shape[1]:
    raise UserError('the embeddings have other dimensions than the old ones')
  labels = None
  if old.labels is not None and new.labels is not None:
    labels = np.concatenate([old.labels, new.labels])
  ids = [*(old.ids or ()), *(new.ids or ())]
  if twice := [name for name, n in collections.Counter(ids).items() if n > 1]:
    raise UserError(
      f'{len(twice)} ids stand twice: {listed(twice)}; expected each once'
    )
  return old._replace(
    embeddings=np.concatenate([old.embeddings, new.embeddings]),
    labels=labels,
    ids=ids,
  )
