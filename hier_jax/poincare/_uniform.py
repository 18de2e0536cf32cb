"""The uniform distribution of a geodesic ball."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Float, PRNGKeyArray, Real

from hier_jax import numerics
from hier_jax.poincare import _analytic, _arguments
from hier_jax.poincare._origin import exp0

# Halvings of the bracket of a radius, beyond those for the bits of a float.
_HALVINGS = 17


def _log_volume(r, c, dim):
  """log(sinh(h)^d / cosh(h)) of h = sqrt(c) r, but for a constant in r."""
  s = c * r * r
  log = dim * (jnp.log(r) + _analytic.log_sinhc(s))
  return log if dim == 1 else log - _analytic.log_cosh(s)


def _propose(key, radius, c, dim, shape):
  """Radii whose distribution function is exp(`_log_volume`)."""
  dtype = radius.dtype
  drawn = jax.random.exponential(key, shape, dtype)
  goal = _log_volume(radius, c, dim) - drawn

  def halve(_, bracket):
    low, high = bracket
    middle = (low + high) / 2
    below = _log_volume(middle, c, dim) < goal
    return jnp.where(below, middle, low), jnp.where(below, high, middle)

  bracket = jnp.zeros(shape, dtype), jnp.broadcast_to(radius, shape)
  halvings = jnp.finfo(dtype).nmant + _HALVINGS
  return sum(lax.fori_loop(0, halvings, halve, bracket)) / 2


def _radii(key, radius, c, dim, shape):
  """Radii of density proportional to sinh(sqrt(c) r)^(d - 1) up to `radius`.

  Rejection: a proposal's density exceeds that by the factor d - tanh(h)^2, so
  that at least the share 1 - 1/d is kept. In one dimension the two are equal.
  """
  if dim == 1:
    return radius * jax.random.uniform(key, shape, radius.dtype)

  def draw(carry):
    turn, kept, r = carry
    key_r, key_u = jax.random.split(jax.random.fold_in(key, turn))
    new = _propose(key_r, radius, c, dim, shape)
    s = c * new * new
    tanh_sq = s * _analytic.times_tanhc(1, s) ** 2
    height = jax.random.uniform(key_u, shape, radius.dtype)
    accept = height * (dim - tanh_sq) < dim - 1
    return turn + 1, kept | accept, jnp.where(kept, r, new)

  start = jnp.int32(0), jnp.zeros(shape, bool), jnp.zeros(shape, radius.dtype)
  return lax.while_loop(lambda carry: ~jnp.all(carry[1]), draw, start)[2]


def random_uniform(
  key: PRNGKeyArray,
  shape: tuple[int, ...],
  *,
  c: Real[ArrayLike, ''],
  radius: Real[ArrayLike, ''],
  dtype: DTypeLike = jnp.float32,
) -> Float[Array, '*batch d']:
  """Points uniform by the ball's volume, no farther than `radius` from 0.

  Args:
    key: PRNG key.
    shape: shape `(..., d)` of the result.
    c: curvature, a number from 0 up, or a scalar array; at 0 the ball is
      Euclidean.
    radius: the largest distance from 0, a positive number or scalar array.
    dtype: floating-point dtype of the result.

  Returns:
    Points of the ball, `[..., d]`; no derivative flows to c or radius.

  Raises:
    ValueError: for a radius whose value is known and not positive and finite.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> key = jax.random.key(0)
    >>> x = poincare.random_uniform(key, (100, 2), c=1.0, radius=2.0)
    >>> print(x.shape, jnp.all(poincare.dist0(x, c=1.0) < 2.001))
    (100, 2) True
  """
  key = numerics.as_key(key)
  numerics.check_positive(radius=radius)
  wide = jnp.promote_types(dtype, jnp.float32)
  c = lax.stop_gradient(_arguments.curvature(c, wide))
  radius = lax.stop_gradient(jnp.asarray(radius, wide))
  key_radius, key_direction = jax.random.split(key)
  r = _radii(key_radius, radius, c, shape[-1], shape[:-1])
  direction = numerics.unit(jax.random.normal(key_direction, shape, wide))
  return exp0(direction * (r[..., None] / 2), c=c).astype(dtype)
