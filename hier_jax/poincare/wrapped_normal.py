"""The wrapped normal distribution of the ball.

A normal vector of the tangent space at 0, transported to the mean and mapped
into the ball by the exponential map (Nagano et al., "A Wrapped Normal
Distribution on Hyperbolic Space", ICML 2019; in the ball: Mathieu et al.,
"Continuous Hierarchical Representations with Poincare Variational
Auto-Encoders", NeurIPS 2019). Scales are hyperbolic lengths.
"""

import jax
import jax.numpy as jnp

from hier_jax.poincare import _analytic, _arguments
from hier_jax.poincare._riemannian import expmap, logmap, transport0


def sample(key, loc, scale=1.0, *, c, shape=()):
  """Draws points; differentiable in loc, scale and c.

  Args:
    key: PRNG key.
    loc: the mean, points `[..., d]`.
    scale: standard deviations, broadcast against loc: a number, `[d]` or
      `[..., d]`.
    c: curvature.
    shape: dimensions of independent draws, put before those of loc.

  Returns:
    Points `[*shape, ..., d]`, the dtype of loc.

  Raises:
    ValueError: for a scale that is a number and not positive.
  """
  if isinstance(scale, (int, float)) and not scale > 0:
    raise ValueError(f'scale must be positive, got {scale}')
  loc = jnp.asarray(loc)
  wide = jnp.promote_types(_arguments.check_points({'loc': loc}), jnp.float32)
  full = (*shape, *loc.shape)
  scale = jnp.broadcast_to(jnp.asarray(scale, wide), loc.shape)
  noise = jax.random.normal(key, full, wide) * jnp.broadcast_to(scale, full)
  return _move(jnp.broadcast_to(loc, full), noise, c=c)


@_arguments.op('loc')
def _move(loc, noise, *, c):
  return expmap(loc, transport0(loc, noise / 2, c=c), c=c)


@_arguments.op('x', 'loc')
def log_prob(x, loc, scale=1.0, *, c):
  """Log density by the ball's Riemannian volume.

  log N(v; 0, scale^2) - (d - 1) log(sinh(h) / h), v = lambda log_loc(x),
  h = sqrt(c)|v|.

  Args:
    x: points `[..., d]`.
    loc: the mean, points `[..., d]`.
    scale: standard deviations, broadcast against loc.
    c: curvature.

  Returns:
    `[...]`.
  """
  scale = jnp.broadcast_to(jnp.asarray(scale, x.dtype), loc.shape)
  v = 2 * logmap(loc, x, c=c) / _analytic.gap(loc, c)
  normal = jnp.sum(jax.scipy.stats.norm.logpdf(v, scale=scale), -1)
  stretch = _analytic.log_sinhc(_analytic.curved_sq(v, c)[..., 0])
  return normal - (x.shape[-1] - 1) * stretch
