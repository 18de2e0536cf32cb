"""Inner products that rank as a distance does."""

import math
from collections.abc import Iterator
from concurrent import futures

import numpy as np

from hier_jax.errors import UserError
from hier_jax.evaluation import checks
from hier_jax.evaluation.distances import normalise, square_norm

METRICS = ('cosine', 'euclidean', 'hyperbolic', 'lorentz')
_OF_A_BALL = ('hyperbolic', 'lorentz')
# Rows worked on at a time: their float64 copies stay in a core's cache.
_ROWS = 1 << 11
# Gallery rows at most whose mean is taken.
_SAMPLE = 1 << 14
# Largest weight of a gallery row, with which no float32 product overflows.
_LARGEST = 1e30


def resolve(metric: str | None, c: float) -> str:
  """The order meant: None is the ball's where c > 0, else cosine.

  Raises:
    UserError: an unknown metric, or one that does not go with c.
  """
  if metric is None:
    return 'hyperbolic' if c > 0 else 'cosine'
  if metric not in METRICS:
    raise UserError(f'`metric` is {metric!r}; expected one of {list(METRICS)}')
  if (metric in _OF_A_BALL) != (c > 0):
    raise UserError(
      f'`metric` is {metric!r} at c = {c}; expected one of {list(_OF_A_BALL)} '
      'exactly where c > 0: pass the c it was trained with, or 0'
    )
  return metric


def points(name: str, x, metric: str, c: float) -> np.ndarray:
  """Finite rows `[n, d]` that the metric is defined for, in their own dtype.

  Args:
    name: what the caller knows them by.
    x: any floating dtype.
    metric: one of `METRICS`.
    c: curvature.

  Raises:
    UserError: another shape or dtype, NaN or Inf, rows outside the ball or off
      the hyperboloid.
  """
  x = checks.matrix(name, x)
  parts = [(np.isfinite(p).all(1), _inside(p, metric, c)) for p in _parts(x)]
  finite, inside = map(np.concatenate, zip(*parts, strict=True))
  checks.finite(name, finite)
  if metric == 'hyperbolic':
    checks.inside_ball(name, inside, c)
  if not inside.all():
    raise UserError(
      f'`{name}` lies off the hyperboloid (x_0^2 = 1/c + |x|^2 at c = {c}) in '
      f'{checks.listed(~inside)}; put time first and pass the c it was trained '
      'with, or project it'
    )
  return x


def lift(
  queries, gallery, *, c: float = 0.0, metric: str | None = None
) -> tuple[np.ndarray, np.ndarray]:
  """Vectors whose inner products rank the gallery for every query.

  For a fixed query x the hyperbolic distance grows with
  |x - y|^2 / (1 - c |y|^2), which is an inner product in d + 2 dimensions:
  [x, |x|^2, 1] . w [-2y, 1, |y|^2] with w = 1 / (1 - c |y|^2). The hyperboloid
  is taken to the ball, its w from the time coordinate. With w = 1 the second
  dimension is the same for all y: the Euclidean order takes d + 1. Cosine
  similarity is the inner product of the normalised rows.

  The vectors are made in float64 and relative to the mean of gallery rows: that
  changes no order, and keeps float32 products apart where embeddings crowd far
  from the origin, as those of an untrained network do.

  Args:
    queries: `[n, d]`, inside the ball, or on the hyperboloid `[n, 1 + d]`, time
      first, of which only the space coordinates are read.
    gallery: `[m, d]`, likewise.
    c: 0, or c > 0 for the ball and the hyperboloid of curvature -c.
    metric: one of `METRICS`; None is hyperbolic where c > 0, else cosine.

  Returns:
    NumPy float32 `(q, g)` of d (cosine), d + 1 (Euclidean) or d + 2 columns.
    The larger `q @ g.T`, the nearer.

  Raises:
    UserError: an unknown metric, or one that does not go with c.
  """
  metric = resolve(metric, c)
  queries, gallery = np.asarray(queries), np.asarray(gallery)
  scale = _scale(gallery, metric, c)
  some = gallery[:: -(-len(gallery) // _SAMPLE)].astype(np.float64)
  centre = _flat(some, metric, scale)[0].mean(0)

  def as_query(x):
    return _as_query(_flat(x, metric, scale)[0], centre, metric)

  def as_item(y):
    y, w = _flat(y, metric, scale)
    return _as_item(y, w, centre, metric)

  return _map_parts(as_query, queries), _map_parts(as_item, gallery)


def _map_parts(function, x):
  """Rows `[n, D]` float32, function of rows `[n, d]` in float64."""
  part = lambda start: x[start : start + _ROWS].astype(np.float64)
  out = np.empty((len(x), function(part(0)[:1]).shape[1]), np.float32)

  def fill(start):
    out[start : start + _ROWS] = function(part(start))

  with futures.ThreadPoolExecutor() as pool:
    # `list` for the errors, which `map` keeps until they are asked for.
    list(pool.map(fill, range(0, len(x), _ROWS)))
  return out


def _parts(x) -> Iterator[np.ndarray]:
  """Consecutive rows in float64, a few at a time."""
  for start in range(0, len(x), _ROWS):
    yield x[start : start + _ROWS].astype(np.float64)


def _inside(x, metric, c):
  """Which rows `[n]` of `[n, d]` are points of the metric's space."""
  if metric == 'lorentz':
    time = np.sqrt(1 / c + square_norm(x[:, 1:])[:, 0])
    # Looser than the rounding of bfloat16.
    return np.abs(x[:, 0] - time) <= 1e-2 * time
  return c * square_norm(x)[:, 0] < 1 if c else np.full(len(x), True)


def _scale(gallery, metric, c):
  """What a row is multiplied by before anything else."""
  if metric == 'euclidean':
    largest = max(float(np.abs(b).max()) for b in _parts(gallery))
    return 1 / largest if largest > 0 else 1.0
  # In units of the ball's radius, so that no float32 square overflows.
  return math.sqrt(c)


def _flat(x, metric, scale):
  """Points `[n, d]` and their weights w `[n, 1]`, before centring."""
  if metric == 'cosine':
    return normalise(x), 1.0
  if metric == 'euclidean':
    return scale * x, 1.0
  if metric == 'hyperbolic':
    x = scale * x
    return x, 1 / (1 - square_norm(x))
  space = scale * x[:, 1:]
  # 1 + sqrt(c) x_0, which is 2w of the point of the ball.
  height = 1 + np.sqrt(1 + square_norm(space))
  return space / height, np.minimum(height / 2, _LARGEST)


def _as_query(x, centre, metric):
  if metric == 'cosine':
    return x
  x = x - centre
  ones = np.ones_like(x[:, :1])
  if metric == 'euclidean':
    return np.hstack([x, ones])
  return np.hstack([x, square_norm(x), ones])


def _as_item(y, w, centre, metric):
  y = y - centre
  if metric == 'cosine':
    return y
  if metric == 'euclidean':
    return np.hstack([2 * y, -square_norm(y)])
  return w * np.hstack([2 * y, -np.ones_like(w), -square_norm(y)])
