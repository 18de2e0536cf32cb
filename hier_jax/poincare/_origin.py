"""Between the tangent space at 0 and the ball: exp0, dist0, log0, project."""

import jax
import jax.numpy as jnp
from jax import lax

from hier_jax import numerics
from hier_jax.poincare import _analytic, _arguments

# Is added to a length that is clipped.
_SLACK = 1e-5
# Share of the ball's radius that `project` keeps free.
_MARGIN = 1e-3


def clip_norm(u, radius):
  """Shortens rows longer than `radius`: u min(1, r / (|u| + 1e-5)).

  Guo et al., "Clipped Hyperbolic Classifiers Are Super-Hyperbolic Classifiers"
  (CVPR 2022). The 1e-5 keeps a clipped row strictly inside the radius.

  Args:
    u: `[..., d]` tangent vectors at 0.
    radius: positive float.

  Returns:
    `[..., d]`, the dtype of u.
  """
  u = jnp.asarray(u)
  dtype = _arguments.check_points({'u': u})
  return _analytic.shorten(numerics.widened(u), radius, _SLACK).astype(dtype)


# Radii of the ball at which tanh is 1 to the last bit of float64.
_SATURATED = 32.0


def saturated(u, c):
  """Tangent vectors no longer than those whose `exp0` is on the boundary.

  They lead to the same point, by the same Jacobian, and have finite squares.
  """
  length = _SATURATED * lax.stop_gradient(_analytic.radius(c))
  return _analytic.shorten(u, length)


@_arguments.op(vectors=('u',))
def exp0(u, *, c):
  """Exponential map at 0: tanh(sqrt(c) |u|) u / (sqrt(c) |u|).

  Ganea, Becigneul and Hofmann (2018), lemma 2. u at c = 0.

  Args:
    u: `[..., d]` tangent vectors at 0.
    c: curvature.

  Returns:
    Points `[..., d]` at distance 2|u| from 0; for sqrt(c) |u| above about 9
    they round to the boundary in float32 (see `project`).
  """
  u = saturated(u, c)
  return _analytic.times_tanhc(u, _analytic.curved_sq(u, c))


@_arguments.op('x')
def dist0(x, *, c):
  """Distance from 0: (2 / sqrt(c)) artanh(sqrt(c) |x|).

  Args:
    x: points `[..., d]`.
    c: curvature; 2|x| at 0.

  Returns:
    `[...]`. Its gradient at x = 0 is 0.
  """
  gap, error = _analytic.gap_and_error(x, c)
  return _analytic.length(x, gap, c, error)


@_arguments.op('x')
def log0(x, *, c):
  """Logarithmic map at 0, inverse of `exp0`: artanh(r) x / r, r = sqrt(c)|x|.

  Args:
    x: points `[..., d]`.
    c: curvature.

  Returns:
    Tangent vectors at 0 `[..., d]`.
  """
  gap, error = (a[..., None] for a in _analytic.gap_and_error(x, c))
  s = _analytic.curved_sq(x, c)
  return _analytic.times_artanhc(x, s, gap, error)


@_arguments.op(vectors=('x',))
def _project(x, *, c, margin):
  return _analytic.shorten(x, (1 - margin) * _analytic.radius(c))


def project(x, *, c, margin=_MARGIN):
  """Moves points outside the radius (1 - margin) / sqrt(c) radially onto it.

  Args:
    x: `[..., d]`.
    c: curvature.
    margin: share of the radius that is kept free. At least the machine epsilon
      of the dtype is (bfloat16: 7.8e-3), lest rounding undo the projection.

  Returns:
    Points `[..., d]`.

  Raises:
    ValueError: for a margin outside [0, 1).
  """
  if not 0 <= margin < 1:
    raise ValueError(f'margin must be in [0, 1), got {margin}')
  x = jnp.asarray(x)
  eps = float(jnp.finfo(_arguments.check_points({'x': x})).eps)
  return _project(x, c=c, margin=max(margin, eps))


@jax.custom_vjp
def _riemannian_gradient(x, c):
  del c
  return x


def _riemannian_gradient_fwd(x, c):
  return x, (x, c)


def _riemannian_gradient_bwd(residuals, g):
  x, c = residuals
  gap = 1 - _analytic.curved_sq(x, c)
  return g * (gap * gap / 4), jnp.zeros_like(c)


_riemannian_gradient.defvjp(_riemannian_gradient_fwd, _riemannian_gradient_bwd)


@_arguments.op(vectors=('x',))
def riemannian_gradient(x, *, c):
  """The identity, whose backward pass multiplies by (1 - c |x|^2)^2 / 4.

  That is the inverse of the metric: what lies before it receives the
  Riemannian gradient. The curvature receives none through it.

  Args:
    x: points `[..., d]`.
    c: curvature.

  Returns:
    x.
  """
  return _riemannian_gradient(x, c)


# The clip radius of HIER's embeddings and proxies (CVPR 2023, section 4.1).
CLIP_RADIUS = 2.3


@_arguments.op(vectors=('u',))
def to_ball(u, *, c, clip_radius=None):
  """Tangent vectors at 0 to trainable points of the ball, as HIER maps them.

  Clip, `exp0`, `project`, `riemannian_gradient` (Kim, Jeong and Kwak, CVPR
  2023, section 3.1). Embeddings and hierarchical proxies both go through it.

  Args:
    u: `[..., d]`.
    c: curvature.
    clip_radius: longest tangent vector, or None for no clip.

  Returns:
    Points `[..., d]`.
  """
  # All of it is radial: the norm is taken once, and u multiplied at the end.
  y, power = numerics.scaled(u)
  size = numerics.sqrt(numerics.dot(y, y))
  factor, norm = power, power * size
  if clip_radius is not None:
    over = size + _SLACK / power
    factor = jnp.where(power * over > clip_radius, clip_radius / over, power)
    norm = factor * size
  room = _analytic.radius(c)
  limit = lax.stop_gradient(_SATURATED * room)
  far = norm > limit
  factor = jnp.where(far, limit / jnp.where(far, size, 1), factor)
  norm = jnp.minimum(jnp.where(far, limit, norm), jnp.finfo(u.dtype).max)
  s = c[..., None] * norm * norm
  x, norm = (_analytic.times_tanhc(v, s) for v in (y * factor, norm))
  room = (1 - _MARGIN) * room
  outside = norm > room
  room, norm = jnp.where(outside, room, 1), jnp.where(outside, norm, 1)
  return riemannian_gradient(jnp.where(outside, x * (room / norm), x), c=c)
