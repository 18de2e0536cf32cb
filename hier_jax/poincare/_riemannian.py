"""The ball as a Riemannian manifold: metric, exp, log, geodesics, transport."""

import jax.numpy as jnp

from hier_jax import numerics
from hier_jax.poincare import _analytic, _arguments
from hier_jax.poincare._gyro import gyration, mobius_add
from hier_jax.poincare._origin import exp0, saturated


@_arguments.op('x')
def conformal_factor(x, *, c):
  """The metric's factor lambda_x = 2 / (1 - c|x|^2).

  Args:
    x: points `[..., d]`.
    c: curvature; 2 at 0.

  Returns:
    `[...]`, at most 2 / eps (float32: 1.7e7).
  """
  return (2 / _analytic.gap(x, c))[..., 0]


@_arguments.op('x', vectors=('u', 'v'))
def inner(x, u, v, *, c):
  """Inner product of tangent vectors at x: lambda_x^2 <u, v>.

  Args:
    x: points `[..., d]`.
    u: tangent vectors `[..., d]`.
    v: tangent vectors `[..., d]`.
    c: curvature.

  Returns:
    `[...]`.
  """
  return (numerics.dot(u, v) * (2 / _analytic.gap(x, c)) ** 2)[..., 0]


@_arguments.op('x', vectors=('v',))
def norm(x, v, *, c):
  """Length of a tangent vector at x: lambda_x |v|, with derivative 0 at 0.

  Args:
    x: points `[..., d]`.
    v: tangent vectors `[..., d]`.
    c: curvature.

  Returns:
    `[...]`.
  """
  return (2 / _analytic.gap(x, c) * numerics.norm(v))[..., 0]


@_arguments.op('x', vectors=('g',))
def egrad_to_rgrad(x, g, *, c):
  """Euclidean gradient to Riemannian gradient: g / lambda_x^2.

  Args:
    x: points `[..., d]`.
    g: derivatives by the coordinates of x, `[..., d]`.
    c: curvature.

  Returns:
    Tangent vectors `[..., d]`.
  """
  return g * (_analytic.gap(x, c) / 2) ** 2


@_arguments.op('x', vectors=('v',))
def expmap(x, v, *, c):
  """Exponential map at x: x (+) exp0(lambda_x v / 2).

  Ganea, Becigneul and Hofmann (2018), lemma 2.

  Args:
    x: points `[..., d]`.
    v: tangent vectors at x `[..., d]`.
    c: curvature; x + v at 0.

  Returns:
    Points `[..., d]` at distance `norm(x, v)` from x.
  """
  # The quotient by the gap could overflow.
  v = saturated(v, c)
  return mobius_add(x, exp0(v / _analytic.gap(x, c), c=c), c=c)


@_arguments.op('x', 'y')
def logmap(x, y, *, c):
  """Logarithmic map at x, inverse of `expmap`: (2/lambda_x) log0((-x) (+) y).

  With t = y - x, S = c|t|^2, a and b the two 1 - c|.|^2 and s = S / (a b) it is
  (a t - S x) asinh(sqrt s) / (sqrt(s (1 + s)) b): analytic at y = x, where its
  Jacobian in y is the identity, and accurate at the boundary.

  Args:
    x: points `[..., d]`.
    y: points `[..., d]`.
    c: curvature; y - x at 0.

  Returns:
    Tangent vectors at x `[..., d]`; 0 for y = x.
  """
  a, b = _analytic.gap(x, c), _analytic.gap(y, c)
  t = y - x
  sq = _analytic.curved_sq(t, c)
  s = sq / (a * b)
  scale = _analytic.asinhc(s) / (b * jnp.sqrt(1 + s))
  return (a * t - sq * x) * scale


@_arguments.op('x', 'y', scalars=('t',))
def geodesic(t, x, y, *, c):
  """The geodesic from x (t = 0) to y (t = 1): exp_x(t log_x(y)).

  On the hyperboloid, with h = sqrt(c) d(x, y), it is the plane curve
  (sinh((1 - t) h) X + sinh(t h) Y) / sinh(h): for t in [0, 1] nothing cancels,
  where the logarithm of a point at the boundary would have no digits left.

  Args:
    t: `[...]`, any real numbers.
    x: points `[..., d]`.
    y: points `[..., d]`.
    c: curvature; a straight line at 0.

  Returns:
    Points `[..., d]` at distance |t| d(x, y) from x.
  """
  a, b = _analytic.gap(x, c), _analytic.gap(y, c)
  s = _analytic.curved_sq(x - y, c) / (a * b)
  h_sq = 4 * s * _analytic.asinhc(s) ** 2
  whole = _analytic.log_sinhc(h_sq)
  share = lambda t: t * jnp.exp(_analytic.log_sinhc(t * t * h_sq) - whole)
  at_x, at_y = share(1 - t[..., None]), share(t[..., None])
  p, q = at_x / a, at_y / b
  return 2 * (p * x + q * y) / (1 + 2 * (p + q) - (at_x + at_y))


@_arguments.op('x', vectors=('v',), scalars=('t',))
def geodesic_unit(t, x, v, *, c):
  """The geodesic of unit speed that leaves x in direction v.

  Args:
    t: `[...]`, lengths.
    x: points `[..., d]`.
    v: tangent vectors at x `[..., d]`; their length does not matter.
    c: curvature.

  Returns:
    Points `[..., d]` at distance |t| from x; x itself where v = 0.
  """
  step = numerics.unit(v) * (t[..., None] / 2)
  return mobius_add(x, exp0(step, c=c), c=c)


@_arguments.op('x', 'y', vectors=('v',))
def parallel_transport(x, y, v, *, c):
  """Transports v from x to y along their geodesic: gyr[y, -x] v l_x / l_y.

  Args:
    x: points `[..., d]`.
    y: points `[..., d]`.
    v: tangent vectors at x `[..., d]`.
    c: curvature; v at 0.

  Returns:
    Tangent vectors at y `[..., d]`; `inner` is kept.
  """
  ratio = _analytic.gap(y, c) / _analytic.gap(x, c)
  return gyration(y, -x, v, c=c) * ratio


@_arguments.op('x', vectors=('v',))
def transport0(x, v, *, c):
  """Transports v from 0 to x: (1 - c|x|^2) v.

  Args:
    x: points `[..., d]`.
    v: tangent vectors at 0 `[..., d]`.
    c: curvature.

  Returns:
    Tangent vectors at x `[..., d]`.
  """
  return v * _analytic.gap(x, c)


@_arguments.op('x', vectors=('v',))
def transport0_back(x, v, *, c):
  """Transports v from x to 0: v / (1 - c|x|^2), inverse of `transport0`.

  Args:
    x: points `[..., d]`.
    v: tangent vectors at x `[..., d]`.
    c: curvature.

  Returns:
    Tangent vectors at 0 `[..., d]`.
  """
  return v / _analytic.gap(x, c)
