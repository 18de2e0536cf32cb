"""The hyperboloid and the Klein model, beside the Poincare ball.

The hyperboloid of curvature -c, c > 0, is {X in R^(d+1) : <X, X> = -1/c,
X_0 > 0} with the Lorentzian inner product <X, Y> = -X_0 Y_0 + sum X_i Y_i. Its
points are arrays `[..., 1 + d]`, time first. The Klein model is the ball of
radius 1 / sqrt(c) in which geodesics are straight; its points are `[..., d]`.
The conversions are isometries: `dist`, `klein_dist` and `poincare.dist` agree.

Functions read the d space coordinates of a point and ignore its time
coordinate, which follows from them; rounding therefore cannot move a point off
the hyperboloid. Arguments, dtypes and errors are the same as in `poincare`,
except that c = 0 is not allowed.

Ratcliffe, "Foundations of Hyperbolic Manifolds" (2006), chapters 3, 4 and 6;
Nickel and Kiela, "Learning Continuous Hierarchies in the Lorentz Model of
Hyperbolic Geometry" (ICML 2018).

In the annotations D is 1 + d, the size of points with their time coordinate.
"""

from __future__ import annotations

# The annotations say what callers may pass. The formulas receive arrays instead
# (see `_arguments.op`), which mypy cannot know.
# mypy: disable-error-code="index, operator, return-value"
import functools

import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hier_jax import numerics
from hier_jax.poincare import _analytic, _arguments, _means, _rounding

__all__ = [
  'centroid',
  'dist',
  'exp0',
  'from_klein',
  'from_poincare',
  'inner',
  'klein_dist',
  'klein_to_poincare',
  'log0',
  'poincare_to_klein',
  'project',
  'to_klein',
  'to_poincare',
]

_op = functools.partial(_arguments.op, flat=False)


def _lift(space, c):
  """Puts the time coordinate sqrt(1/c + |space|^2) before `[..., d]`."""
  time = jnp.sqrt(1 / c[..., None] + numerics.dot(space, space))
  return jnp.concatenate([time, space], -1)


def _height(space, c):
  """1 + sqrt(c) X_0 as a column: 2 / (1 - c|x|^2) of the point of the ball."""
  return 1 + jnp.sqrt(1 + c[..., None] * numerics.dot(space, space))


