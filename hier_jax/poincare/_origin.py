"""Between the tangent space at 0 and the ball: exp0, dist0, log0, project."""

from __future__ import annotations

# The annotations say what callers may pass. The formulas receive arrays instead
# (see `_arguments.op`), which mypy cannot know.
# mypy: disable-error-code="index, union-attr"
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hier_jax import numerics
from hier_jax.poincare import _analytic, _arguments, _rounding

# Is added to a length that is clipped.
_SLACK = 1e-5
# Share of the ball's radius that `project` keeps free.
_MARGIN = 1e-3


def clip_norm(
  u: Float[ArrayLike, '*batch d'], radius: float
) -> Float[Array, '*batch d']:
  """Shortens rows longer than `radius`: u min(1, r / (|u| + 1e-5)).

  Guo et al., "Clipped Hyperbolic Classifiers Are Super-Hyperbolic Classifiers"
  (CVPR 2022). The 1e-5 keeps a clipped row strictly inside the radius.

  Args:
    u: tangent vectors at 0, `[..., d]`.
    radius: the longest length allowed, a positive number.

  Returns:
    Tangent vectors `[..., d]`, the dtype of u.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> u = poincare.clip_norm(np.array([3.0, 4.0]), 2.5)
    >>> print(np.asarray(u).round(2))
    [1.5 2. ]
  """
  numerics.check_positive(radius=radius)
  u = jnp.asarray(u)
  dtype = _arguments.check_points({'u': u})
  return _rounding.shorten(numerics.widened(u), radius, _SLACK).astype(dtype)


# Radii of the ball at which tanh is 1 to the last bit of float64.
_SATURATED = 32.0


def saturated(u, c):
  """Tangent vectors no longer than those whose `exp0` is on the boundary.

  They map to the same point with the same Jacobian, and their squares are
  finite.
  """
  length = _SATURATED * lax.stop_gradient(_rounding.radius(c))
  return _rounding.shorten(u, length)


