"""The ball as a Riemannian manifold: metric, exp, log, geodesics, transport."""

from __future__ import annotations

# The annotations say what callers may pass. The formulas receive arrays instead
# (see `_arguments.op`), which mypy cannot know.
# mypy: disable-error-code="index, operator"
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hier_jax import numerics
from hier_jax.poincare import _analytic, _arguments, _rounding
from hier_jax.poincare._gyro import gyration, mobius_add
from hier_jax.poincare._origin import exp0, saturated


@_arguments.op('x')
def conformal_factor(
  x: Float[ArrayLike, '*#batch d'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch']:
  """The metric's factor lambda_x = 2 / (1 - c|x|^2).

  Args:
    x: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the factor is 2.

  Returns:
    Factors `[...]`, at most 2 / eps (float32: 1.7e7).

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x = np.array([[0.0, 0.0], [0.5, 0.0]])
    >>> factor = poincare.conformal_factor(x, c=1.0)
    >>> print(np.asarray(factor).round(2))  # 2, 2 / 0.75
    [2.   2.67]
  """
  return (2 / _rounding.gap(x, c))[..., 0]


@_arguments.op('x', vectors=('u', 'v'))
def inner(
  x: Float[ArrayLike, '*#batch d'],
  u: Float[ArrayLike, '*#batch d'],
  v: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch']:
  """Inner product of tangent vectors at x: lambda_x^2 <u, v>.

  Args:
    x: points of the ball, `[..., d]`.
    u: tangent vectors at x, `[..., d]`.
    v: tangent vectors at x, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`.

  Returns:
    Inner products `[...]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x, u, v = jnp.array([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    >>> print(f'{float(poincare.inner(x, u, v, c=1.0)):.3f}')  # 2^2 <u, v>
    4.000
  """
  return (numerics.dot(u, v) * (2 / _rounding.gap(x, c)) ** 2)[..., 0]


@_arguments.op('x', vectors=('v',))
def norm(
  x: Float[ArrayLike, '*#batch d'],
  v: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch']:
  """Length of a tangent vector at x: lambda_x |v|, with derivative 0 at 0.

  Args:
    x: points of the ball, `[..., d]`.
    v: tangent vectors at x, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`.

  Returns:
    Lengths `[...]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x, v = jnp.array([0.0, 0.0]), jnp.array([3.0, 4.0])
    >>> print(f'{float(poincare.norm(x, v, c=1.0)):.3f}')  # 2 * 5
    10.000
  """
  return (2 / _rounding.gap(x, c) * numerics.norm(v))[..., 0]


@_arguments.op('x', vectors=('g',))
def egrad_to_rgrad(
  x: Float[ArrayLike, '*#batch d'],
  g: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Euclidean gradient to Riemannian gradient: g / lambda_x^2.

  Args:
    x: points of the ball, `[..., d]`.
    g: derivatives with respect to the coordinates of x, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`.

  Returns:
    Tangent vectors at x, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x, g = np.array([0.0, 0.0]), np.array([4.0, 8.0])
    >>> v = poincare.egrad_to_rgrad(x, g, c=1.0)
    >>> print(np.asarray(v).round(2))  # g / 2^2
    [1. 2.]
  """
  return g * (_rounding.gap(x, c) / 2) ** 2


@_arguments.op('x', vectors=('v',))
def expmap(
  x: Float[ArrayLike, '*#batch d'],
  v: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Exponential map at x: x (+) exp0(lambda_x v / 2).

  Ganea, Becigneul and Hofmann (2018), lemma 2.

  Args:
    x: points of the ball, `[..., d]`.
    v: tangent vectors at x, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the result is
      x + v.

  Returns:
    Points of the ball, `[..., d]`, at distance `norm(x, v)` from x.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x, v = jnp.array([0.5, 0.0]), jnp.array([0.3, 0.4])
    >>> y = poincare.expmap(x, v, c=1.0)
    >>> print(f'{float(poincare.dist(x, y, c=1.0)):.3f}')  # 0.5 * 2 / 0.75
    1.333
  """
  # The quotient by the gap could overflow.
  v = saturated(v, c)
  return mobius_add(x, exp0(v / _rounding.gap(x, c), c=c), c=c)


@_arguments.op('x', 'y')
def logmap(
  x: Float[ArrayLike, '*#batch d'],
  y: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Logarithmic map at x, inverse of `expmap`: (2/lambda_x) log0((-x) (+) y).

  With t = y - x, S = c|t|^2, a and b the two 1 - c|.|^2 and s = S / (a b) it is
  (a t - S x) asinh(sqrt s) / (sqrt(s (1 + s)) b). This is analytic at y = x,
  where its Jacobian in y is the identity, and accurate at the boundary.

  Args:
    x: points of the ball, `[..., d]`.
    y: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the result is
      y - x.

  Returns:
    Tangent vectors at x, `[..., d]`; 0 for y = x.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x, y = jnp.array([0.5, 0.0]), jnp.array([0.0, 0.5])
    >>> v = poincare.logmap(x, y, c=1.0)
    >>> print(jnp.allclose(poincare.expmap(x, v, c=1.0), y, atol=1e-4))
    True
  """
  a, b = _rounding.gap(x, c), _rounding.gap(y, c)
  t = y - x
  sq = _rounding.curved_sq(t, c)
  s = sq / (a * b)
  scale = _analytic.asinhc(s) / (b * jnp.sqrt(1 + s))
  return (a * t - sq * x) * scale


@_arguments.op('x', 'y', scalars=('t',))
def geodesic(
  t: Real[ArrayLike, '*#batch'],
  x: Float[ArrayLike, '*#batch d'],
  y: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """The geodesic from x (t = 0) to y (t = 1): exp_x(t log_x(y)).

  On the hyperboloid, with h = sqrt(c) d(x, y), it is the plane curve (sinh((1 -
  t) h) X + sinh(t h) Y) / sinh(h). For t in [0, 1] nothing cancels in it,
  whereas the logarithm of a point at the boundary would have no digits left.

  Args:
    t: positions on the geodesic, any real numbers `[...]`.
    x: points of the ball, `[..., d]`.
    y: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the geodesic is
      a straight line.

  Returns:
    Points of the ball, `[..., d]`, at distance |t| d(x, y) from x.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x, y = np.array([0.0, 0.0]), np.array([0.8, 0.0])
    >>> print(np.asarray(poincare.geodesic(0.5, x, y, c=1.0)).round(2))
    [0.5 0. ]
  """
  a, b = _rounding.gap(x, c), _rounding.gap(y, c)
  s = _rounding.curved_sq(x - y, c) / (a * b)
  h_sq = 4 * s * _analytic.asinhc(s) ** 2
  whole = _analytic.log_sinhc(h_sq)
  share = lambda t: t * jnp.exp(_analytic.log_sinhc(t * t * h_sq) - whole)
  at_x, at_y = share(1 - t[..., None]), share(t[..., None])
  p, q = at_x / a, at_y / b
  return 2 * (p * x + q * y) / (1 + 2 * (p + q) - (at_x + at_y))


@_arguments.op('x', vectors=('v',), scalars=('t',))
def geodesic_unit(
  t: Real[ArrayLike, '*#batch'],
  x: Float[ArrayLike, '*#batch d'],
  v: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """The geodesic of unit speed that leaves x in direction v.

  Args:
    t: lengths to go from x, any real numbers `[...]`.
    x: points of the ball, `[..., d]`.
    v: tangent vectors at x, `[..., d]`; their length does not matter.
    c: curvature, a number from 0 up, or an array `[...]`.

  Returns:
    Points of the ball, `[..., d]`, at distance |t| from x; x itself where
    v = 0.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x, v = jnp.array([0.5, 0.0]), jnp.array([3.0, 4.0])
    >>> y = poincare.geodesic_unit(1.5, x, v, c=1.0)
    >>> print(f'{float(poincare.dist(x, y, c=1.0)):.3f}')
    1.500
  """
  step = numerics.unit(v) * (t[..., None] / 2)
  return mobius_add(x, exp0(step, c=c), c=c)


@_arguments.op('x', 'y', vectors=('v',))
def parallel_transport(
  x: Float[ArrayLike, '*#batch d'],
  y: Float[ArrayLike, '*#batch d'],
  v: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Transports v from x to y along their geodesic: gyr[y, -x] v l_x / l_y.

  Args:
    x: points of the ball, `[..., d]`.
    y: points of the ball, `[..., d]`.
    v: tangent vectors at x, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the result is v.

  Returns:
    Tangent vectors at y, `[..., d]`; `inner` is kept.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x, y = jnp.array([0.5, 0.0]), jnp.array([0.0, 0.5])
    >>> v = jnp.array([0.6, 0.0])
    >>> w = poincare.parallel_transport(x, y, v, c=1.0)
    >>> print(f'{float(poincare.norm(y, w, c=1.0)):.3f}')  # 0.6 * 2 / 0.75
    1.600
  """
  ratio = _rounding.gap(y, c) / _rounding.gap(x, c)
  return gyration(y, -x, v, c=c) * ratio


@_arguments.op('x', vectors=('v',))
def transport0(
  x: Float[ArrayLike, '*#batch d'],
  v: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Transports v from 0 to x: (1 - c|x|^2) v.

  Args:
    x: points of the ball, `[..., d]`.
    v: tangent vectors at 0, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`.

  Returns:
    Tangent vectors at x, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x, v = np.array([0.5, 0.0]), np.array([1.0, 0.0])
    >>> w = poincare.transport0(x, v, c=1.0)
    >>> print(np.asarray(w).round(2))  # 1 - 0.5^2
    [0.75 0.  ]
  """
  return v * _rounding.gap(x, c)


@_arguments.op('x', vectors=('v',))
def transport0_back(
  x: Float[ArrayLike, '*#batch d'],
  v: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Transports v from x to 0: v / (1 - c|x|^2), inverse of `transport0`.

  Args:
    x: points of the ball, `[..., d]`.
    v: tangent vectors at x, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`.

  Returns:
    Tangent vectors at 0, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x, v = np.array([0.5, 0.0]), np.array([0.75, 0.0])
    >>> print(np.asarray(poincare.transport0_back(x, v, c=1.0)).round(2))
    [1. 0.]
  """
  return v / _rounding.gap(x, c)
