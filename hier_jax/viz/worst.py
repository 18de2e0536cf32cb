"""The queries whose first right neighbor comes last, as a contact sheet."""

import os

import numpy as np
from PIL import Image

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.retrieval.nearest import nearest
from hier_jax.evaluation.retrieval.per_query import per_query
from hier_jax.viz import sheet

__all__ = ['NEIGHBORS', 'QUERIES', 'ranks', 'write']

QUERIES, NEIGHBORS = 20, 6


def ranks(collection: Collection) -> np.ndarray:
  """The rank of each item's first neighbor of its class, from 1.

  If items tie, items of other classes come first.

  Args:
    collection: of two items or more, with labels.

  Returns:
    int64 `[n]`, 0 if no other item has the class.

  Raises:
    UserError: no labels, or fewer than two items.

  Example:
    >>> import numpy as np
    >>> from hier_jax.evaluation.collection import Collection
    >>> from hier_jax.viz import worst
    >>> rows, labels = np.array([[0.0], [1.0], [3.0]]), np.array([0, 1, 0])
    >>> made = Collection(rows, 0, tuple('abc'), labels, ('cat', 'dog'))
    >>> worst.ranks(made).tolist()
    [2, 0, 2]
  """
  if collection.labels is None:
    raise UserError(
      'the images have no labels, by which neighbors are right or wrong: label'
      ' them, as by a folder a class'
    )
  if len(collection) < 2:
    raise UserError(
      f'there are {len(collection)} images; expected two or more to rank'
    )
  found = per_query(
    collection.embeddings,
    collection.labels,
    c=collection.c,
    best_only=True,
    attributes=['rank'],
  )
  return np.where(found.num_positives > 0, found.rank, 0).astype(np.int64)


def write(
  collection: Collection,
  path: str | os.PathLike,
  *,
  queries: int = QUERIES,
  neighbors: int = NEIGHBORS,
  theme: str = 'light',
) -> None:
  """Writes the worst queries, the worst first.

  Each row shows a query, its nearest neighbors of other classes, and the first
  neighbor of its own class with its rank.

  Args:
    collection: of two items or more, with labels.
    path: an .html or .png, see `sheet.write_sheet`.
    queries: how many.
    neighbors: number of wrong neighbors per query.
    theme: 'light' or 'dark', of a .png.

  Raises:
    UserError: as `ranks` and `sheet.write_sheet`; no two items have the same
      class.
  """
  queries = _checks.positive_int('queries', queries)
  neighbors = _checks.positive_int('neighbors', neighbors)
  path = paths.check_output(path, suffixes=sheet.SUFFIXES)
  rank = ranks(collection)
  if not rank.any():
    raise UserError(
      'no two images have the same class, so that no neighbor is right'
    )
  worst = np.argsort(-rank, kind='stable')[:queries]
  worst = worst[rank[worst] > 0]
  sheet.write_sheet(
    [_row(collection, int(query), rank[query], neighbors) for query in worst],
    path,
    title=f'{collection.title}: the {len(worst)} worst queries',
    subtitle=(
      f'For {np.mean(rank == 1):.1%} of {len(rank):,} images the nearest'
      ' neighbor is right. Shown are those whose first right neighbor comes'
      ' last, with its rank.'
    ),
    theme=theme,
  )


def _row(collection, query, rank, neighbors):
  x, labels, c = collection.embeddings, collection.labels, collection.c
  far, near = nearest(x[query : query + 1], x, neighbors + 1, c=c)
  wrong = [
    (item, distance)
    for item, distance in zip(near[0].tolist(), far[0], strict=True)
    if labels[item] != labels[query]
  ]
  own = np.flatnonzero(labels == labels[query])
  own = own[own != query]
  (distance,), (first,) = (
    rows[0] for rows in nearest(x[query : query + 1], x[own], 1, c=c)
  )
  found = [
    _tile(collection, item, f'{distance:.4f}', False)
    for item, distance in wrong[: min(neighbors, rank - 1)]
  ]
  text = f'rank {rank:,}: {distance:.4f}'
  found.append(_tile(collection, int(own[first]), text, True))
  return sheet.Row(_tile(collection, query, 'query', None), found)


def _tile(collection, item, line, right):
  lines = [collection.label(item), line, collection.ids[item]]
  return sheet.Tile(_image(collection, item), lines, right)


def _image(collection, item) -> Image.Image | None:
  if collection.image is None:
    return None
  try:
    return collection.image(item)
  except UserError:
    return None
