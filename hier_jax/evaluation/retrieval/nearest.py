"""The nearest rows of a gallery, exactly."""

import numpy as np
from numpy.typing import ArrayLike

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation.retrieval import _spaces
from hier_jax.evaluation.retrieval.lift import Lift

__all__ = ['nearest']

# Rows of the gallery that are scored at a time.
_TILE = 1 << 16


def nearest(
  queries: ArrayLike, gallery: ArrayLike, k: int, *, c: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Finds the k nearest rows of a gallery for each of a few queries.

  Everything is computed in float64 on the host; for many queries, or a gallery
  that does not fit into memory, see `write_faiss`.

  Args:
    queries: `[n, d]`, points of the gallery's space.
    gallery: `[m, d]`.
    k: number of neighbors.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      of curvature -c.

  Returns:
    Distances `[n, min(k, m)]` float64 (1 - cosine for cosine), the smallest
    first, and rows of the gallery `[n, min(k, m)]` int64. Of equal distances,
    the lower row comes first.

  Raises:
    UserError: rows for which the distance is not defined, dimensions other than
      the gallery's, a k that is not a positive integer.

  Example:
    >>> from hier_jax import evaluation
    >>> far, rows = evaluation.nearest([[4.0]], [[0.0], [5.0], [9.0]], 2, c=0)
    >>> far.tolist(), rows.tolist()
    ([[1.0, 4.0]], [[1, 0]])
  """
  distance, c = _spaces.resolve(None, c)
  k = _checks.positive_int('k', k)
  queries = _spaces.points('queries', queries, distance, c)
  gallery = _spaces.points('gallery', gallery, distance, c)
  if queries.shape[1] != gallery.shape[1]:
    raise UserError(
      f'`queries` has {queries.shape[1]} dimensions and `gallery`'
      f' {gallery.shape[1]}; expected the same: embed both with one model'
    )
  lift = Lift.about(gallery, c=c, distance=distance)
  lifted = lift.queries(queries, np.float64)
  n = len(queries)
  scores, rows = np.empty((n, 0)), np.empty((n, 0), np.int64)
  for start in range(0, len(gallery), _TILE):
    tile = lift.gallery(gallery[start : start + _TILE], np.float64)
    found = np.hstack([scores, lifted @ tile.T])
    numbers = np.broadcast_to(
      np.arange(start, start + len(tile)), (n, len(tile))
    )
    numbers = np.hstack([rows, numbers])
    best = np.argsort(-found, axis=1, kind='stable')[:, :k]
    scores = np.take_along_axis(found, best, 1)
    rows = np.take_along_axis(numbers, best, 1)
  return lift.distances(queries, scores), rows
