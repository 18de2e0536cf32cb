"""Distances of plain arrays, in float64."""

import math

import numpy as np


def to_ball(
  x: np.ndarray, distance: str, c: float | None
) -> tuple[np.ndarray, str]:
  """Maps points of the hyperboloid to the ball; returns other points unchanged.

  Args:
    x: `[n, d]`; for 'lorentz' `[n, 1 + d]`, time first, with only the space
      coordinates read.
    distance: 'cosine', 'euclidean', 'hyperbolic' or 'lorentz'.
    c: curvature; None for 'cosine', 0 for 'euclidean'.

  Returns:
    float64 points, and the distance to compare them by, which is never
    'lorentz'.
  """
  x = np.asarray(x).astype(np.float64)
  if distance != 'lorentz':
    return x, distance
  assert c is not None
  space = x[:, 1:]
  return space / (1 + np.sqrt(1 + c * square_norm(space))), 'hyperbolic'


class Gallery:
  """Distances from blocks of queries to one set of points.

  Cosine distance is 1 - cosine (a zero row has cosine 0 to all rows);
  hyperbolic distance is measured in the ball of curvature -c. Identical rows of
  the set have exactly the same distance from a query. |x - y|^2 comes from a
  matrix product and is right to about 1e-16 of the largest square.
  """

  def __init__(self, points: np.ndarray, distance: str, c: float | None):
    # A product rounds by its place in the block, so equal rows share one.
    distinct, row = np.unique(points, axis=0, return_inverse=True)
    self._row = None if len(distinct) == len(points) else row.reshape(-1)
    points = points if self._row is None else distinct
    self._distance, self._c = distance, c or 0.0
    if distance == 'cosine':
      self._points = normalize(points)
      return
    self._gap = 1 - self._c * square_norm(points)[:, 0]
    # About the mean the product loses little where points crowd far from the
    # origin.
    self._center = points.mean(0)
    self._points = points - self._center
    self._square = square_norm(self._points)[:, 0]

  def distances(self, queries: np.ndarray) -> np.ndarray:
    """`[b, m]` of queries `[b, d]`."""
    if self._distance == 'cosine':
      far = 1 - normalize(queries) @ self._points.T
    else:
      gap = 1 - self._c * square_norm(queries)
      queries = queries - self._center
      far = queries @ (-2 * self._points.T)
      far += square_norm(queries)
      far += self._square
      np.sqrt(np.maximum(far, 0, out=far), out=far)
      if self._c:
        far = _hyperbolic(far, gap, self._gap, self._c)
    return far if self._row is None else far[:, self._row]


def paired(
  x: np.ndarray, y: np.ndarray, distance: str, c: float | None
) -> np.ndarray:
  """Distances `[n]` of the rows of x and y, `[n, d]` each."""
  if distance == 'cosine':
    return 1 - np.sum(normalize(x) * normalize(y), -1)
  far = np.sqrt(square_norm(x - y)[:, 0])
  if not c:
    return far
  return _hyperbolic(
    far, 1 - c * square_norm(x)[:, 0], 1 - c * square_norm(y)[:, 0], c
  )


def square_norm(x: np.ndarray) -> np.ndarray:
  """`[..., 1]` of `[..., d]`."""
  return np.sum(x * x, axis=-1, keepdims=True)


def normalize(x: np.ndarray) -> np.ndarray:
  """Rows of length 1; a zero row stays zero."""
  # By the largest entry first: the square of a tiny row would underflow.
  largest = np.max(np.abs(x), axis=-1, keepdims=True)
  x = x / np.where(largest > 0, largest, 1)
  norm = np.sqrt(square_norm(x))
  return x / np.where(norm > 0, norm, 1)


def _hyperbolic(far, gap, other_gap, c):
  """Hyperbolic distance of points |x - y| = far apart.

  2 arsinh(sqrt(c) |x - y| / sqrt(gap_x gap_y)) / sqrt(c), gap = 1 - c|x|^2.
  """
  root = math.sqrt(c)
  return 2 / root * np.arcsinh(root * far / np.sqrt(gap * other_gap))
