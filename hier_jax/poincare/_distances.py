"""Distances: of points, of all pairs, to hyperplanes and to ideal points."""

from __future__ import annotations

# The annotations say what callers may pass. The formulas receive arrays instead
# (see `_arguments.op`), which mypy cannot know.
# mypy: disable-error-code="index, operator, union-attr"
import functools

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hier_jax import numerics
from hier_jax.poincare import _analytic, _arguments, _pairwise, _rounding


@_arguments.op('x', 'y')
def dist(
  x: Float[ArrayLike, '*#batch d'],
  y: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch']:
  """Geodesic distance (2 / sqrt(c)) artanh(sqrt(c) |(-x) (+) y|).

  Computed as (2 / sqrt(c)) asinh(sqrt(c q)),
  q = |x-y|^2 / ((1 - c|x|^2)(1 - c|y|^2)), which keeps its digits for close
  pairs and at the boundary alike.

  Args:
    x: points of the ball, `[..., d]`.
    y: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the distance is
      2|x - y|.

  Returns:
    Distances `[...]`. The gradient at x = y is 0.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x, y = jnp.array([0.0, 0.0]), jnp.array([0.6, 0.0])
    >>> print(f'{float(poincare.dist(x, y, c=1.0)):.3f}')  # log(4)
    1.386
    >>> print(f'{float(poincare.dist(x, y, c=0.0)):.3f}')  # 2 * 0.6
    1.200
  """
  (a, error_a), (b, error_b) = (_rounding.gap_and_error(p, c) for p in (x, y))
  return _analytic.length(x - y, a * b, c, error_a + error_b)


def _scaled(x, y, c):
  """Points and curvature in a unit of length, a power of two, and that unit.

  In it the largest coordinates are near 1, so that no square overflows, and
  only distances below 1e-19 of the unit are taken for 0.
  """
  largest = jnp.maximum(*(jnp.max(jnp.abs(a), initial=0) for a in (x, y)))
  unit = numerics.power_of_two(largest)
  inverse = 1 / unit
  return x * inverse, y * inverse, c * unit * unit, unit


@functools.partial(jax.custom_vjp, nondiff_argnums=(3, 4, 5))
def _all_pairs(x, y, c, backward, moving, within):
  return _all_pairs_fwd(x, y, c, backward, moving, within)[0]


def _all_pairs_fwd(x, y, c, backward, moving, within):
  del backward
  x, y, c, unit = _scaled(x, y, c)
  # At once: a loop over both compiles in half the time of two.
  points = x if within else jnp.concatenate([x, y])
  ab, error = numerics.made_once(*_rounding.gap_and_error(points, c))
  (a, b), (error_a, error_b) = (
    (v, v) if within else jnp.split(v, [len(x)]) for v in (ab, error)
  )
  q = _pairwise.sqdist(x, y) / (a[:, None] * b[None])
  length = _analytic.arc(q, c, error_a[:, None] + error_b[None])
  own = slice(moving, None)
  gaps = a[:, None], b[None, own]
  residuals = x, y[own], c, q[:, own], length[:, own], gaps, unit
  return unit * length, residuals


def _all_pairs_bwd(backward, moving, within, residuals, g):
  """Closed form, holding a few n x m matrices where AD would hold a dozen.

  dL/d|x_i - y_j|^2 = g d'(q) / (a_i b_j), dL/da_i = -sum_j g d'(q) q / a_i.
  Lengths and points are in a unit, which their derivatives do not have.
  """
  del within
  x, y, c, q, length, gaps, unit = residuals
  fixed, g = g.shape[1] - len(y), g[:, moving:]
  by_q, by_c = _analytic.arc_slopes(q, c, length)
  h = g * by_q
  # 1 - c|.|^2 is constant on its floor.
  inverse = [jnp.where(a > jnp.finfo(x.dtype).eps, 1 / a, 0) for a in gaps]
  push_x = jnp.sum(h * q, 1, keepdims=True) * inverse[0]
  push_y = (jnp.sum(h * q, 0, keepdims=True) * inverse[1]).T
  metric = gaps[0] * gaps[1]
  pull_x, pull_y = _pairwise.pulls(h / metric, x, y, q * metric, backward)
  grad_x = 2 * (pull_x + c * push_x * x)
  grad_y = 2 * (pull_y + c * push_y * y)
  grad_c = jnp.sum(g * by_c) + sum(
    jnp.sum(push * numerics.dot(z, z)) for push, z in ((push_x, x), (push_y, y))
  )
  grad_y = jnp.pad(grad_y, ((fixed, 0), (0, 0)))
  return grad_x, grad_y, grad_c * unit * unit * unit


_all_pairs.defvjp(_all_pairs_fwd, _all_pairs_bwd)


@_arguments.op('x', 'y', axes=2, static=('backward', 'moving', 'within'))
def dist_matrix_of(x, y, *, c, backward='auto', moving=None, within=False):
  """`dist_matrix` for HIER, whose program has much of it.

  Args:
    x: see `dist_matrix`.
    y: see `dist_matrix`.
    c: see `dist_matrix`.
    backward: see `dist_matrix`.
    moving: first of the rows of y that have a gradient, those after it have one
      too; None for all rows.
    within: whether y is x, of which less has to be computed and compiled.

  Returns:
    see `dist_matrix`.
  """
  pairs = lambda x, y, c: _all_pairs(x, y, c, backward, moving, within)
  signature = '(n,d),(m,d),()->(n,m)'
  return jnp.vectorize(pairs, signature=signature)(x, y, c)


def dist_matrix(
  x: Float[ArrayLike, '*#batch n d'],
  y: Float[ArrayLike, '*#batch m d'],
  *,
  c: Real[ArrayLike, '*#batch'],
  backward: str = 'auto',
) -> Float[Array, '*#batch n m']:
  """All pairwise geodesic distances.

  Function and gradient take the memory of a few `[n, m]` matrices; nothing of
  size n m d is stored. The function is differentiable in x, y and c in reverse
  mode; for forward mode use `dist(x[:, None], y[None])`.

  Args:
    x: points of the ball, `[..., n, d]`.
    y: points of the ball, `[..., m, d]`.
    c: curvature, a number from 0 up, or an array `[...]`.
    backward: how the gradient is computed. 'rowwise' keeps the digits of close
      pairs; 'matmul' is two to three times faster but loses them. 'auto' looks
      at the distances: it is row-wise if any pair is nearer than an eighth of
      its points' norm (coinciding pairs do not count), and always row-wise on a
      GPU.

  Returns:
    Distances `[..., n, m]`; see `dist`. The gradient of a coinciding pair is 0.

  Raises:
    ValueError: for arrays of rank below 2 or an unknown `backward`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x = np.array([[0.0, 0.0], [0.6, 0.0]])
    >>> print(np.asarray(poincare.dist_matrix(x, x, c=1.0)).round(2))
    [[0.   1.39]
     [1.39 0.  ]]
  """
  if backward not in _pairwise.BACKWARDS:
    raise ValueError(
      f'backward is {backward!r}, expected one of {_pairwise.BACKWARDS}'
    )
  x, y = jnp.asarray(x), jnp.asarray(y)
  if x.ndim < 2 or y.ndim < 2:
    raise ValueError(
      'dist_matrix takes [n, d] and [m, d], with any leading dimensions, got'
      f' {x.shape} and {y.shape}'
    )
  return dist_matrix_of(x, y, c=c, backward=backward)


@_arguments.op('x', 'p', vectors=('normal',), static=('signed',))
def dist_to_hyperplane(
  x: Float[ArrayLike, '*#batch d'],
  p: Float[ArrayLike, '*#batch d'],
  normal: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
  signed: bool = False,
) -> Float[Array, '*#batch']:
  """Distance to the geodesic hyperplane through p with a normal vector.

  (1 / sqrt(c)) asinh(2 sqrt(c) |<w, n>| / ((1 - c|w|^2) |n|)), w = (-p) (+) x
  (Ganea, Becigneul and Hofmann, 2018, theorem 5).

  Args:
    x: points of the ball, `[..., d]`.
    p: points `[..., d]` that the hyperplanes pass through.
    normal: tangent vectors at p, `[..., d]`; their length does not matter.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the distance is
      2|<x - p, n>| / |n|.
    signed: whether the distance is positive on the side of the normal and
      negative on the other, rather than positive on both.

  Returns:
    Distances `[...]`; 0 where the normal is 0.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x, p, normal = jnp.array([[0.6, 0.0], [0.0, 0.0], [-1.0, 0.0]])
    >>> d = poincare.dist_to_hyperplane(x, p, normal, c=1.0, signed=True)
    >>> print(f'{float(d):.3f}')  # x lies opposite the normal
    -1.386
  """
  a, b = _rounding.gap(p, c), _rounding.gap(x, c)
  t = x - p
  # w / (1 - c|w|^2), times a b
  moved = a * t - _rounding.curved_sq(t, c) * p
  k = 2 * numerics.dot(moved, numerics.unit(normal)) / (a * b)
  distance = _analytic.asinh_length(k[..., 0], c)
  return distance if signed else jnp.abs(distance)


@_arguments.op('x', 'p', vectors=('normal',), axes=2, static=('signed',))
def hyperplane_matrix(
  x: Float[ArrayLike, '*#batch n d'],
  p: Float[ArrayLike, '*#batch k d'],
  normal: Real[ArrayLike, '*#batch k d'],
  *,
  c: Real[ArrayLike, '*#batch'],
  signed: bool = False,
) -> Float[Array, '*#batch n k']:
  """All distances to geodesic hyperplanes; see `dist_to_hyperplane`.

  Function and gradient take the memory of a few `[n, k]` matrices.

  Args:
    x: points of the ball, `[..., n, d]`.
    p: points `[..., k, d]` that the hyperplanes pass through.
    normal: tangent vectors at p, `[..., k, d]`; their length does not matter.
    c: curvature, a number from 0 up, or an array `[...]`.
    signed: whether distances are positive on the side of the normal and
      negative on the other, rather than positive on both.

  Returns:
    Distances `[..., n, k]`, differentiable in reverse mode.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x = np.array([[0.6, 0.0], [0.0, 0.6]])
    >>> p, normal = np.zeros((2, 2)), np.eye(2)  # the two axes
    >>> d = poincare.hyperplane_matrix(x, p, normal, c=1.0)
    >>> print(np.asarray(d).round(2))
    [[1.39 0.  ]
     [0.   1.39]]
  """

  def matrix(x, p, normal, c):
    x, p, c, unit = _scaled(x, p, c)
    a, b = _rounding.gap(p, c).T, _rounding.gap(x, c)
    normal = numerics.unit(normal)
    offset = numerics.dot(p, normal).T
    height = jnp.matmul(x, normal.T, precision=lax.Precision.HIGHEST) - offset
    moved = a * height - c * _pairwise.sqdist_matrix(x, p) * offset
    return unit * _analytic.asinh_length(2 * moved / (a * b), c)

  signature = '(n,d),(k,d),(k,d),()->(n,k)'
  distance = jnp.vectorize(matrix, signature=signature)(x, p, normal, c)
  return distance if signed else jnp.abs(distance)


@_arguments.op('x', vectors=('omega',))
def busemann(
  x: Float[ArrayLike, '*#batch d'],
  omega: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch']:
  """Busemann function of the ideal point omega / sqrt(c).

  B(x) = log(|omega - sqrt(c) x|^2 / (1 - c|x|^2)) / sqrt(c) is the distance of
  x to the ideal point minus the distance of 0 to it. Its level sets are
  horospheres.

  Args:
    x: points of the ball, `[..., d]`.
    omega: directions `[..., d]`; normalized by this function.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the value is
      -2<omega, x>, with derivative 0 in c.

  Returns:
    Busemann values `[...]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x, omega = jnp.array([0.6, 0.0]), jnp.array([1.0, 0.0])
    >>> print(f'{float(poincare.busemann(x, omega, c=1.0)):.3f}')
    -1.386
  """
  gap, omega = _rounding.gap(x, c), numerics.unit(omega)
  root = numerics.sqrt(c[..., None])
  slope = 2 * (numerics.dot(root * x, x) - numerics.dot(omega, x)) / gap
  # Where the ratio is near 1, its logarithm is that of 1 + sqrt(c) slope.
  z = root * slope
  near = jnp.abs(z) < 0.5
  apart = omega - root * x
  # A point inside is no nearer to the ideal point than the boundary's floor.
  sq = jnp.maximum(numerics.dot(apart, apart), jnp.finfo(x.dtype).eps ** 2 / 4)
  ratio = jnp.where(near, 1, sq / gap)
  far = jnp.log(ratio) / jnp.where(root > 0, root, 1)
  close = slope * _analytic.log1pc(jnp.where(near, z, 0))
  return jnp.where(near, close, far)[..., 0]


@_arguments.op('x', vectors=('omega',))
def horospherical_projection(
  x: Float[ArrayLike, '*#batch d'],
  omega: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Projects along horospheres onto the geodesic through 0 towards omega.

  The point of that geodesic with the Busemann value of x,
  -tanh(sqrt(c) B / 2) omega / sqrt(c) (Chami et al., "HoroPCA", ICML 2021).

  Args:
    x: points of the ball, `[..., d]`.
    omega: directions `[..., d]`; normalized by this function.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the projection
      is <omega, x> omega.

  Returns:
    Points `[..., d]`; Busemann values, and distances along omega, are kept.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x, omega = jnp.array([0.3, 0.4]), jnp.array([1.0, 0.0])
    >>> p = poincare.horospherical_projection(x, omega, c=1.0)
    >>> before, after = (poincare.busemann(a, omega, c=1.0) for a in (x, p))
    >>> print(jnp.allclose(before, after, atol=1e-4))
    True
  """
  half = busemann(x, omega, c=c)[..., None] / 2
  along = _analytic.times_tanhc(-half, c[..., None] * half**2)
  return along * numerics.unit(omega)
