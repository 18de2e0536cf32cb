"""Metrics of retrieval and the points that they are defined for."""

from collections.abc import Iterator

import numpy as np

from hier_jax.errors import UserError
from hier_jax.evaluation import checks
from hier_jax.evaluation.distances import square_norm

METRICS = ('cosine', 'euclidean', 'hyperbolic', 'lorentz')
_OF_A_BALL = ('hyperbolic', 'lorentz')
# Rows worked on at a time: their float64 copies stay in a core's cache.
ROWS = 1 << 11


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


def described(metric: str | None, c: float) -> str:
  """The metric and the curvature, for people."""
  metric = resolve(metric, c)
  return f'{metric}, c = {c:g}' if c else metric


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
  found = [(np.isfinite(p).all(1), _inside(p, metric, c)) for p in parts(x)]
  finite, inside = map(np.concatenate, zip(*found, strict=True))
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


def parts(x) -> Iterator[np.ndarray]:
  """Consecutive rows in float64, a few at a time."""
  for start in range(0, len(x), ROWS):
    yield x[start : start + ROWS].astype(np.float64)


def _inside(x, metric, c):
  """Which rows `[n]` of `[n, d]` are points of the metric's space."""
  if metric == 'lorentz':
    time = np.sqrt(1 / c + square_norm(x[:, 1:])[:, 0])
    # Looser than the rounding of bfloat16.
    return np.abs(x[:, 0] - time) <= 1e-2 * time
  return c * square_norm(x)[:, 0] < 1 if c else np.full(len(x), True)
