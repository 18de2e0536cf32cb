"""The nearest images of an image."""

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np
from PIL import Image

from hier_jax import paths
from hier_jax.errors import UserError, plain
from hier_jax.evaluation.embedding_files import Embedded
from hier_jax.evaluation.retrieval.nearest import nearest
from hier_jax.inference import embed, pictures, sources
from hier_jax.inference.gallery import Item
from hier_jax.inference.model import Model
from hier_jax.viz import sheet

__all__ = ['Hit', 'Result', 'Rows', 'as_text', 'search_images', 'write_sheet']


class Gallery(Protocol):
  """Images to search: `Rows` in memory, or `gallery.Index` on the disk."""

  about: Mapping[str, Any]

  def __len__(self) -> int:
    """The number of images."""

  @property
  def labels(self) -> frozenset[str]:
    """The names of the classes."""

  def item(self, row: int) -> Item:
    """What is known of a row."""

  def search(self, queries, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and rows `[n, k]`, the nearest first; -1 is none."""


class Rows:
  """Embeddings in memory, searched exactly.

  Args:
    embedded: rows with ids.

  Attributes:
    about: what is known of the model and the images.
    labels: names of the classes.
  """

  def __init__(self, embedded: Embedded):
    self._embedded, self.about = embedded, embedded.about
    self._ids = embedded.ids or [
      str(row) for row in range(len(embedded.embeddings))
    ]
    found = embedded.labels
    self._labels = None if found is None else [str(x) for x in found.tolist()]
    self.labels = frozenset(self._labels or ())

  def __len__(self) -> int:
    """The number of images."""
    return len(self._ids)

  def item(self, row: int) -> Item:
    """What is known of a row."""
    label = None if self._labels is None else self._labels[row]
    return Item(self._ids[row], label)

  def search(self, queries, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and rows `[n, k]`, the nearest first."""
    rows = self._embedded.embeddings
    return nearest(queries, rows, k, c=self._embedded.c)


class Hit(NamedTuple):
  """One of the nearest images.

  Attributes:
    id: of the image, in the gallery.
    label: the name of its class, or None.
    distance: distance to the query, as the model measures it.
    right: whether it has the query's class; None if one of the classes is not
      known.
  """

  id: str
  label: str | None
  distance: float
  right: bool | None


class Result(NamedTuple):
  """What was found for a query.

  Attributes:
    query: its path.
    label: the name of its class, or None.
    hits: the nearest first.
  """

  query: str
  label: str | None
  hits: list[Hit]


def search_images(
  model: Model,
  gallery: Gallery,
  images: Sequence[str | os.PathLike],
  *,
  k: int = 10,
  batch_size: int | None = None,
  root: str | os.PathLike | None = None,
) -> tuple[list[Result], list[tuple[str, str]]]:
  """Finds the nearest images of each of some images.

  A query that is itself in the gallery is left out of its own results. Its
  class is the one it has in the gallery, or the name of its folder if the
  gallery has a class of that name.

  Args:
    model: the model that embedded the gallery.
    gallery: the images to search.
    images: paths of the queries.
    k: number of neighbors of each query.
    batch_size: see `embed.embed_images`.
    root: the folder that the gallery's ids are paths in; None for the one that
      it names.

  Returns:
    A result for each query that could be read, and (path, reason) for each
    query that could not.

  Raises:
    UserError: the gallery is of another model, or no query can be read.
  """
  theirs = gallery.about.get('digest')
  if theirs is not None and theirs != model.digest:
    raise UserError(
      f'the gallery was embedded with {gallery.about.get("model")}, another'
      f' model than {model.name}: search with that one, or embed it again'
    )
  if root is None:
    root = gallery.about.get('root')
  else:
    root = paths.as_local(root, 'the folder of images')
  source = sources.of_files(images, 'the queries')
  found = embed.embed_images(model, source, batch_size=batch_size)
  # One more, since a query may be in the gallery itself.
  far, rows = gallery.search(
    found.embedded.embeddings, min(k + 1, len(gallery))
  )
  results = [
    _result(name, gallery, root, *pair, k=k)
    for name, *pair in zip(found.embedded.ids or (), far, rows, strict=True)
  ]
  return results, found.unread


def _result(query, gallery, root, far, rows, *, k) -> Result:
  items = [
    (gallery.item(int(row)), float(distance))
    for distance, row in zip(far, rows, strict=True)
    if row >= 0
  ]
  own = [item for item, _ in items if _same(root, item.id, query)]
  folder = os.path.basename(os.path.dirname(os.path.realpath(query)))
  label = folder if folder in gallery.labels else None
  if own:
    label = own[0].label
  hits = [
    Hit(
      item.id,
      item.label,
      distance,
      None if label is None or item.label is None else item.label == label,
    )
    for item, distance in items
    if item not in own
  ]
  return Result(query, label, hits[:k])


def _same(root, name, query) -> bool:
  if not isinstance(root, str | os.PathLike):
    return False
  try:
    return os.path.samefile(os.path.join(root, name), query)
  except (OSError, ValueError):
    return False


def write_sheet(
  results: Sequence[Result],
  path: str | os.PathLike,
  *,
  title: str,
  opens: Callable[[str], Image.Image] | None,
) -> int:
  """Writes a contact sheet; see `sheet.write_sheet`.

  Args:
    results: of `search_images`.
    path: an .html or .png.
    title: what it is called.
    opens: the picture of an id, see `pictures.opener`; None for no pictures.

  Returns:
    The number of pictures of the gallery that could not be opened.
  """
  missing = 0

  def tile(name, open_one, lines, right=None):
    nonlocal missing
    try:
      image = None if open_one is None else open_one(name)
    except (UserError, ValueError, LookupError):
      image = None
    missing += image is None
    return sheet.Tile(image, lines, right)

  def row(result):
    lines = [result.query, *([result.label] if result.label else [])]
    query = sheet.Tile(pictures.open_image(paths.as_path(result.query)), lines)
    return sheet.Row(query, [_hit(hit) for hit in result.hits])

  def _hit(hit):
    label = [] if hit.label is None else [hit.label]
    lines = [*label, f'{hit.distance:.4f}', hit.id]
    return tile(hit.id, opens, lines, hit.right)

  known = [
    hit.right for r in results for hit in r.hits if hit.right is not None
  ]
  subtitle = (
    f'{sum(known)} of {len(known)} neighbors have the class of their query'
    if known
    else ''
  )
  sheet.write_sheet(
    [row(result) for result in results], path, title=title, subtitle=subtitle
  )
  return missing


def as_text(results: Sequence[Result]) -> str:
  """A table for the terminal."""
  return '\n\n'.join(_table(result) for result in results)


def _table(result: Result) -> str:
  of = '' if result.label is None else f' ({plain(result.label)})'
  lines = [f'{plain(result.query)}{of}']
  marks = {True: 'right', False: 'wrong', None: ''}
  labels = [plain(hit.label or '') for hit in result.hits]
  width = max([5, *map(len, labels)])
  for rank, (hit, label) in enumerate(
    zip(result.hits, labels, strict=True), start=1
  ):
    cells = [f'{rank:4}', f'{hit.distance:9.4f}']
    if any(labels):
      cells.append(label.ljust(width))
    if result.label is not None:
      cells.append(marks[hit.right].ljust(5))
    lines.append('  '.join([*cells, plain(hit.id)]))
  return '\n'.join(lines)
