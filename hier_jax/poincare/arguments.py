"""What every function of the ball does with its arguments and its result."""

import functools
import inspect
import math
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp

from hier_jax import debug
from hier_jax.poincare import numerics

F = TypeVar('F', bound=Callable[..., Any])


def curvature(c, dtype, flat=True):
  """The curvature as an array of `dtype`, checked where its value is known.

  Args:
    c: a number or an array.
    dtype: of the result.
    flat: whether the limit c = 0 exists.

  Raises:
    ValueError: for a number, or an array of the host, that is negative, NaN or
      infinite. Of a traced or device array, whose values are not known here,
      negative entries count as 0.
  """
  if not isinstance(c, jax.Array):
    values = c.ravel().tolist() if hasattr(c, 'ravel') else [c]
    for value in values:
      if not (value > 0 or (flat and value == 0)) or math.isinf(value):
        limit = ', or 0 for the Euclidean limit,' if flat else ''
        raise ValueError(
          f'curvature c must be positive{limit} and finite, got {value}'
        )
  c = jnp.asarray(c, dtype)
  debug.check(
    lambda: (c >= 0) & (c < jnp.inf),
    c,
    'curvature c{place} is {value}, expected a finite number from 0 up',
  )
  return jnp.where(c < 0, 0, c)


# What the arguments that are points of the ball are called; others are tangent
# vectors, directions or gradients.
_POINTS = ('x', 'y', 'p', 'loc')


def check_finite(name, a):
  """With `debug_checks`, that an array is finite."""
  debug.check(
    lambda: jnp.isfinite(a), a, name + '{place} is {value}, not finite'
  )


def check_inside(name, x, c):
  """With `debug_checks`, that points `[..., d]` lie inside the ball of c."""
  if not debug.enabled():
    return
  radius = jnp.sqrt(c) * jnp.linalg.norm(x, axis=-1)
  debug.check(
    # `check_finite` tells what is not finite.
    ~(radius >= 1),
    radius,
    f'{name}{{place}} is no point of the ball: sqrt(c) |{name}| is {{value}},'
    ' expected less than 1. poincare.to_ball makes points of features; c must'
    ' be that of the embeddings',
  )


def check_points(arrays):
  """The one dtype of arrays of points `[..., d]`.

  Args:
    arrays: name -> array.

  Raises:
    TypeError: for integers, or more than one dtype.
    ValueError: for different d.
  """
  named = lambda f: ', '.join(f'{k}: {f(a)}' for k, a in arrays.items())
  dtypes = {a.dtype for a in arrays.values()}
  if not all(jnp.issubdtype(d, jnp.floating) for d in dtypes):
    raise TypeError(
      'points must be floating-point arrays, got dtype'
      f' {named(lambda a: a.dtype)}: convert with .astype(jnp.float32)'
    )
  if len(dtypes) > 1:
    raise TypeError(
      f'points must have one dtype, got {named(lambda a: a.dtype)}: nothing is'
      ' promoted silently, convert one of them with .astype'
    )
  last = {a.shape[-1:] for a in arrays.values()}
  shapes = ', '.join(str(a.shape) for a in arrays.values())
  if len(last) > 1 or last == {()}:
    raise ValueError(f'points must be [..., d] with one d, got {shapes}')
  return dtypes.pop()


def _check_leading(arrays, trailing):
  """Raises ValueError where leading dimensions do not broadcast.

  Args:
    arrays: name -> array.
    trailing: name -> number of dimensions behind the leading ones.
  """
  shapes = {name: a.shape for name, a in arrays.items()}
  try:
    jnp.broadcast_shapes(
      *(s[: len(s) - trailing[name]] for name, s in shapes.items())
    )
  except ValueError:
    got = ', '.join(f'{name}: {shape}' for name, shape in shapes.items())
    raise ValueError(
      f'leading dimensions do not broadcast, got {got}'
    ) from None


def _lift(a, rank):
  """Leading dimensions of size 1 up to the rank."""
  return a.reshape((1,) * (rank - a.ndim) + a.shape)


def op(
  *points, scalars=(), axes=1, static=(), jit=True, flat=True, inside=True
):
  """Makes a formula in wide floats a function of the ball.

  The formula receives its points as arrays `[..., d]` of one rank, in at least
  float32; its scalars and the curvature as arrays of the leading dimensions.
  It is compiled, and what it returns is rounded once, to the dtype of the
  points.

  Args:
    *points: names of the arguments that are arrays `[..., d]`.
    scalars: names of the arguments that are numbers, arrays `[...]` or None.
    axes: trailing dimensions of the points that the curvature does not have.
    static: names of the arguments that are Python values.
    jit: False for formulas that call functions of the caller's.
    flat: whether the limit c = 0 exists.
    inside: whether what is called x, y, p or loc must lie inside the ball, as
      `debug_checks` looks at.

  Returns:
    A decorator.
  """

  def decorate(formula: F) -> F:
    signature = inspect.signature(formula)
    compiled = jax.jit(formula, static_argnames=static) if jit else formula

    @functools.wraps(formula)
    def function(*args, **kwargs):
      bound = signature.bind(*args, **kwargs)
      bound.apply_defaults()
      values = bound.arguments
      arrays = {name: jnp.asarray(values[name]) for name in points}
      dtype = check_points(arrays)
      wide = jnp.promote_types(dtype, jnp.float32)
      leading = {
        name: jnp.asarray(values[name], wide)
        for name in scalars
        if values[name] is not None
      }
      c = curvature(values['c'], wide, flat)
      trailing = dict.fromkeys(arrays, axes)
      trailing |= dict.fromkeys(leading, axes - 1) | {'c': 0}
      named = arrays | leading | {'c': c}
      _check_leading(named, trailing)
      rank = axes + max(a.ndim - trailing[k] for k, a in named.items())
      own = lambda a: numerics.varying_as(a, *named.values())
      for name, array in arrays.items():
        values[name] = own(_lift(array.astype(wide), rank))
      for name, array in leading.items():
        values[name] = own(_lift(array, rank - 1))
      values['c'] = own(_lift(c, rank - axes))
      for name in arrays:
        check_finite(name, values[name])
        if inside and name in _POINTS:
          column = values['c'].reshape(*values['c'].shape, *[1] * (axes - 1))
          check_inside(name, values[name], column)
      return compiled(*bound.args, **bound.kwargs).astype(dtype)

    return cast(F, function)

  return decorate
