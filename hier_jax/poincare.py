"""The Poincare ball: pure functions on plain arrays.

The ball of curvature -c, c > 0, is {x in R^d : c |x|^2 < 1} with the metric
(2 / (1 - c |x|^2))^2 <., .>. Every function takes points as `[..., d]` arrays
and the curvature as the keyword `c`, a Python number or a traced scalar. The
result has the dtype of the inputs; float16 and bfloat16 are computed in float32
and rounded once at the end.

Gradients are finite everywhere: at x = y, at 0, on and outside the boundary.
The two traps of the ball in floating point are met in two places only:
`_one_minus_sqnorm` (cancellation near the boundary) and the distances
(the square root at x = y).

Formulas follow Ganea, Becigneul and Hofmann, "Hyperbolic Neural Networks"
(NeurIPS 2018), and Ungar's gyrovector spaces.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax import lax

__all__ = [
  'clip_norm',
  'dist',
  'dist_matrix',
  'exp0',
  'log0',
  'mobius_add',
  'project',
  'riemannian_gradient',
  'to_ball',
]


# ---- what all functions share -----------------------------------------------


def _compute(*arrays):
  """Checks the dtypes; returns the arrays in the dtype to compute in."""
  arrays = tuple(jnp.asarray(a) for a in arrays)
  dtype = jnp.result_type(*arrays)
  if not jnp.issubdtype(dtype, jnp.floating):
    raise TypeError(
      f'points must be floating-point arrays, got dtype {dtype}: convert them'
      ' with .astype(jnp.float32)'
    )
  last = {a.shape[-1:] for a in arrays}
  if len(last) > 1 or last == {()}:
    shapes = ', '.join(str(a.shape) for a in arrays)
    raise ValueError(f'points must be [..., d] with one d, got {shapes}')
  wide = jnp.promote_types(dtype, jnp.float32)
  return dtype, *(a.astype(wide) for a in arrays)


def _curvature(c, dtype):
  """The curvature as a scalar of `dtype`, checked where it is known."""
  if isinstance(c, (int, float)) and not (c > 0 and math.isfinite(c)):
    raise ValueError(f'curvature c must be positive and finite, got {c}')
  return jnp.asarray(c, dtype)


def _dot(x, y):
  return jnp.sum(x * y, -1, keepdims=True)


def _sqrt(x):
  """Square root with derivative 0, not infinity, at 0."""
  positive = x > 0
  return jnp.where(positive, jnp.sqrt(jnp.where(positive, x, 1)), 0)


def _two_sum(a, b):
  """Rounded sum of a and b, and its exact error (Knuth)."""
  s = a + b
  t = s - a
  return s, (a - (s - t)) + (b - t)


def _add_pairs(a, b):
  """Sum of two unevaluated sums (high, low)."""
  total, rounding = _two_sum(a[0], b[0])
  return total, rounding + (a[1] + b[1])


def _split(x):
  """High and low part of x, so short that their products are exact."""
  uint, mask = {
    4: (jnp.uint32, 0xFFFFF000),
    8: (jnp.uint64, 0xFFFFFFFFF8000000),
  }[x.dtype.itemsize]
  bits = lax.bitcast_convert_type(x, uint) & uint(mask)
  high = lax.bitcast_convert_type(bits, x.dtype)
  return high, x - high


def _sqnorm_pair(x):
  """|x|^2 of `[..., d]` as an unevaluated sum of two floats `[...]`.

  The pieces' products are exact and their sum carries its own error, so neither
  contraction to FMA nor the order of the reduction can spoil it.
  """
  high, low = _split(x)
  terms = jnp.concatenate([high * high, 2 * high * low, low * low], -1)
  zero = jnp.zeros((), x.dtype)
  pairs = terms, jnp.zeros_like(terms)
  return lax.reduce(pairs, (zero, zero), _add_pairs, (terms.ndim - 1,))


@jax.custom_jvp
def _one_minus_sqnorm(x, c):
  """1 - c |x|^2 `[...]`, to the last bit up to the boundary.

  The plain form loses every digit near the boundary. Floored at one unit of
  rounding, which stands for all points on and outside the boundary; its
  derivative is 0 there.
  """
  sq_high, sq_low = _sqnorm_pair(x)
  c_high, c_low = _split(jnp.broadcast_to(c, sq_high.shape))
  s_high, s_low = _split(sq_high)
  total, error = jnp.ones_like(sq_high), jnp.zeros_like(sq_high)
  for product in (
    c_high * s_high,
    c_high * s_low,
    c_low * s_high,
    c_low * s_low,
    c * sq_low,
  ):
    total, rounding = _two_sum(total, -product)
    error = error + rounding
  return jnp.maximum(total + error, jnp.finfo(x.dtype).eps)


@_one_minus_sqnorm.defjvp
def _one_minus_sqnorm_jvp(primals, tangents):
  x, c = primals
  x_dot, c_dot = tangents
  out = _one_minus_sqnorm(x, c)
  slope = -2 * c * jnp.sum(x * x_dot, -1) - c_dot * jnp.sum(x * x, -1)
  return out, jnp.where(out > jnp.finfo(x.dtype).eps, slope, 0)


# ---- maps between the tangent space at 0 and the ball -----------------------


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
  dtype, u = _compute(u)
  norm = _sqrt(_dot(u, u))
  return (u * jnp.minimum(1.0, radius / (norm + 1e-5))).astype(dtype)


def exp0(u, *, c):
  """Exponential map at 0: tanh(sqrt(c) |u|) u / (sqrt(c) |u|).

  Args:
    u: `[..., d]` tangent vectors at 0.
    c: curvature.

  Returns:
    Points `[..., d]`; for sqrt(c) |u| above about 9 they round to the boundary
    in float32 (see `project`).
  """
  dtype, u = _compute(u)
  sq = _curvature(c, u.dtype) * _dot(u, u)
  large = sq > 1e-6
  r = jnp.sqrt(jnp.where(large, sq, 1))
  return (u * jnp.where(large, jnp.tanh(r) / r, 1 - sq / 3)).astype(dtype)


def log0(x, *, c):
  """Logarithmic map at 0, inverse of `exp0`: artanh(r) x / r, r = sqrt(c)|x|.

  Args:
    x: points `[..., d]`; on or outside the boundary r counts as the largest
      number below 1.
    c: curvature.

  Returns:
    Tangent vectors at 0 `[..., d]`.
  """
  dtype, x = _compute(x)
  c = _curvature(c, x.dtype)
  sq = c * _dot(x, x)
  large = sq > 1e-6
  r = jnp.sqrt(jnp.where(large, sq, 1))
  # artanh(r) = asinh(r / sqrt(1 - r^2)) keeps its digits near r = 1.
  gap = jnp.sqrt(_one_minus_sqnorm(x, c))[..., None]
  scale = jnp.where(large, jnp.arcsinh(r / gap) / r, 1 + sq / 3)
  return (x * scale).astype(dtype)


def project(x, *, c, margin=1e-3):
  """Moves points outside the radius (1 - margin) / sqrt(c) radially onto it.

  Args:
    x: `[..., d]`.
    c: curvature.
    margin: share of the radius that is kept free.

  Returns:
    Points `[..., d]`.
  """
  dtype, x = _compute(x)
  radius = (1 - margin) / jnp.sqrt(_curvature(c, x.dtype))
  norm = _sqrt(_dot(x, x))
  outside = norm > radius
  scale = jnp.where(outside, radius / jnp.where(outside, norm, 1), 1)
  return (x * scale).astype(dtype)


@jax.custom_vjp
def _riemannian_gradient(x, c):
  del c
  return x


def _riemannian_gradient_fwd(x, c):
  return x, (x, c)


def _riemannian_gradient_bwd(residuals, g):
  x, c = residuals
  gap = 1 - c * _dot(x, x)
  return g * (gap * gap / 4), jnp.zeros_like(c)


_riemannian_gradient.defvjp(_riemannian_gradient_fwd, _riemannian_gradient_bwd)


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
  dtype, x = _compute(x)
  return _riemannian_gradient(x, _curvature(c, x.dtype)).astype(dtype)


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


# ---- gyrovector addition and distances --------------------------------------


def mobius_add(x, y, *, c):
  """Mobius addition x (+) y.

  ((1 + 2c<x,y> + c|y|^2) x + (1 - c|x|^2) y) / (1 + 2c<x,y> + c^2|x|^2|y|^2)

  Args:
    x: points `[..., d]`.
    y: points `[..., d]`, leading dimensions broadcast against those of x.
    c: curvature.

  Returns:
    Points `[..., d]`.
  """
  dtype, x, y = _compute(x, y)
  c = _curvature(c, x.dtype)
  xx, yy, xy = _dot(x, x), _dot(y, y), _dot(x, y)
  numerator = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
  denominator = 1 + 2 * c * xy + c * c * xx * yy
  # It reaches 0 only where x = -y lies on the boundary.
  return (numerator / jnp.maximum(denominator, jnp.finfo(x.dtype).tiny)).astype(
    dtype
  )


def _dist_from_sq(sq, gap_x, gap_y, c):
  """Distance from |x-y|^2 and the two 1 - c|.|^2, all broadcastable."""
  z = 2 * c * sq / (gap_x * gap_y)
  return jnp.log1p(z + _sqrt(z * (z + 2))) / jnp.sqrt(c)


def dist(x, y, *, c):
  """Geodesic distance (2 / sqrt(c)) artanh(sqrt(c) |(-x) (+) y|).

  Computed as arcosh(1 + z) / sqrt(c) in the form log1p(z + sqrt(z (z + 2))),
  z = 2c |x-y|^2 / ((1 - c|x|^2)(1 - c|y|^2)), which keeps its digits for close
  pairs and at the boundary alike.

  Args:
    x: points `[..., d]`.
    y: points `[..., d]`, leading dimensions broadcast against those of x.
    c: curvature.

  Returns:
    `[...]`. Its gradient at x = y is 0.
  """
  dtype, x, y = _compute(x, y)
  c = _curvature(c, x.dtype)
  sq = jnp.sum((x - y) ** 2, -1)
  gap_x, gap_y = _one_minus_sqnorm(x, c), _one_minus_sqnorm(y, c)
  return _dist_from_sq(sq, gap_x, gap_y, c).astype(dtype)


def _sqdist_matrix(x, y):
  # Direct differences: XLA fuses the sum, nothing of size n m d is stored, and
  # close pairs keep the digits that |x|^2 + |y|^2 - 2<x,y> would cancel.
  return jnp.sum((x[:, None] - y[None]) ** 2, -1)


@jax.custom_vjp
def _dist_matrix(x, y, c):
  return _dist_matrix_fwd(x, y, c)[0]


def _dist_matrix_fwd(x, y, c):
  gap_x, gap_y = _one_minus_sqnorm(x, c), _one_minus_sqnorm(y, c)
  gaps = gap_x[:, None], gap_y[None]
  d = _dist_from_sq(_sqdist_matrix(x, y), *gaps, c)
  return d, (x, y, c, d, gaps)


def _dist_matrix_bwd(residuals, g):
  """Closed form, holding a few n x m matrices.

  With s = sinh^2(sqrt(c) d / 2), a = 1 - c|x|^2, b = 1 - c|y|^2:
  H = g / sqrt(c s (1 + s)), dL/d|x_i - y_j|^2 = H c / (a_i b_j).
  """
  x, y, c, d, (gap_x, gap_y) = residuals
  root, eps = jnp.sqrt(c), jnp.finfo(x.dtype).eps
  sq_x, sq_y = _dot(x, x), _dot(y, y).T
  half = root * d / 2
  s = jnp.sinh(half) ** 2
  slope = jnp.sinh(2 * half) / 2  # sqrt(s (1 + s))
  h = jnp.where(d > 0, g / (root * jnp.where(d > 0, slope, 1)), 0)
  pull = 2 * c * h / (gap_x * gap_y)
  push = 2 * c * h * s
  push_x = jnp.sum(push, 1, keepdims=True) * jnp.where(
    gap_x > eps, 1 / gap_x, 0
  )
  push_y = jnp.sum(push, 0, keepdims=True) * jnp.where(
    gap_y > eps, 1 / gap_y, 0
  )
  matmul = functools.partial(jnp.matmul, precision=lax.Precision.HIGHEST)
  grad_x = (jnp.sum(pull, 1)[:, None] + push_x) * x - matmul(pull, y)
  grad_y = (jnp.sum(pull, 0)[:, None] + push_y.T) * y - matmul(pull.T, x)
  grad_c = jnp.sum(
    h * s * (1 / c + sq_x / gap_x + sq_y / gap_y) - g * d / (2 * c)
  )
  return grad_x, grad_y, grad_c


_dist_matrix.defvjp(_dist_matrix_fwd, _dist_matrix_bwd)


def dist_matrix(x, y, *, c):
  """All pairwise geodesic distances.

  Memory, that of its gradient included, is a few `[n, m]` matrices; nothing of
  size n m d is stored. Reverse-mode differentiable in x, y and c.

  Args:
    x: points `[n, d]`.
    y: points `[m, d]`.
    c: curvature.

  Returns:
    `[n, m]`; see `dist`. The gradient of a coinciding pair is 0.
  """
  dtype, x, y = _compute(x, y)
  if x.ndim != 2 or y.ndim != 2:
    raise ValueError(
      f'dist_matrix takes [n, d] and [m, d], got {x.shape} and {y.shape}'
    )
  return _dist_matrix(x, y, _curvature(c, x.dtype)).astype(dtype)
