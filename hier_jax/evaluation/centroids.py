"""Centroids of classes, by cosine, in Euclidean space and in the ball."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Float64, Shaped
from numpy.typing import ArrayLike
from scipy import sparse

from hier_jax.evaluation import _checks
from hier_jax.evaluation._distances import normalize, square_norm


def class_centroids(
  embeddings: Float[ArrayLike, 'n d'],
  labels: Shaped[ArrayLike, ' n'],
  *,
  c: float | None = None,
) -> tuple[Float64[np.ndarray, 'C d'], Shaped[np.ndarray, ' C']]:
  """Centroid of each class, for a tree of classes.

  For cosine the mean of the rows at length 1, not brought to length 1 again,
  and in Euclidean space the mean. In the ball it is the midpoint, the centroid
  of the hyperboloid: with p_i = 1 / (1 - c|x_i|^2), P = sum p_i, r = n / P and
  m = sum p_i x_i / P it is

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
  c = _checks.curvature('c', c)
  x = _checks.points('embeddings', embeddings, c)
  labels = _checks.class_labels('labels', labels, len(x))
  _checks.labeled('labels', labels)
  classes, codes = np.unique(labels, return_inverse=True)
  if c is None:
    x = normalize(x)
  c, num = c or 0.0, len(classes)
  weight = 1 / (1 - c * square_norm(x))
  rows = (np.ones(len(x)), (codes, np.arange(len(x))))
  groups = sparse.csr_array(rows, shape=(num, len(x)))
  total = groups @ weight
  mean = (groups @ (weight * x)) / total
  if not c:
    return mean, classes
  ratio = np.bincount(codes, minlength=num)[:, None] / total
  spread = (groups @ (weight * square_norm(x - mean[codes]))) / total
  scale = 2 - ratio + np.sqrt(ratio**2 + 4 * c * spread)
  return 2 * mean / scale, classes
