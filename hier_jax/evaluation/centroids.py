"""Centroids of classes, by cosine, in Euclidean space and in the ball."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Shaped
from numpy.typing import ArrayLike
from scipy import sparse

from hier_jax.evaluation import _checks
from hier_jax.evaluation._distances import normalize, square_norm
from hier_jax.evaluation.retrieval import _spaces


def class_centroids(
  embeddings: Float[ArrayLike, 'n d'],
  labels: Shaped[ArrayLike, ' n'],
  *,
  c: float | None = None,
) -> tuple[Float64[np.ndarray, 'C d'], Shaped[np.ndarray, ' C']]:
  """Centroid of each class, for a tree of classes.

  For cosine, it is the mean of the rows scaled to length 1, not scaled again
  itself; in Euclidean space, the mean. In the ball, it is the midpoint, which
  is the centroid on the hyperboloid: with p_i = 1 / (1 - c|x_i|^2), P = sum
  p_i, r = n / P and m = sum p_i x_i / P it is

    2m / (2 - r + sqrt(r^2 + 4c sum p_i |x_i - m|^2 / P)).

  Args:
    embeddings: `[n, d]`, any floating dtype.
    labels: class of each row `[n]`, any dtype that sorts.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      of curvature -c.

  Returns:
    float64 `[C, d]`, and the classes `[C]`, sorted.

  Raises:
    UserError: rows with NaN or Inf, points outside the ball, wrong shapes,
      labels that are missing.

  References:
    Shimizu et al., Hyperbolic Neural Networks++, ICLR 2021, arXiv 2006.08210,
    section 3.5.

  Example:
    >>> from hier_jax import evaluation
    >>> x = [[0.0, 1.0], [0.0, 3.0], [5.0, 0.0]]
    >>> means, classes = evaluation.class_centroids(x, ['a', 'a', 'b'], c=0)
    >>> print(classes, means.round(2).tolist())
    ['a' 'b'] [[0.0, 2.0], [5.0, 0.0]]
  """
  distance, c = _spaces.resolve(None, c)
  x = _spaces.points('embeddings', embeddings, distance, c)
  labels = _checks.class_labels('labels', labels, len(x))
  _checks.labeled('labels', labels)
  classes, codes = np.unique(labels, return_inverse=True)
  return of_codes(x, codes, c), classes


def of_codes(x: np.ndarray, codes: np.ndarray, c: float | None) -> np.ndarray:
  """`class_centroids` of checked points.

  Beside them a few rows are held in float64 at a time.

  Args:
    x: `[n, d]`, any floating dtype.
    codes: class of each row `[n]`, all of 0 to C - 1.
    c: curvature.
  """
  num = 1 + int(codes.max())
  total, mean = np.zeros((num, 1)), np.zeros((num, x.shape[1]))
  # By class, so that the rows held at a time are of few.
  order = np.argsort(codes, kind='stable')
  for rows, weight, sums, held in _parts(x, codes, order, c):
    total[held] += sums @ weight
    mean[held] += sums @ (weight * rows)
  mean /= total
  if not c:
    return mean
  spread = np.zeros((num, 1))
  for rows, weight, sums, held in _parts(x, codes, order, c):
    gap = square_norm(rows - sums.T @ mean[held])
    spread[held] += sums @ (weight * gap)
  ratio = np.bincount(codes, minlength=num)[:, None] / total
  scale = 2 - ratio + np.sqrt(ratio**2 + 4 * c * spread / total)
  return 2 * mean / scale


def _parts(x, codes, order, c):
  """Some rows at a time, by class.

  Yields:
    rows `[b, d]` in float64, their weights `[b, 1]`, a sparse matrix of 0 and 1
    that sums them by class, and the slice of these classes.
  """
  for start in range(0, len(order), _spaces.ROWS):
    some = order[start : start + _spaces.ROWS]
    rows, code = x[some].astype(np.float64), codes[some]
    if c is None:
      rows = normalize(rows)
    ones = np.ones(len(some)), (code - code[0], np.arange(len(some)))
    sums = sparse.csr_array(ones, shape=(1 + code[-1] - code[0], len(some)))
    weight = 1 / (1 - c * square_norm(rows)) if c else np.ones((len(rows), 1))
    yield rows, weight, sums, slice(code[0], 1 + code[-1])
