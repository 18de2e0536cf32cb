"""The gyrovector space: addition, scaling and what follows from them.

Ungar, "A Gyrovector Space Approach to Hyperbolic Geometry" (2009); Ganea,
Becigneul and Hofmann, "Hyperbolic Neural Networks" (NeurIPS 2018). The formulas
are written in t = x + y, S = c|t|^2, a = 1 - c|x|^2 and b = 1 - c|y|^2, in
which nothing cancels, neither for x near -y nor at the boundary.
"""

import jax.numpy as jnp
from jax import lax

from hier_jax import numerics
from hier_jax.poincare import _analytic, _arguments
from hier_jax.poincare._origin import exp0, log0


@_arguments.op('x', 'y')
def mobius_add(x, y, *, c):
  """Mobius addition x (+) y.

  ((1 + 2c<x,y> + c|y|^2) x + (1 - c|x|^2) y) / (1 + 2c<x,y> + c^2|x|^2|y|^2)
  = (a t + S x) / (a b + S). Left cancellation: (-x) (+) (x (+) y) = y.

  Args:
    x: points `[..., d]`.
    y: points `[..., d]`.
    c: curvature; x + y at 0.

  Returns:
    Points `[..., d]`.
  """
  a, b = _analytic.gap(x, c), _analytic.gap(y, c)
  t = x + y
  s = _analytic.curved_sq(t, c)
  return (a * t + s * x) / (a * b + s)


def mobius_sub(x, y, *, c):
  """Mobius subtraction x (-) y = x (+) (-y); see `mobius_add`."""
  return mobius_add(x, -jnp.asarray(y), c=c)


@_arguments.op('x', 'y')
def coadd(x, y, *, c):
  """Mobius coaddition, the commutative sum x [+] y = x (+) gyr[x, -y] y.

  ((1 - c|y|^2) x + (1 - c|x|^2) y) / (1 - c^2|x|^2|y|^2)
  = (b x + a y) / (a + b - a b). Right cancellation: (x [+] y) (-) y = x.

  Args:
    x: points `[..., d]`.
    y: points `[..., d]`.
    c: curvature; x + y at 0.

  Returns:
    Points `[..., d]`.
  """
  a, b = _analytic.gap(x, c), _analytic.gap(y, c)
  return (b * x + a * y) / (a + b * (1 - a))


def cosub(x, y, *, c):
  """Mobius cosubtraction x [-] y = x [+] (-y); see `coadd`.

  (x [-] y) (+) y = x.
  """
  return coadd(x, -jnp.asarray(y), c=c)


@_arguments.op('x', 'y', vectors=('v',))
def gyration(x, y, v, *, c):
  """Gyration gyr[x, y] v = -(x (+) y) (+) (x (+) (y (+) v)), a rotation of v.

  v + 2c (<y,v> (a t + S x) - <t,v> (t - b x)) / (a b + S).

  Args:
    x: points `[..., d]`.
    y: points `[..., d]`.
    v: points or tangent vectors `[..., d]`.
    c: curvature; v at 0.

  Returns:
    `[..., d]`, as long as v.
  """
  a, b = _analytic.gap(x, c), _analytic.gap(y, c)
  t = x + y
  s = _analytic.curved_sq(t, c)
  c = c[..., None]
  along = numerics.dot(c * y, v) * (a * t + s * x)
  along -= numerics.dot(c * t, v) * (t - b * x)
  return v + 2 * along / (a * b + s)


@_arguments.op(vectors=('x',))
def antipode(x, *, c):
  """The gyrogroup inverse (-) x = -x: x reflected at 0, for every c."""
  del c
  return -x


@_arguments.op('x', scalars=('r',))
def scalar_mul(r, x, *, c):
  """Scalar multiplication r (x) x = exp0(r log0(x)).

  1 (x) x = x; (r + s) (x) x = r (x) x (+) s (x) x; (r s) (x) x is r times s (x)
  x.

  Args:
    r: `[...]`.
    x: points `[..., d]`.
    c: curvature; r x at 0.

  Returns:
    Points `[..., d]`.
  """
  return exp0(r[..., None] * log0(x, c=c), c=c)


@_arguments.op('x')
def matvec(m, x, *, c):
  """Mobius matrix-vector multiplication M (x) x = exp0(M log0(x)).

  (M N) (x) x = M (x) (N (x) x).

  Args:
    m: `[..., e, d]`.
    x: points `[..., d]`.
    c: curvature; M x at 0.

  Returns:
    Points `[..., e]`.

  Raises:
    ValueError: where the columns of m are not d.
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
def pointwise_mul(w, x, *, c):
  """Pointwise multiplication diag(w) (x) x = exp0(w log0(x)).

  Args:
    w: `[..., d]`.
    x: points `[..., d]`.
    c: curvature; w x at 0.

  Returns:
    Points `[..., d]`.
  """
  return exp0(w * log0(x, c=c), c=c)


@_arguments.op('x', jit=False)
def fn_apply(fn, x, *, c):
  """The Mobius version of a function: exp0(fn(log0(x))).

  Args:
    fn: maps tangent vectors at 0 `[..., d]` to `[..., e]`.
    x: points `[..., d]`.
    c: curvature; fn(x) at 0.

  Returns:
    Points `[..., e]`.
  """
  return exp0(fn(log0(x, c=c)), c=c)
