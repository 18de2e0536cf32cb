"""Distances: of points, of all pairs, to hyperplanes and to ideal points."""

import functools

import jax
import jax.numpy as jnp
from jax import lax

from hier_jax import numerics
from hier_jax.poincare import _analytic, _arguments, _pairwise


@_arguments.op('x', 'y')
def dist(x, y, *, c):
  """Geodesic distance (2 / sqrt(c)) artanh(sqrt(c) |(-x) (+) y|).

  Computed as (2 / sqrt(c)) asinh(sqrt(c q)),
  q = |x-y|^2 / ((1 - c|x|^2)(1 - c|y|^2)), which keeps its digits for close
  pairs and at the boundary alike.

  Args:
    x: points `[..., d]`.
    y: points `[..., d]`.
    c: curvature; 2|x-y| at 0.

  Returns:
    `[...]`. Its gradient at x = y is 0.
  """
  (a, error_a), (b, error_b) = (_analytic.gap_and_error(p, c) for p in (x, y))
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


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _all_pairs(x, y, c, backward):
  return _all_pairs_fwd(x, y, c, backward)[0]


def _all_pairs_fwd(x, y, c, backward):
  del backward
  x, y, c, unit = _scaled(x, y, c)
  # At once: a loop over both compiles in half the time of two.
  ab, error = _analytic.gap_and_error(jnp.concatenate([x, y]), c)
  (a, b), (error_a, error_b) = (jnp.split(v, [len(x)]) for v in (ab, error))
  gaps = a[:, None], b[None]
  q = _pairwise.sqdist(x, y) / (gaps[0] * gaps[1])
  length = _analytic.arc(q, c, error_a[:, None] + error_b[None])
  return unit * length, (x, y, c, q, length, gaps, unit)


def _all_pairs_bwd(backward, residuals, g):
  """Closed form, holding a few n x m matrices where AD would hold a dozen.

  dL/d|x_i - y_j|^2 = g d'(q) / (a_i b_j), dL/da_i = -sum_j g d'(q) q / a_i.
  Lengths and points are in a unit, which their derivatives do not have.
  """
  x, y, c, q, length, gaps, unit = residuals
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
  return grad_x, grad_y, grad_c * unit * unit * unit


_all_pairs.defvjp(_all_pairs_fwd, _all_pairs_bwd)


@_arguments.op('x', 'y', axes=2, static=('backward',))
def _dist_matrix(x, y, *, c, backward):
  pairs = functools.partial(_all_pairs, backward=backward)
  signature = '(n,d),(m,d),()->(n,m)'
  return jnp.vectorize(pairs, signature=signature)(x, y, c)


def dist_matrix(x, y, *, c, backward='auto'):
  """All pairwise geodesic distances.

  Memory, that of its gradient included, is a few `[n, m]` matrices; nothing of
  size n m d is stored. Reverse-mode differentiable in x, y and c (forward mode:
  `dist(x[:, None], y[None])`).

  Args:
    x: points `[..., n, d]`.
    y: points `[..., m, d]`.
    c: curvature, a number or `[...]`.
    backward: how the gradient is made. 'rowwise' keeps its digits for close
      pairs; 'matmul' is two to three times faster, and loses them; 'auto' looks
      at the distances and is row-wise where any pair is nearer than an eighth
      of its points' norm, but for coinciding ones; on a GPU it always is.

  Returns:
    `[..., n, m]`; see `dist`. The gradient of a coinciding pair is 0.

  Raises:
    ValueError: for arrays of rank below 2 or an unknown `backward`.
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
  return _dist_matrix(x, y, c=c, backward=backward)


@_arguments.op('x', 'p', vectors=('normal',), static=('signed',))
def dist_to_hyperplane(x, p, normal, *, c, signed=False):
  """Distance to the geodesic hyperplane through p with a normal vector.

  (1 / sqrt(c)) asinh(2 sqrt(c) |<w, n>| / ((1 - c|w|^2) |n|)), w = (-p) (+) x
  (Ganea, Becigneul and Hofmann, 2018, theorem 5).

  Args:
    x: points `[..., d]`.
    p: points `[..., d]` of the hyperplanes.
    normal: tangent vectors at p `[..., d]`; their length does not matter.
    c: curvature; 2|<x - p, n>| / |n| at 0.
    signed: positive on the side of the normal, negative on the other.

  Returns:
    `[...]`; 0 where the normal is 0.
  """
  a, b = _analytic.gap(p, c), _analytic.gap(x, c)
  t = x - p
  # w / (1 - c|w|^2), times a b
  moved = a * t - _analytic.curved_sq(t, c) * p
  k = 2 * numerics.dot(moved, numerics.unit(normal)) / (a * b)
  distance = _analytic.asinh_length(k[..., 0], c)
  return distance if signed else jnp.abs(distance)


@_arguments.op('x', 'p', vectors=('normal',), axes=2, static=('signed',))
def hyperplane_matrix(x, p, normal, *, c, signed=False):
  """All distances to geodesic hyperplanes; see `dist_to_hyperplane`.

  Memory, that of its gradient included, is a few `[n, k]` matrices.

  Args:
    x: points `[..., n, d]`.
    p: points `[..., k, d]`.
    normal: `[..., k, d]`, tangent vectors at p; their length does not matter.
    c: curvature, a number or `[...]`.
    signed: positive on the side of the normal, negative on the other.

  Returns:
    `[..., n, k]`; for reverse mode.
  """

  def matrix(x, p, normal, c):
    x, p, c, unit = _scaled(x, p, c)
    a, b = _analytic.gap(p, c).T, _analytic.gap(x, c)
    normal = numerics.unit(normal)
    offset = numerics.dot(p, normal).T
    height = jnp.matmul(x, normal.T, precision=lax.Precision.HIGHEST) - offset
    moved = a * height - c * _pairwise.sqdist_matrix(x, p) * offset
    return unit * _analytic.asinh_length(2 * moved / (a * b), c)

  signature = '(n,d),(k,d),(k,d),()->(n,k)'
  distance = jnp.vectorize(matrix, signature=signature)(x, p, normal, c)
  return distance if signed else jnp.abs(distance)


@_arguments.op('x', vectors=('omega',))
def busemann(x, omega, *, c):
  """Busemann function of the ideal point omega / sqrt(c).

  B(x) = log(|omega - sqrt(c) x|^2 / (1 - c|x|^2)) / sqrt(c), the distance to
  the ideal point relative to that of 0. Its level sets are horospheres.

  Args:
    x: points `[..., d]`.
    omega: directions `[..., d]`, normalized here.
    c: curvature; -2<omega, x> at 0, with derivative 0 in c.

  Returns:
    `[...]`.
  """
  gap, omega = _analytic.gap(x, c), numerics.unit(omega)
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
def horospherical_projection(x, omega, *, c):
  """Projects along horospheres onto the geodesic through 0 towards omega.

  The point of that geodesic with the Busemann value of x,
  -tanh(sqrt(c) B / 2) omega / sqrt(c) (Chami et al., "HoroPCA", ICML 2021).

  Args:
    x: points `[..., d]`.
    omega: directions `[..., d]`, normalized here.
    c: curvature; <omega, x> omega at 0.

  Returns:
    Points `[..., d]`; Busemann values, and distances along omega, are kept.
  """
  half = busemann(x, omega, c=c)[..., None] / 2
  along = _analytic.times_tanhc(-half, c[..., None] * half**2)
  return along * numerics.unit(omega)
