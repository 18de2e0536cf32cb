"""The gyrovector space: addition, scaling and what follows from them.

Ungar, "A Gyrovector Space Approach to Hyperbolic Geometry" (2009); Ganea,
Becigneul and Hofmann, "Hyperbolic Neural Networks" (NeurIPS 2018). The formulas
are written in t = x + y, S = c|t|^2, a = 1 - c|x|^2 and b = 1 - c|y|^2; in
these nothing cancels, neither for x near -y nor at the boundary.
"""

from __future__ import annotations

# The annotations say what callers may pass. The formulas receive arrays instead
# (see `_arguments.op`), which mypy cannot know.
# mypy: disable-error-code="index, operator, return-value, union-attr"
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Real

from hier_jax import numerics
from hier_jax.poincare import _arguments, _rounding
from hier_jax.poincare._origin import exp0, log0


@_arguments.op('x', 'y')
def mobius_add(
  x: Float[ArrayLike, '*#batch d'],
  y: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Mobius addition x (+) y.

  ((1 + 2c<x,y> + c|y|^2) x + (1 - c|x|^2) y) / (1 + 2c<x,y> + c^2|x|^2|y|^2)
  = (a t + S x) / (a b + S). Left cancellation: (-x) (+) (x (+) y) = y.

  Args:
    x: points of the ball, `[..., d]`.
    y: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the sum is
      x + y.

  Returns:
    Points of the ball, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x = np.array([0.5, 0.0])
    >>> total = poincare.mobius_add(x, x, c=1.0)
    >>> print(np.asarray(total).round(2))  # (0.5 + 0.5) / 1.25
    [0.8 0. ]
  """
  a, b = _rounding.gap(x, c), _rounding.gap(y, c)
  t = x + y
  s = _rounding.curved_sq(t, c)
  return (a * t + s * x) / (a * b + s)


def mobius_sub(
  x: Float[ArrayLike, '*#batch d'],
  y: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Mobius subtraction x (-) y = x (+) (-y); see `mobius_add`.

  Args:
    x: points of the ball, `[..., d]`.
    y: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the difference
      is x - y.

  Returns:
    Points of the ball, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x, y = np.array([0.8, 0.0]), np.array([0.5, 0.0])
    >>> difference = poincare.mobius_sub(x, y, c=1.0)
    >>> print(np.asarray(difference).round(2))  # 0.3 / (1 - 0.4)
    [0.5 0. ]
  """
  return mobius_add(x, -jnp.asarray(y), c=c)


@_arguments.op('x', 'y')
def coadd(
  x: Float[ArrayLike, '*#batch d'],
  y: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Mobius coaddition, the commutative sum x [+] y = x (+) gyr[x, -y] y.

  ((1 - c|y|^2) x + (1 - c|x|^2) y) / (1 - c^2|x|^2|y|^2)
  = (b x + a y) / (a + b - a b). Right cancellation: (x [+] y) (-) y = x.

  Args:
    x: points of the ball, `[..., d]`.
    y: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the sum is
      x + y.

  Returns:
    Points of the ball, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x, y = np.array([0.5, 0.0]), np.array([0.0, 0.5])
    >>> print(np.asarray(poincare.coadd(x, y, c=1.0)).round(2))
    [0.4 0.4]
    >>> print(np.asarray(poincare.coadd(y, x, c=1.0)).round(2))
    [0.4 0.4]
  """
  a, b = _rounding.gap(x, c), _rounding.gap(y, c)
  return (b * x + a * y) / (a + b * (1 - a))


def cosub(
  x: Float[ArrayLike, '*#batch d'],
  y: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Mobius cosubtraction x [-] y = x [+] (-y); see `coadd`.

  (x [-] y) (+) y = x.

  Args:
    x: points of the ball, `[..., d]`.
    y: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the difference
      is x - y.

  Returns:
    Points of the ball, `[..., d]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x, y = jnp.array([0.5, 0.0]), jnp.array([0.0, 0.5])
    >>> difference = poincare.cosub(x, y, c=1.0)
    >>> back = poincare.mobius_add(difference, y, c=1.0)
    >>> print(jnp.allclose(back, x, atol=1e-4))
    True
  """
  return coadd(x, -jnp.asarray(y), c=c)


@_arguments.op('x', 'y', vectors=('v',))
def gyration(
  x: Float[ArrayLike, '*#batch d'],
  y: Float[ArrayLike, '*#batch d'],
  v: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Gyration gyr[x, y] v = -(x (+) y) (+) (x (+) (y (+) v)), a rotation of v.

  v + 2c (<y,v> (a t + S x) - <t,v> (t - b x)) / (a b + S).

  Args:
    x: points of the ball, `[..., d]`.
    y: points of the ball, `[..., d]`.
    v: points or tangent vectors to rotate, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the result is v.

  Returns:
    The rotated vectors `[..., d]`, as long as v.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x, y = np.array([0.5, 0.0]), np.array([0.0, 0.5])
    >>> v = poincare.gyration(x, y, np.array([1.0, 0.0]), c=1.0)
    >>> print(np.asarray(v).round(2), f'{float(np.linalg.norm(v)):.3f}')
    [ 0.88 -0.47] 1.000
  """
  a, b = _rounding.gap(x, c), _rounding.gap(y, c)
  t = x + y
  s = _rounding.curved_sq(t, c)
  c = c[..., None]
  along = numerics.dot(c * y, v) * (a * t + s * x)
  along -= numerics.dot(c * t, v) * (t - b * x)
  return v + 2 * along / (a * b + s)


@_arguments.op(vectors=('x',))
def antipode(
  x: Float[ArrayLike, '*#batch d'], *, c: Real[ArrayLike, '*#batch']
) -> Float[Array, '*#batch d']:
  """The gyrogroup inverse (-) x = -x: x reflected at 0, for every c.

  Args:
    x: points of the ball, `[..., d]`.
    c: curvature; the result does not depend on it.

  Returns:
    Points of the ball, `[..., d]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import poincare
    >>> x = jnp.array([0.5, -0.2])
    >>> print(poincare.mobius_add(x, poincare.antipode(x, c=1.0), c=1.0))
    [0. 0.]
  """
  del c
  return -x


@_arguments.op('x', scalars=('r',))
def scalar_mul(
  r: Real[ArrayLike, '*#batch'],
  x: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Scalar multiplication r (x) x = exp0(r log0(x)).

  1 (x) x = x; (r + s) (x) x = r (x) x (+) s (x) x; (r s) (x) x is r times s (x)
  x.

  Args:
    r: the factors, real numbers `[...]`.
    x: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the product is
      r x.

  Returns:
    Points of the ball, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x = np.array([0.5, 0.0])
    >>> double = poincare.scalar_mul(2.0, x, c=1.0)
    >>> print(np.asarray(double).round(2))  # x (+) x
    [0.8 0. ]
  """
  return exp0(r[..., None] * log0(x, c=c), c=c)


@_arguments.op('x')
def matvec(
  m: Real[ArrayLike, '*#batch e d'],
  x: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch e']:
  """Mobius matrix-vector multiplication M (x) x = exp0(M log0(x)).

  (M N) (x) x = M (x) (N (x) x).

  Args:
    m: matrices `[..., e, d]`.
    x: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the product is
      M x.

  Returns:
    Points of the ball, `[..., e]`.

  Raises:
    ValueError: if the number of columns of m is not d.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> m, x = 2.0 * np.eye(3, 2), np.array([0.5, 0.0])
    >>> print(np.asarray(poincare.matvec(m, x, c=1.0)).round(2))
    [0.8 0.  0. ]
  """
  m = jnp.asarray(m, x.dtype)
  if m.ndim < 2 or m.shape[-1] != x.shape[-1]:
    raise ValueError(
      f'm must be [..., e, d] for points [..., d], got {m.shape}, {x.shape}'
    )
  product = jnp.einsum(
    '...ed,...d->...e', m, log0(x, c=c), precision=lax.Precision.HIGHEST
  )
  return exp0(product, c=c)


@_arguments.op('x', vectors=('w',))
def pointwise_mul(
  w: Float[ArrayLike, '*#batch d'],
  x: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch d']:
  """Pointwise multiplication diag(w) (x) x = exp0(w log0(x)).

  Args:
    w: one factor for each coordinate, `[..., d]`.
    x: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the product is
      w x.

  Returns:
    Points of the ball, `[..., d]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> w, x = np.array([2.0, 1.0]), np.array([0.5, 0.0])
    >>> print(np.asarray(poincare.pointwise_mul(w, x, c=1.0)).round(2))
    [0.8 0. ]
  """
  return exp0(w * log0(x, c=c), c=c)


@_arguments.op('x', jit=False)
def fn_apply(
  fn: Callable[[jax.Array], jax.Array],
  x: Float[ArrayLike, '*#batch d'],
  *,
  c: Real[ArrayLike, '*#batch'],
) -> Float[Array, '*#batch e']:
  """The Mobius version of a function: exp0(fn(log0(x))).

  Args:
    fn: a function of tangent vectors at 0, from `[..., d]` to `[..., e]`.
    x: points of the ball, `[..., d]`.
    c: curvature, a number from 0 up, or an array `[...]`; at 0 the result is
      fn(x).

  Returns:
    Points of the ball, `[..., e]`.

  Example:
    >>> import numpy as np
    >>> from hier_jax import poincare
    >>> x = np.array([-0.3, 0.4])
    >>> print(np.asarray(poincare.fn_apply(abs, x, c=1.0)).round(2))
    [0.3 0.4]
  """
  return exp0(fn(log0(x, c=c)), c=c)
