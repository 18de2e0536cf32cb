"""Scores in float64 on the host: what decides where float32 cannot.

Two scores tie where they differ by less than they may be off by. So whatever
is equal in exact arithmetic ties, be it written with other roundings.
"""

import functools
from collections.abc import Iterator, Sequence
from concurrent import futures
from typing import Literal

import numpy as np

from hier_jax.evaluation.retrieval._layout import Layout
from hier_jax.evaluation.retrieval.lift import ROUNDOFF, Lift

# Scores held at a time.
_SCORES = 1 << 23
# Positives beyond which scores are sorted: cheaper than comparing with each.
_MANY = 32


class Gallery:
  """Scores of a gallery, the larger the nearer.

  Attributes:
    radius: `[m]`; the score of a query whose row has length 1 is off by this at
      most.
  """

  def __init__(self, lift: Lift, gallery: np.ndarray):
    """Lifts the rows `[m, d]` of the gallery."""
    self._lift = lift
    self._rows = lift.gallery(gallery, np.float64)
    # `norm` would hold all squares.
    length = np.sqrt(np.einsum('md,md->m', self._rows, self._rows))
    rounding = (self._rows.shape[1] + 2) * ROUNDOFF
    self.radius = 1.01 * (
      (rounding + lift.query_error()) * length + lift.gallery_error(gallery)
    )

  def blocks(
    self, queries: np.ndarray, size: int
  ) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Scores of some queries at a time.

    A score is off by the length times `radius` at most.

    Args:
      queries: `[n, d]`.
      size: how many at a time.

    Yields:
      which b queries; their scores `[b, m]`, which hold until the next ones are
      asked for; and the lengths `[b]` of their rows.
    """
    # One array for all blocks: a new one of this size is zeroed by the system.
    scores = np.empty((min(size, len(queries)), len(self._rows)))
    for start in range(0, len(queries), size):
      some = slice(start, start + size)
      rows = self._lift.queries(queries[some], np.float64)
      found = np.matmul(rows, self._rows.T, out=scores[: len(rows)])
      yield some, found, np.linalg.norm(rows, axis=1)


def negatives_ahead(
  gallery: Gallery, queries: np.ndarray, layout: Layout, places: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
  """Counts as `_ranking.Ranker.negatives_ahead` does.

  Args:
    gallery: with its rows in the order of the layout.
    queries: `[n, d]`.
    layout: of queries and gallery.
    places: which queries to look at, by their place in the layout.

  Yields:
    some of the places `[b]`, and counts `[2, b, J]` int32.
  """
  block = max(1, _SCORES // len(gallery.radius))
  rows = queries[layout.queries[places]]
  with futures.ThreadPoolExecutor() as pool:
    for part, scores, length in gallery.blocks(rows, block):
      some = places[part]
      count = functools.partial(counts, radius=gallery.radius)
      each = scores, length, layout.runs[:, some].T
      yield some, padded(list(pool.map(count, *each)))


def padded(ahead: Sequence[np.ndarray]) -> np.ndarray:
  """Counts of each query, `[2, R]`, as one array `[2, b, J]` int32.

  J is the largest R, or 1; the largest int32 stands where a query has fewer.
  """
  most = max(found.shape[1] for found in ahead)
  shape = 2, len(ahead), max(1, most)
  together = np.full(shape, np.iinfo(np.int32).max, np.int32)
  for i, found in enumerate(ahead):
    together[:, i, : found.shape[1]] = found
  return together


def counts(
  scores: np.ndarray, length: float, run: np.ndarray, radius: np.ndarray
) -> np.ndarray:
  """Negatives ahead of the R positives of one query, `[2, R]`.

  Args:
    scores: `[m]`.
    length: of the query's row.
    run: the query's column of `Layout.runs`.
    radius: of `Gallery`.
  """
  start, stop, own = run
  radius = length * radius
  low, high = scores - radius, scores + radius
  mine = np.arange(start, stop)
  mine = mine[mine != own]
  others = lambda ends: np.concatenate([ends[:start], ends[stop:]])
  return np.stack(
    [
      _above(others(low), np.sort(high[mine])[::-1], 'right'),
      _above(others(high), np.sort(low[mine])[::-1], 'left'),
    ]
  )


def _above(
  scores: np.ndarray, thresholds: np.ndarray, side: Literal['left', 'right']
) -> np.ndarray:
  """How many scores are above each threshold; with side 'left' or equal."""
  if len(thresholds) <= _MANY:
    ahead = np.greater if side == 'right' else np.greater_equal
    return np.array([np.count_nonzero(ahead(scores, t)) for t in thresholds])
  return len(scores) - np.searchsorted(np.sort(scores), thresholds, side)
