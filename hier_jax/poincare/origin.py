"""Between the tangent space at 0 and the ball: exp0, dist0, log0, project."""

import jax
import jax.numpy as jnp

from hier_jax.poincare import arguments, numerics


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
  dtype = arguments.check_points({'u': u})
  wide = u.astype(jnp.promote_types(dtype, jnp.float32))
  norm = numerics.sqrt(numerics.dot(wide, wide))
  return (wide * jnp.minimum(1.0, radius / (norm + 1e-5))).astype(dtype)


@arguments.op('u')
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
  return numerics.times_tanhc(u, c[..., None] * numerics.dot(u, u))


@arguments.op('x')
def dist0(x, *, c):
  """Distance from 0: (2 / sqrt(c)) artanh(sqrt(c) |x|).

  Args:
    x: points `[..., d]`.
    c: curvature; 2|x| at 0.

  Returns:
    `[...]`. Its gradient at x = 0 is 0.
  """
  gap, error = numerics.gap_and_error(x, c)
  return numerics.arc(jnp.sum(x * x, -1) / gap, c, error)


@arguments.op('x')
def log0(x, *, c):
  """Logarithmic map at 0, inverse of `exp0`: artanh(r) x / r, r = sqrt(c)|x|.

  Args:
    x: points `[..., d]`.
    c: curvature.

  Returns:
    Tangent vectors at 0 `[..., d]`.
  """
  gap, error = (a[..., None] for a in numerics.gap_and_error(x, c))
  s = c[..., None] * numerics.dot(x, x)
  return numerics.times_artanhc(x, s, gap, error)


@arguments.op('x', inside=False)
def _project(x, *, c, margin):
  r = numerics.sqrt(c[..., None] * numerics.dot(x, x))
  outside = r > 1 - margin
  return x * jnp.where(outside, (1 - margin) / jnp.where(outside, r, 1), 1)


def project(x, *, c, margin=1e-3):
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
  eps = float(jnp.finfo(arguments.check_points({'x': x})).eps)
  return _project(x, c=c, margin=max(margin, eps))


@jax.custom_vjp
def _riemannian_gradient(x, c):
  del c
  return x


def _riemannian_gradient_fwd(x, c):
  return x, (x, c)


def _riemannian_gradient_bwd(residuals, g):
  x, c = residuals
  gap = 1 - c[..., None] * numerics.dot(x, x)
  return g * (gap * gap / 4), jnp.zeros_like(c)


_riemannian_gradient.defvjp(_riemannian_gradient_fwd, _riemannian_gradient_bwd)


@arguments.op('x')
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


@arguments.op('u')
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
  if clip_radius is not None:
    u = clip_norm(u, clip_radius)
  return riemannian_gradient(project(exp0(u, c=c), c=c), c=c)
