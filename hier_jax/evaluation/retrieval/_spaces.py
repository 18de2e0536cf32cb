"""Distances of retrieval and the points that they are defined for."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation._distances import square_norm

DISTANCES = ('cosine', 'euclidean', 'hyperbolic', 'lorentz')
# Rows worked on at a time: their float64 copies stay in a core's cache.
ROWS = 1 << 11
# Of 2, as float64.
_MOST_EXPONENT = 1023


def resolve(
  distance: str | None, c: float | None, known: Sequence[str] = DISTANCES
) -> tuple[str, float | None]:
  """The distance and the curvature meant.

  Args:
    distance: None for the distance that c says: 'cosine' for None, 'euclidean'
      for 0, 'hyperbolic' for c > 0.
    c: the curvature; None goes with 'euclidean' too and then means 0.
    known: the distances to choose from.

  Returns:
    One of `known`, and c: None for 'cosine', 0.0 for 'euclidean', else > 0.

  Raises:
    UserError: an unknown distance, one that does not go with c, or a c that is
      not a finite number of 0 or more.
  """
  c = _checks.curvature('c', c)
  if distance is None:
    distance = 'cosine' if c is None else 'hyperbolic' if c else 'euclidean'
  if distance not in known:
    raise UserError(
      f'`distance` is {distance!r}; expected one of {list(known)}'
    )
  if distance == 'euclidean' and c is None:
    c = 0.0
  fits = {'cosine': c is None, 'euclidean': c == 0.0}.get(distance, bool(c))
  if not fits:
    raise UserError(
      f'`distance` is {distance!r} at c = {c}; expected c = None for cosine, 0 '
      'for euclidean and c > 0 for the ball: leave `distance` out, or pass the '
      'c of the model'
    )
  return distance, c


def described(distance: str | None, c: float | None) -> str:
  """The distance and the curvature, for people: 'hyperbolic, c = 0.1'."""
  distance, c = resolve(distance, c)
  return distance if c is None else f'{distance}, c = {c:g}'


def points(name: str, x, distance: str, c: float | None) -> np.ndarray:
  """Finite rows `[n, d]` that the distance is defined for, in their own dtype.

  Args:
    name: what the caller knows them by.
    x: any floating dtype.
    distance: one of `DISTANCES`.
    c: curvature, as `resolve` returns it.

  Raises:
    UserError: another shape or dtype, NaN or Inf, rows outside the ball or off
      the hyperboloid.
  """
  x = _checks.matrix(name, x)
  found = [(np.isfinite(p).all(1), _inside(p, distance, c)) for p in parts(x)]
  finite, inside = map(np.concatenate, zip(*found, strict=True))
  _checks.finite(name, finite)
  if c and distance == 'hyperbolic':
    _checks.inside_ball(name, inside, c)
  if not inside.all():
    raise UserError(
      f'`{name}` lies off the hyperboloid (x_0^2 = 1/c + |x|^2 at c = {c}) in '
      f'{_checks.listed(~inside)}; put time first and pass the c of its '
      'model, or project it'
    )
  return x


def to_unit(x: np.ndarray) -> float:
  """The power of 2 that brings the largest entry of `[n, d]` next to 1.

  To multiply by it rounds nothing. It is finite for the smallest numbers too.
  """
  largest = max(float(np.abs(part).max()) for part in parts(x))
  if not largest:
    return 1.0
  return 2.0 ** min(_MOST_EXPONENT, -round(math.log2(largest)))


def parts(x: np.ndarray) -> Iterator[np.ndarray]:
  """Consecutive rows in float64, a few at a time."""
  for start in range(0, len(x), ROWS):
    yield x[start : start + ROWS].astype(np.float64)


def _inside(x: np.ndarray, distance: str, c: float | None) -> np.ndarray:
  """Which rows `[n]` of `[n, d]` are points of the distance's space."""
  if distance == 'lorentz':
    assert c is not None  # By `resolve`.
    time = np.sqrt(1 / c + square_norm(x[:, 1:])[:, 0])
    # Looser than the rounding of bfloat16.
    return np.abs(x[:, 0] - time) <= 1e-2 * time
  return c * square_norm(x)[:, 0] < 1 if c else np.full(len(x), True)