@_arguments.op(vectors=('u',))
def exp0(
  u: Float[ArrayLike, '*#batch d'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch d']:
  """Exponential map at 0: tanh(sqrt(c) |u|) u / (sqrt(c) |u|).

  Ganea, Becigneul and Hofmann (2018), lemma 2. u at c = 0.

  Args:
    u: tangent vectors at 0, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the result is u.

  Returns:
    Points `[..., d]` at distance 2|u| from 0; for sqrt(c) |u| above about 9
    they round to the boundary in float32 (see `project`).

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x = poincare.exp0(jnp.array([0.3, 0.4]), c=1.0)
    >>> print(f'{float(poincare.dist0(x, c=1.0)):.3f}')  # twice the length 0.5
    1.000
  """
  u = saturated(u, c)
  return _analytic.times_tanhc(u, _rounding.curved_sq(u, c))


@_arguments.op('x')
def dist0(
  x: Float[ArrayLike, '*#batch d'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch']:
  """Distance from 0: (2 / sqrt(c)) artanh(sqrt(c) |x|).

  Args:
    x: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the distance is
      2|x|.

  Returns:
    Distances `[...]`. The gradient at x = 0 is 0.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> d = poincare.dist0(jnp.array([0.6, 0.0]), c=1.0)
    >>> print(f'{float(d):.3f}')  # log(4)
    1.386
  """
  gap, error = _rounding.gap_and_error(x, c)
  return _analytic.length(x, gap, c, error)


@_arguments.op('x')
def log0(
  x: Float[ArrayLike, '*#batch d'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch d']:
  """Logarithmic map at 0, inverse of `exp0`: artanh(r) x / r, r = sqrt(c)|x|.

  Args:
    x: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the result is x.

  Returns:
    Tangent vectors at 0, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> u = poincare.log0(np.array([0.6, 0.0]), c=1.0)
    >>> print(np.asarray(u).round(2))  # log(2)
    [0.69 0.  ]
    >>> print(np.asarray(poincare.exp0(u, c=1.0)).round(2))
    [0.6 0. ]
  """
  gap, error = (a[..., None] for a in _rounding.gap_and_error(x, c))
  s = _rounding.curved_sq(x, c)
  return _analytic.times_artanhc(x, s, gap, error)


@_arguments.op(vectors=('x',))
def _project(x, *, c, margin):
  return _rounding.shorten(x, (1 - margin) * _rounding.radius(c))


def project(
  x: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
  margin: float = _MARGIN,
) -> Float[Array, '*#batch d']:
  """Moves points outside the radius (1 - margin) / sqrt(c) radially onto it.

  Args:
    x: points `[..., d]`, inside or outside the ball.
    c: curvature, a number from 0 up, or an array `[...]`.
    margin: share of the radius that is kept free. It is raised to at least the
      machine epsilon of the dtype (bfloat16: 7.8e-3), so that rounding cannot
      undo the projection.

  Returns:
    Points of the ball, `[..., d]`.

  Raises:
    ValueError: for a margin outside [0, 1).

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x = poincare.project(jnp.array([3.0, 4.0]), c=1.0)
    >>> print(f'{float(jnp.linalg.norm(x)):.3f}')
    0.999
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
  gap = 1 - _rounding.curved_sq(x, c)
  return g * (gap * gap / 4), jnp.zeros_like(c)


_riemannian_gradient.defvjp(_riemannian_gradient_fwd, _riemannian_gradient_bwd)


@_arguments.op(vectors=('x',))
def riemannian_gradient(
  x: Float[ArrayLike, '*#batch d'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch d']:
  """The identity, whose backward pass multiplies by (1 - c |x|^2)^2 / 4.

  The factor is the inverse of the metric: whatever computed x receives the
  Riemannian gradient. No gradient reaches the curvature through this function.

  Args:
    x: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`.

  Returns:
    The points x, unchanged.

  Example:
    >>> import jax
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> loss = lambda x: poincare.riemannian_gradient(x, c=1.0).sum()
    >>> x = np.array([0.4, 0.2])
    >>> print(np.asarray(jax.grad(loss)(x)).round(2))  # (1 - 0.2)^2 / 4
    [0.16 0.16]
  """
  return _riemannian_gradient(x, c)


# The clip radius of HIER's embeddings and proxies (CVPR 2023, section 4.1).
CLIP_RADIUS = 2.3


def _radial_steps(size, power, c, clip_radius):
  """What makes y `[..., d]` of length `size` the point y a - (y a) b.

  Args:
    size: `[..., 1]`, in a unit of length that is `power`.
    power: `[..., 1]`.
    c: curvature `[..., 1]`.
    clip_radius: number, or None.

  Returns:
    a, b and the derivative by `size` of the point's length, but for its factor
    1 - c|point|^2; all `[..., 1]`.
  """
  factor, stretch, norm = power, power, power * size
  if clip_radius is not None:
    slack = _SLACK * (1 / power)
    over = size + slack
    longer, short = power * over > clip_radius, clip_radius / over
    factor = jnp.where(longer, short, factor)
    shrunk = short * short * slack * (1 / clip_radius)
    stretch = jnp.where(longer, shrunk, power)
    norm = factor * size
  room = _rounding.radius(c[..., 0])
  limit = lax.stop_gradient(_SATURATED * room)
  far = norm > limit
  safe = jnp.where(size > 0, size, 1)
  factor = jnp.where(far, limit / safe, factor)
  norm = jnp.minimum(jnp.where(far, limit, norm), jnp.finfo(size.dtype).max)
  near, part, rest = _analytic.tanhc_steps(c * norm * norm)
  norm = jnp.where(near, norm - norm * part, norm * rest)
  room = (1 - _MARGIN) * room
  outside = norm > room
  room = jnp.where(outside, room, 1)
  factor = jnp.where(near, factor, factor * rest)
  return (
    jnp.where(outside, room / safe, factor),
    jnp.where(outside | ~near, 0, part),
    jnp.where(outside | far, 0, stretch),
  )


def _radial_slopes(size, power, c, clip_radius):
  """`_radial_steps`, and what their backward pass multiplies by.

  The derivative of tanh is 1 - tanh^2, that of the metric.

  Returns:
    a and b; the derivative of the point by u across u; and what that along u
    has more, as a factor of y <y, .>. Both of these are divided by the metric.
  """
  a, b, stretch = _radial_steps(size, power, c, clip_radius)
  across = a - a * b
  gap = 1 - c * (across * size) ** 2
  inverse = gap * gap / 4 * (1 / power)
  sq = jnp.where(size > 0, size * size, 1)
  return a, b, across * inverse, (stretch * gap - across) / sq * inverse


def _at_once(columns):
  """Columns `[..., 1]`, made in one kernel.

  XLA would make one of each quotient, and on a CPU the number of kernels is
  most of what a program costs to compile.
  """
  columns = lax.optimization_barrier(jnp.concatenate(columns, -1))
  return jnp.split(columns, columns.shape[-1], -1)


@jax.custom_vjp
def _to_ball(u, c, clip_radius):
  return _to_ball_fwd(u, c, clip_radius)[0]


def _to_ball_fwd(u, c, clip_radius):
  y, power = numerics.scaled(u)
  size = numerics.sqrt(numerics.dot(y, y))
  a, b, across, along = _at_once(_radial_slopes(size, power, c, clip_radius))
  tangent = y * a
  residuals = y, size, power, c, clip_radius, across, along
  return tangent - tangent * b, residuals


def _to_ball_bwd(residuals, g):
  y, size, power, c, clip_radius, across, along = residuals
  radial = numerics.dot(g, y)

  def factor(c, clip_radius):
    a, b, _ = _radial_steps(size, power, c, clip_radius)
    gap = lax.stop_gradient(1 - c * ((a - a * b) * size) ** 2)
    return (a - a * b) * (gap * gap / 4)

  _, vjp = jax.vjp(factor, c, clip_radius)
  return g * across + y * (radial * along), *vjp(radial)


_to_ball.defvjp(_to_ball_fwd, _to_ball_bwd)


@_arguments.op(vectors=('u',), positive=('clip_radius',))
def to_ball(
  u: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
  clip_radius: Real[ArrayLike, ''] | None = None,
) -> Float[Array, '*#batch d']:
  """Tangent vectors at 0 to trainable points of the ball, as HIER maps them.

  Applies a clip, `exp0`, `project` and `riemannian_gradient` (Kim, Jeong and
  Kwak, CVPR 2023, section 3.1). HIER maps embeddings and hierarchical proxies
  this way.

  Args:
    u: tangent vectors at 0, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`.
    clip_radius: length to which longer tangent vectors are clipped, or None for
      no clipping.

  Returns:
    Points of the ball, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> u = np.array([[0.3, 0.4], [30.0, 40.0]])
    >>> x = poincare.to_ball(u, c=0.1, clip_radius=poincare.CLIP_RADIUS)
    >>> print(np.asarray(poincare.dist0(x, c=0.1)).round(2))  # at most 2 * 2.3
    [1.  4.6]
  """
  # All of it is radial: the norm is taken once, and u multiplied at the end.
  shape = u.shape[:-1]
  c = jnp.broadcast_to(c, shape)[..., None]
  return _to_ball(u, c, clip_radius)