@_op(vectors=('x',))
def project(
  x: Float[ArrayLike, '*#batch D'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch D']:
  """Sets the time coordinate that the space coordinates ask for.

  Args:
    x: points `[..., 1 + d]`; their time coordinate is not read.
    c: curvature, a positive number or an array `[...]`.

  Returns:
    Points of the hyperboloid, `[..., 1 + d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import lorentz
    >>> x = lorentz.project(np.array([9.0, 0.75, 0.0]), c=1.0)
    >>> print(np.asarray(x).round(2))  # sqrt(1 + 0.75^2) = 1.25
    [1.25 0.75 0.  ]
  """
  return _lift(x[..., 1:], c)


def inner(
  x: Float[ArrayLike, '*#batch D'], y: Float[ArrayLike, '*#batch D']
) -> Float[Array, '*#batch']:
  """Lorentzian inner product -x_0 y_0 + sum x_i y_i.

  Args:
    x: points or tangent vectors, `[..., 1 + d]`.
    y: points or tangent vectors, `[..., 1 + d]`.

  Returns:
    Inner products `[...]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import lorentz
    >>> x = jnp.array([1.25, 0.75, 0.0])  # on the hyperboloid of c = 1
    >>> print(f'{float(lorentz.inner(x, x)):.3f}')  # -1 / c
    -1.000
  """
  x, y = jnp.asarray(x), jnp.asarray(y)
  dtype = _arguments.check_points({'x': x, 'y': y})
  wide = jnp.promote_types(dtype, jnp.float32)
  product = x.astype(wide) * y.astype(wide)
  return (jnp.sum(product[..., 1:], -1) - product[..., 0]).astype(dtype)


@_op(vectors=('x', 'y'))
def dist(
  x: Float[ArrayLike, '*#batch D'],
  y: Float[ArrayLike, '*#batch D'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch']:
  """Geodesic distance arcosh(-c <x, y>) / sqrt(c).

  The distance is computed from differences of coordinates, which keep the
  digits of close points. With D = x - y, S = x + y (in space) and
  h = 1 + sqrt(c) X_0 it is
  (2 / sqrt c) asinh(sqrt(c q)),
  q = |(h_x + h_y) D - (h_x - h_y) S|^2 / (16 h_x h_y).

  Args:
    x: points of the hyperboloid, `[..., 1 + d]`.
    y: points of the hyperboloid, `[..., 1 + d]`.
    c: curvature, a positive number or an array `[...]`.

  Returns:
    Distances `[...]`. The gradient at x = y is 0.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import lorentz
    >>> x, y = jnp.array([1.0, 0.0, 0.0]), jnp.array([1.25, 0.75, 0.0])
    >>> print(f'{float(lorentz.dist(x, y, c=1.0)):.3f}')  # arcosh(1.25)
    0.693
  """
  x, y = x[..., 1:], y[..., 1:]
  h_x, h_y = _height(x, c), _height(y, c)
  apart, both, high = x - y, x + y, h_x + h_y
  tilt = c[..., None] * numerics.dot(apart, both) / (high - 2)  # h_x - h_y
  v = high * apart - tilt * both
  q = numerics.dot(v, v) / (16 * h_x * h_y)
  return _analytic.arc(q[..., 0], c)


@_op(vectors=('u',))
def exp0(
  u: Float[ArrayLike, '*#batch d'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch 1+d']:
  """Exponential map at the origin (1 / sqrt(c), 0).

  Args:
    u: space coordinates `[..., d]` of tangent vectors. The metric is the
      identity at the origin, so the ball's `exp0` maps u / 2 to the same point.
    c: curvature, a positive number or an array `[...]`.

  Returns:
    Points `[..., 1 + d]` at distance |u| from the origin. In float32 this holds
    up to sqrt(c)|u| of about 44, where squares overflow.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import lorentz
    >>> x = lorentz.exp0(jnp.array([0.3, 0.4]), c=1.0)
    >>> origin = jnp.array([1.0, 0.0, 0.0])
    >>> print(f'{float(lorentz.dist(origin, x, c=1.0)):.3f}')
    0.500
  """
  return _lift(u * _analytic.sinhc(c[..., None] * numerics.dot(u, u)), c)


@_op(vectors=('x',))
def log0(
  x: Float[ArrayLike, '*#batch D'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch D-1']:
  """Logarithmic map at the origin, inverse of `exp0`.

  Args:
    x: points of the hyperboloid, `[..., 1 + d]`.
    c: curvature, a positive number or an array `[...]`.

  Returns:
    The space coordinates of tangent vectors, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import lorentz
    >>> u = lorentz.log0(np.array([1.25, 0.75, 0.0]), c=1.0)
    >>> print(np.asarray(u).round(2))  # arsinh(0.75) = log(2)
    [0.69 0.  ]
  """
  space = x[..., 1:]
  return space * _analytic.asinhc(c[..., None] * numerics.dot(space, space))


@_op(vectors=('x',), scalars=('weights',), axes=2)
def centroid(
  x: Float[ArrayLike, '*#batch n D'],
  weights: Real[ArrayLike, '*#batch n'] | None = None,
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch D']:
  """Weighted centroid: sum w_i x_i, scaled onto the hyperboloid.

  It minimizes sum w_i cosh(sqrt(c) d(m, x_i)) (Law et al., "Lorentzian Distance
  Learning for Hyperbolic Representations", ICML 2019) and is the ball's
  `midpoint`.

  Args:
    x: points of the hyperboloid, `[..., n, 1 + d]`.
    weights: weights `[..., n]`, not negative, or None for equal ones. Where all
      are 0 the result is the origin.
    c: curvature, a positive number or an array `[...]`.

  Returns:
    Points of the hyperboloid, `[..., 1 + d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import lorentz
    >>> x = np.array([[1.25, 0.75, 0.0], [1.25, -0.75, 0.0]])
    >>> m = lorentz.centroid(x, np.array([0.0, 1.0]), c=1.0)  # the second
    >>> print(np.asarray(m).round(2))
    [ 1.25 -0.75  0.  ]
  """
  space = x[..., 1:]
  height = _height(space, c[..., None])
  weights = _means.weight_columns(x, weights)
  mean, _, norm = _means.weighted_moments(
    space / height, 2 / height, weights, c[..., None]
  )
  return _lift(2 * mean / jnp.where(norm > 0, norm, 1), c)


# ---- conversions ------------------------------------------------------------


@_op('x')
def from_poincare(
  x: Float[ArrayLike, '*#batch d'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch 1+d']:
  """The ball to the hyperboloid: space coordinates 2x / (1 - c|x|^2).

  Args:
    x: points of the ball, `[..., d]`.
    c: curvature, a positive number or an array `[...]`.

  Returns:
    Points of the hyperboloid, `[..., 1 + d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import lorentz
    >>> x = lorentz.from_poincare(np.array([0.5, 0.0]), c=1.0)
    >>> print(np.asarray(x).round(2))  # 1 / 0.75 in space
    [1.67 1.33 0.  ]
  """
  return _lift(2 * x / _rounding.gap(x, c), c)


@_op(vectors=('x',))
def to_poincare(
  x: Float[ArrayLike, '*#batch D'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch D-1']:
  """The hyperboloid to the ball: stereographic projection from (-1/sqrt c, 0).

  Args:
    x: points of the hyperboloid, `[..., 1 + d]`.
    c: curvature, a positive number or an array `[...]`.

  Returns:
    Points of the ball, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import lorentz
    >>> x = lorentz.to_poincare(np.array([1.25, 0.75, 0.0]), c=1.0)
    >>> print(np.asarray(x).round(2))  # 0.75 / (1 + 1.25)
    [0.33 0.  ]
  """
  space = x[..., 1:]
  return space / _height(space, c)


@_op('k')
def from_klein(
  k: Float[ArrayLike, '*#batch d'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch 1+d']:
  """The Klein model to the hyperboloid: space coordinates k / sqrt(1 - c|k|^2).

  Args:
    k: points of the Klein model, `[..., d]`.
    c: curvature, a positive number or an array `[...]`.

  Returns:
    Points of the hyperboloid, `[..., 1 + d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import lorentz
    >>> x = lorentz.from_klein(np.array([0.6, 0.0]), c=1.0)
    >>> print(np.asarray(x).round(2))  # 0.6 / 0.8 in space
    [1.25 0.75 0.  ]
  """
  return _lift(k / jnp.sqrt(_rounding.gap(k, c)), c)


@_op(vectors=('x',))
def to_klein(
  x: Float[ArrayLike, '*#batch D'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch D-1']:
  """The hyperboloid to the Klein model: gnomonic projection from 0.

  Args:
    x: points of the hyperboloid, `[..., 1 + d]`.
    c: curvature, a positive number or an array `[...]`.

  Returns:
    Points of the Klein model, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import lorentz
    >>> k = lorentz.to_klein(np.array([1.25, 0.75, 0.0]), c=1.0)
    >>> print(np.asarray(k).round(2))  # 0.75 / 1.25
    [0.6 0. ]
  """
  space = x[..., 1:]
  return space / (_height(space, c) - 1)


@_op('x')
def poincare_to_klein(
  x: Float[ArrayLike, '*#batch d'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch d']:
  """The ball to the Klein model: 2x / (1 + c|x|^2).

  Args:
    x: points of the ball, `[..., d]`.
    c: curvature, a positive number or an array `[...]`.

  Returns:
    Points of the Klein model, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import lorentz
    >>> k = lorentz.poincare_to_klein(np.array([0.5, 0.0]), c=1.0)
    >>> print(np.asarray(k).round(2))  # 1 / 1.25
    [0.8 0. ]
  """
  return 2 * x / (2 - _rounding.gap(x, c))


@_op('k')
def klein_to_poincare(
  k: Float[ArrayLike, '*#batch d'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch d']:
  """The Klein model to the ball: k / (1 + sqrt(1 - c|k|^2)).

  Args:
    k: points of the Klein model, `[..., d]`.
    c: curvature, a positive number or an array `[...]`.

  Returns:
    Points of the ball, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import lorentz
    >>> x = lorentz.klein_to_poincare(np.array([0.8, 0.0]), c=1.0)
    >>> print(np.asarray(x).round(2))  # 0.8 / (1 + 0.6)
    [0.5 0. ]
  """
  return k / (1 + jnp.sqrt(_rounding.gap(k, c)))


@_op('k', 'm')
def klein_dist(
  k: Float[ArrayLike, '*#batch d'],
  m: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch']:
  """Geodesic distance of the Klein model.

  With D = m - k, A = 1 - c|k|^2 and B = 1 - c|m|^2,
  sinh(sqrt(c) d)^2 = c (A |D|^2 + c <k, D>^2) / (A B): a sum of squares, where
  the usual (1 - c<k, m>)^2 / (A B) - 1 cancels.

  Args:
    k: points of the Klein model, `[..., d]`.
    m: points of the Klein model, `[..., d]`.
    c: curvature, a positive number or an array `[...]`.

  Returns:
    Distances `[...]`. The gradient at k = m is 0. Points crowd at the boundary
    of the Klein model more than in the ball: where the ball has 1 - c|x|^2 = g,
    the Klein model has about g^2 / 4. Float32 therefore reaches only sqrt(c) d
    of about 9 from 0.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import lorentz
    >>> k, m = jnp.array([0.0, 0.0]), jnp.array([0.6, 0.0])
    >>> print(f'{float(lorentz.klein_dist(k, m, c=1.0)):.3f}')  # artanh(0.6)
    0.693
  """
  a, b = _rounding.gap(k, c), _rounding.gap(m, c)
  apart = m - k
  along = c[..., None] * numerics.dot(k, apart) ** 2
  q = (numerics.dot(apart, apart) + along / a) / b
  return _analytic.arc(q[..., 0], c) / 2
