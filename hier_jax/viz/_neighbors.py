"""The nearest neighbors of every item, exactly."""

import numpy as np
import tqdm

from hier_jax.evaluation.retrieval.lift import Lift

# Scores held at a time.
_SCORES = 1 << 23


def nearest(
  embeddings: np.ndarray, k: int, *, c: float | None, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
  """The k nearest other items of each item, as `evaluation.nearest` finds them.

  That is for a few queries. Of items at the same distance the one with the
  lower number comes first.

  Args:
    embeddings: `[n, d]`.
    k: how many; fewer where there are not as many others.
    c: None for cosine, 0 for Euclidean, c > 0 for points of the ball.
    progress: whether to show a bar on stderr, after some seconds.

  Returns:
    Numbers int32 `[n, k]` and distances float32 `[n, k]`.

  Example:
    >>> import numpy as np
    >>> index, far = nearest(np.array([[0.0], [1.0], [3.0]]), 1, c=0)
    >>> index.tolist(), far.tolist()
    ([[1], [0], [1]], [[1.0], [1.0], [2.0]])
  """
  n = len(embeddings)
  k = max(0, min(k, n - 1))
  index, far = np.zeros((n, k), np.int32), np.zeros((n, k), np.float32)
  if k == 0:
    return index, far
  points = np.asarray(embeddings)
  lift = Lift.about(points, c=c)
  queries, gallery = (
    side(points, np.float64) for side in (lift.queries, lift.gallery)
  )
  block = max(1, _SCORES // n)
  with tqdm.tqdm(
    total=n, desc='neighbors', delay=3, disable=not progress
  ) as bar:
    for first in range(0, n, block):
      rows = slice(first, first + block)
      scores = queries[rows] @ gallery.T
      index[rows], best = _largest(scores, first, k)
      far[rows] = lift.distances(points[rows], best)
      bar.update(len(scores))
  return index, far


def _largest(scores, first, k):
  """The k largest of each row, the item itself left out, in order."""
  rows = np.arange(len(scores))
  scores[rows, first + rows] = -np.inf
  index = np.argpartition(scores, -k, axis=1)[:, -k:]
  last = np.take_along_axis(scores, index, 1).min(1)
  # Where several tie for the last place the lower numbers have it.
  for row in np.flatnonzero((scores >= last[:, None]).sum(1) > k):
    tied = np.flatnonzero(scores[row] >= last[row])
    index[row] = tied[np.argsort(-scores[row, tied], kind='stable')][:k]
  index.sort(1)
  values = np.take_along_axis(scores, index, 1)
  order = np.argsort(-values, axis=1, kind='stable')
  return (
    np.take_along_axis(index, order, 1),
    np.take_along_axis(values, order, 1),
  )
