"""The wrapped normal distribution of the ball.

A normal vector of the tangent space at 0 is transported to the mean and mapped
into the ball by the exponential map (Nagano et al., "A Wrapped Normal
Distribution on Hyperbolic Space", ICML 2019; in the ball: Mathieu et al.,
"Continuous Hierarchical Representations with Poincare Variational
Auto-Encoders", NeurIPS 2019). Scales are hyperbolic lengths.
"""

from __future__ import annotations

# The annotations say what callers may pass. The formulas receive arrays instead
# (see `_arguments.op`), which mypy cannot know.
# mypy: disable-error-code="union-attr"
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, PRNGKeyArray, Real

from hier_jax import numerics
from hier_jax.poincare import _analytic, _arguments, _rounding
from hier_jax.poincare._riemannian import expmap, logmap, transport0


def sample(
  key: PRNGKeyArray,
  loc: Float[ArrayLike, '*#batch d'],
  scale: Real[ArrayLike, '*scale'] = 1.0,
  *,
  c: Real[ArrayLike, '*#batch'],
  shape: tuple[int, ...] = (),
) -> Float[Array, '... d']:
  """Draws points; differentiable in loc, scale and c.

  Args:
    key: PRNG key.
    loc: means of the distributions, points of the ball, `[..., d]`.
    scale: standard deviations, broadcast against loc: a number, `[d]` or
      `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`.
    shape: shape of the independent draws; its dimensions come before the
      dimensions of loc.

  Returns:
    Points of the ball, `[*shape, ..., d]`, the dtype of loc.

  Raises:
    ValueError: for a scale whose value is known and not positive and finite.

  Example:
    >>> import jax
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> key, loc = jax.random.key(0), jnp.array([0.5, 0.0])
    >>> x = poincare.wrapped_normal.sample(key, loc, 0.1, c=1.0, shape=(100,))
    >>> print(x.shape, jnp.all(poincare.dist(x, loc, c=1.0) < 1.0))
    (100, 2) True
  """
  key = numerics.as_key(key)
  numerics.check_positive(scale=scale)
  loc = jnp.asarray(loc)
  wide = jnp.promote_types(_arguments.check_points({'loc': loc}), jnp.float32)
  full = (*shape, *loc.shape)
  scale = jnp.broadcast_to(jnp.asarray(scale, wide), loc.shape)
  noise = jax.random.normal(key, full, wide) * jnp.broadcast_to(scale, full)
  return _move(jnp.broadcast_to(loc, full), noise, c=c)


@_arguments.op('loc')
def _move(loc, noise, *, c):
  return expmap(loc, transport0(loc, noise / 2, c=c), c=c)


@_arguments.op('x', 'loc', positive=('scale',))
def log_prob(
  x: Float[ArrayLike, '*#batch d'],
  loc: Float[ArrayLike, '*#batch d'],
  scale: Real[ArrayLike, '*scale'] = 1.0,
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch']:
  """Log density by the ball's Riemannian volume.

  log N(v; 0, scale^2) - (d - 1) log(sinh(h) / h), v = lambda log_loc(x),
  h = sqrt(c)|v|.

  Args:
    x: points of the ball, `[..., d]`.
    loc: means of the distributions, points of the ball, `[..., d]`.
    scale: standard deviations, broadcast against loc: a number, `[d]` or
      `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`.

  Returns:
    Log densities `[...]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x = jnp.array([0.5, 0.0])
    >>> log_density = poincare.wrapped_normal.log_prob(x, loc=x, c=1.0)
    >>> print(f'{float(log_density):.3f}')  # -log(2 pi)
    -1.838
  """
  scale = jnp.broadcast_to(jnp.asarray(scale, x.dtype), loc.shape)
  v = 2 * logmap(loc, x, c=c) / _rounding.gap(loc, c)
  normal = jnp.sum(jax.scipy.stats.norm.logpdf(v, scale=scale), -1)
  stretch = _analytic.log_sinhc(_rounding.curved_sq(v, c)[..., 0])
  return normal - (x.shape[-1] - 1) * stretch
