"""Metrics of retrieval and the points that they are defined for."""

from collections.abc import Iterator, Sequence

import numpy as np

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation._distances import square_norm

METRICS = ('cosine', 'euclidean', 'hyperbolic', 'lorentz')
# Rows worked on at a time: their float64 copies stay in a core's cache.
ROWS = 1 << 11


def resolve(
  metric: str | None, c: float | None, known: Sequence[str] = METRICS
) -> tuple[str, float | None]:
  """The metric and the curvature meant.

  Args:
    metric: None for the metric that c says: 'cosine' for None, 'euclidean' for
      0, 'hyperbolic' for c > 0.
    c: the curvature; None goes with 'euclidean' too and then means 0.
    known: the metrics to choose from.

  Returns:
    One of `known`, and c: None for 'cosine', 0.0 for 'euclidean', else > 0.

  Raises:
    UserError: an unknown metric, one that does not go with c, or a c that is
      not a finite number of 0 or more.
  """
  c = _checks.curvature('c', c)
  if metric is None:
    metric = 'cosine' if c is None else 'hyperbolic' if c else 'euclidean'
  if metric not in known:
    raise UserError(f'`metric` is {metric!r}; expected one of {list(known)}')
  if metric == 'euclidean' and c is None:
    c = 0.0
  fits = {'cosine': c is None, 'euclidean': c == 0.0}.get(metric, bool(c))
  if not fits:
    raise UserError(
      f'`metric` is {metric!r} at c = {c}; expected c = None for cosine, 0 for '
      'euclidean and c > 0 for the ball: leave `metric` out, or pass the c of '
      'the model'
    )
  return metric, c


def described(metric: str | None, c: float | None) -> str:
  """The metric and the curvature, for people: 'hyperbolic, c = 0.1'."""
  metric, c = resolve(metric, c)
  return metric if c is None else f'{metric}, c = {c:g}'


def points(name: str, x, metric: str, c: float | None) -> np.ndarray:
  """Finite rows `[n, d]` that the metric is defined for, in their own dtype.

  Args:
    name: what the caller knows them by.
    x: any floating dtype.
    metric: one of `METRICS`.
    c: curvature, as `resolve` returns it.

  Raises:
    UserError: another shape or dtype, NaN or Inf, rows outside the ball or off
      the hyperboloid.
  """
  x = _checks.matrix(name, x)
  found = [(np.isfinite(p).all(1), _inside(p, metric, c)) for p in parts(x)]
  finite, inside = map(np.concatenate, zip(*found, strict=True))
  _checks.finite(name, finite)
  if c and metric == 'hyperbolic':
    _checks.inside_ball(name, inside, c)
  if not inside.all():
    raise UserError(
      f'`{name}` lies off the hyperboloid (x_0^2 = 1/c + |x|^2 at c = {c}) in '
      f'{_checks.listed(~inside)}; put time first and pass the c of its '
      'model, or project it'
    )
  return x


def parts(x: np.ndarray) -> Iterator[np.ndarray]:
  """Consecutive rows in float64, a few at a time."""
  for start in range(0, len(x), ROWS):
    yield x[start : start + ROWS].astype(np.float64)


def _inside(x: np.ndarray, metric: str, c: float | None) -> np.ndarray:
  """Which rows `[n]` of `[n, d]` are points of the metric's space."""
  if metric == 'lorentz':
    assert c is not None  # By `resolve`.
    time = np.sqrt(1 / c + square_norm(x[:, 1:])[:, 0])
    # Looser than the rounding of bfloat16.
    return np.abs(x[:, 0] - time) <= 1e-2 * time
  return c * square_norm(x)[:, 0] < 1 if c else np.full(len(x), True)
