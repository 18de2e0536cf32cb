"""The nearest neighbors of every item, exactly."""

import numpy as np
import tqdm

from hier_jax.evaluation import _distances
from hier_jax.evaluation.retrieval import _spaces

# Distances held at a time.
_DISTANCES = 1 << 23


def nearest(
  embeddings: np.ndarray, k: int, *, c: float | None, progress: bool = False
) -> tuple[np.ndarray, np.ndarray]:
  """The k nearest other items of each item, by float64 distances.

  Of items at the same distance the one with the lower number comes first.

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
  metric, c = _spaces.resolve(None, c)
  points = np.asarray(embeddings).astype(np.float64)
  gallery = _distances.Gallery(points, metric, c)
  block = max(1, _DISTANCES // n)
  with tqdm.tqdm(
    total=n, desc='neighbors', delay=3, disable=not progress
  ) as bar:
    for first in range(0, n, block):
      rows = slice(first, first + block)
      index[rows], far[rows] = _smallest(
        gallery.distances(points[rows]), first, k
      )
      bar.update(min(block, n - first))
  return index, far


def _smallest(far, first, k):
  """The k smallest of each row, the item itself left out, in order."""
  rows = np.arange(len(far))
  far[rows, first + rows] = np.inf
  index = np.argpartition(far, k - 1, axis=1)[:, :k]
  last = np.take_along_axis(far, index, 1).max(1)
  # Where several tie for the last place the lower numbers have it.
  for row in np.flatnonzero((far <= last[:, None]).sum(1) > k):
    tied = np.flatnonzero(far[row] <= last[row])
    index[row] = tied[np.argsort(far[row, tied], kind='stable')][:k]
  index.sort(1)
  values = np.take_along_axis(far, index, 1)
  order = np.argsort(values, axis=1, kind='stable')
  return (
    np.take_along_axis(index, order, 1),
    np.take_along_axis(values, order, 1),
  )
