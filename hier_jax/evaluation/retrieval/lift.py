"""Inner products that rank as a distance does."""

from __future__ import annotations

import dataclasses
import math
from concurrent import futures

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from hier_jax.evaluation._distances import normalize, square_norm
from hier_jax.evaluation.retrieval import _spaces

# Gallery rows at most whose mean is taken.
_SAMPLE = 1 << 14
# Largest weight of a gallery row and smallest unit, with which no float32
# product overflows.
_LARGEST = 1e24
_SMALLEST = 2.0**-20
# Unit roundoff of float64.
ROUNDOFF = 2.0**-53


@dataclasses.dataclass(frozen=True, eq=False)
class Lift:
  """Makes vectors whose inner products rank a gallery for every query.

  For a fixed query x the hyperbolic distance grows with
  |x - y|^2 / (1 - c |y|^2), which is an inner product in d + 2 dimensions:
  [x, |x|^2, 1] . w [-2y, 1, |y|^2] with w = 1 / (1 - c |y|^2). Points of the
  hyperboloid are mapped to the ball, with w from their time coordinate. In
  Euclidean space w is 1 and one dimension is the same for all y, so d + 1
  dimensions suffice. Cosine similarity is the inner product of the normalized
  rows.

  Vectors are computed in float64 and relative to a center. This changes no
  order, and keeps products distinct if embeddings crowd far from the origin, as
  they do in an untrained network.

  Attributes:
    distance: one of `_spaces.DISTANCES`.
    c: curvature; None for 'cosine', 0 for 'euclidean'.
    scale: power of 2 that rows are multiplied by first.
    center: `[d]` float64, subtracted after that.
    unit: power of 2 near the length of the difference, by which it is divided,
      so that all parts of a product are about equally large.
  """

  distance: str
  c: float | None
  scale: float
  center: np.ndarray
  unit: float

  @classmethod
  def about(
    cls, gallery, *, c: float | None = None, distance: str | None = None
  ):
    """The lift about the mean of a gallery's rows.

    Args:
      gallery: `[m, d]`, inside the ball, or on the hyperboloid `[m, 1 + d]`,
        time first.
      c: None for cosine, 0 for Euclidean, c > 0 for the ball and the
        hyperboloid of curvature -c.
      distance: one of `_spaces.DISTANCES`; None for the one that c says, which
        is never 'lorentz'.

    Raises:
      UserError: an unknown distance, or one that does not go with c.
    """
    distance, c = _spaces.resolve(distance, c)
    gallery = np.asarray(gallery)
    scale = _scale(gallery, distance, c)
    some = gallery[:: -(-len(gallery) // _SAMPLE)].astype(np.float64)
    flat, _ = _flat(some, distance, c, scale)
    center = flat.mean(0)
    unit = 1.0
    if distance != 'cosine':
      length = math.sqrt(np.mean(square_norm(flat - center)))
      unit = max(_SMALLEST, _power(length)) if length > 0 else 1.0
    return cls(distance, c, scale, center, unit)

  def queries(self, x, dtype=np.float32) -> np.ndarray:
    """Rows `[n, D]` of queries `[n, d]`.

    D is d (cosine), d + 1 (Euclidean) or d + 2; of points of the hyperboloid
    only the space coordinates are read.
    """

    def one(x):
      flat, _ = _flat(x, self.distance, self.c, self.scale)
      return _as_query(flat, self)

    return _map_parts(one, np.asarray(x), dtype)

  def gallery(self, y, dtype=np.float32) -> np.ndarray:
    """Rows `[m, D]` of gallery items `[m, d]`.

    The larger `queries(x) @ gallery(y).T`, the nearer the item.
    """

    def one(y):
      flat, w = _flat(y, self.distance, self.c, self.scale)
      return _as_item(flat, w, self)

    return _map_parts(one, np.asarray(y), dtype)

  def distances(self, queries, scores) -> np.ndarray:
    """Distances of inner products with rows of `gallery`.

    Args:
      queries: `[n, d]`.
      scores: `[n, k]`, products of the rows of queries with those of items.

    Returns:
      float64 `[n, k]`: 1 - cosine, or the Euclidean or hyperbolic distance. It
      is as accurate as the products: with float32 products, distances near 0
      are off by about 1e-3 of the gallery's spread.
    """
    flat, _ = _flat(
      np.asarray(queries, np.float64), self.distance, self.c, self.scale
    )
    scores = np.asarray(scores, np.float64)
    if self.distance == 'cosine':
      return 1 - (scores + flat @ self.center[:, None])
    x = (flat - self.center) / self.unit
    if self.distance == 'euclidean':
      far = np.maximum(square_norm(x) - scores, 0)
      return np.sqrt(far) * self.unit / self.scale
    assert self.c is not None
    gap = 1 - self.c / self.scale**2 * square_norm(flat)
    far = np.maximum(-scores, 0) / gap * self.c * (self.unit / self.scale) ** 2
    return 2 / math.sqrt(self.c) * np.arcsinh(np.sqrt(far))

  def query_error(self) -> float:
    """Bound of what a row of a query is off by in float64, by its length."""
    step = (len(self.center) + 16) * ROUNDOFF
    # A point of the hyperboloid is rounded before the center is subtracted.
    return step * (1 + 6 / self.unit) if self.distance == 'lorentz' else step

  def gallery_error(self, y) -> np.ndarray:
    """Bounds `[m]` of what rows of items are off by in float64.

    A point near the boundary of the ball knows its gap 1 - c |y|^2 to about
    1e-16 only, so that its bound grows with its weight.
    """

    def one(y):
      flat, w = _flat(y, self.distance, self.c, self.scale)
      length = np.sqrt(square_norm(_as_item(flat, w, self)))
      if self.distance == 'cosine':
        return 1 + length
      return length * (1 + w) if self.distance == 'hyperbolic' else length

    return self.query_error() * _map_parts(one, np.asarray(y), np.float64)[:, 0]


def lift(
  queries: Float[ArrayLike, 'n d'],
  gallery: Float[ArrayLike, 'm d'],
  *,
  c: float | None = None,
  distance: str | None = None,
) -> tuple[Float[np.ndarray, 'n D'], Float[np.ndarray, 'm D']]:
  """Queries `[n, D]` and gallery `[m, D]` by `Lift.about` the gallery.

  Args:
    queries: rows to look up `[n, d]`, points of the gallery's space.
    gallery: rows to rank `[m, d]`, inside the ball, or on the hyperboloid
      `[m, 1 + d]`, time first.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      and the hyperboloid of curvature -c.
    distance: 'cosine', 'euclidean', 'hyperbolic' or 'lorentz'; None for the one
      that c says, which is never 'lorentz'.

  Returns:
    Lifted queries and lifted gallery, float32: the larger the inner product of
    two rows, the nearer they are.

  Raises:
    UserError: an unknown distance, or one that does not go with c.

  Example:
    >>> from hier_jax import evaluation
    >>> q, g = evaluation.lift([[0.1, 0.0]], [[0.9, 0.0], [0.2, 0.0]], c=1.0)
    >>> q.shape, int((q @ g.T).argmax())
    ((1, 4), 1)
  """
  made = Lift.about(gallery, c=c, distance=distance)
  return made.queries(queries), made.gallery(gallery)


def _map_parts(function, x, dtype):
  """Rows `[n, D]`, function of rows `[n, d]` in float64."""
  part = lambda start: x[start : start + _spaces.ROWS].astype(np.float64)
  out = np.empty((len(x), function(part(0)[:1]).shape[1]), dtype)

  def fill(start):
    out[start : start + _spaces.ROWS] = function(part(start))

  with futures.ThreadPoolExecutor() as pool:
    # `list` for the errors, which `map` keeps until they are asked for.
    list(pool.map(fill, range(0, len(x), _spaces.ROWS)))
  return out


def _power(x: float) -> float:
  """The power of 2 next to a positive number."""
  return 2.0 ** round(math.log2(x))


def _scale(gallery, distance, c):
  """What a row is multiplied by before anything else: no square overflows.

  A power of 2, which rounds nothing.
  """
  if distance == 'cosine':
    return 1.0
  if distance != 'euclidean':
    return _power(math.sqrt(c))
  return _spaces.to_unit(gallery)


def _flat(x, distance, c, scale):
  """Points `[n, d]` and their weights w `[n, 1]`, before centring."""
  if distance == 'cosine':
    return normalize(x), np.ones((len(x), 1))
  if distance == 'euclidean':
    return scale * x, np.ones((len(x), 1))
  c = c / scale / scale
  if distance == 'hyperbolic':
    x = scale * x
    return x, 1 / (1 - c * square_norm(x))
  space = scale * x[:, 1:]
  # 1 + sqrt(c) x_0, which is 2w of the point of the ball.
  height = 1 + np.sqrt(1 + c * square_norm(space))
  return space / height, np.minimum(height / 2, _LARGEST)


def _as_query(x, lift):
  if lift.distance == 'cosine':
    return x
  x = (x - lift.center) / lift.unit
  ones = np.ones_like(x[:, :1])
  if lift.distance == 'euclidean':
    return np.hstack([x, ones])
  return np.hstack([x, square_norm(x), ones])


def _as_item(y, w, lift):
  y = (y - lift.center) / lift.unit
  if lift.distance == 'cosine':
    return y
  if lift.distance == 'euclidean':
    return np.hstack([2 * y, -square_norm(y)])
  return w * np.hstack([2 * y, -np.ones_like(w), -square_norm(y)])
