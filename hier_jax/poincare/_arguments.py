"""What every function of the ball does with its arguments and its result."""

import functools
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar, cast

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike

from hier_jax import debug, numerics
from hier_jax.poincare import _rounding

F = TypeVar('F', bound=Callable[..., Any])


def curvature(c: Any, dtype: DTypeLike, flat: bool = True) -> jax.Array:
  """The curvature as an array of `dtype`, checked where its value is known.

  Args:
    c: a number or an array, or what `__jax_array__` makes one (`nnx.Param`).
    dtype: of the result.
    flat: whether the limit c = 0 exists.

  Raises:
    TypeError: for what is no number.
    ValueError: for a number, or an array of the host, that is negative, NaN or
      infinite. Of a traced or device array, whose values are not known here,
      negative entries count as 0.
  """
  if c is None:
    raise TypeError(
      'curvature c is None, which elsewhere means cosines on the unit sphere:'
      ' the ball needs c > 0, or 0 for its Euclidean limit'
    )
  if hasattr(c, '__jax_array__') and not isinstance(c, jax.Array):
    c = c.__jax_array__()
  if not isinstance(c, jax.Array):
    for value in c.ravel().tolist() if hasattr(c, 'ravel') else [c]:
      if not isinstance(value, (int, float)):
        raise TypeError(f'curvature c must be a number or an array, got {c!r}')
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


def check_finite(name: str, a: ArrayLike) -> None:
  """With `debug_checks`, that an array is finite."""
  debug.check(
    lambda: jnp.isfinite(a), a, name + '{place} is {value}, not finite'
  )


def check_inside(name: str, x: jax.Array, c: ArrayLike) -> None:
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


def check_points(arrays: Mapping[str, jax.Array]) -> jnp.dtype:
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


def _check_leading(
  arrays: Mapping[str, jax.Array], trailing: Mapping[str, int]
) -> None:
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


def _lift(a: jax.Array, rank: int) -> jax.Array:
  """Leading dimensions of size 1 up to the rank."""
  return a.reshape((1,) * (rank - a.ndim) + a.shape)


# Radii of the ball beyond which the coordinates of a point are not told apart:
# far outside, and near enough for all products of them to be finite.
_OUTSIDE = 2.0**10


def op(
  *points: str,
  vectors: Sequence[str] = (),
  scalars: Sequence[str] = (),
  axes: int = 1,
  static: Sequence[str] = (),
  positive: Sequence[str] = (),
  jit: bool = True,
  flat: bool = True,
) -> Callable[[F], F]:
  """Makes a formula in wide floats a function of the ball.

  The formula receives its points as arrays `[..., d]` of one rank, in at least
  float32; its scalars and the curvature as arrays of the leading dimensions.
  It is compiled, and what it returns is rounded once, to the dtype of the
  points.

  Args:
    *points: names of the arguments that are points of the ball `[..., d]`;
      `debug_checks` looks whether they lie inside.
    vectors: names of other arrays `[..., d]`, of any length.
    scalars: names of the arguments that are numbers, arrays `[...]` or None.
    axes: trailing dimensions of the points that the curvature does not have.
    static: names of the arguments that are Python values.
    positive: names of the arguments that are numbers above 0, arrays of these
      or None.
    jit: False for formulas that call functions of the caller's.
    flat: whether the limit c = 0 exists.

  Returns:
    A decorator.
  """

  def decorate(formula: F) -> F:
    signature = inspect.signature(formula)

    @functools.wraps(formula)
    def limited(*args: Any, **kwargs: Any) -> jax.Array:
      bound = signature.bind(*args, **kwargs)
      values = bound.arguments
      limit = _OUTSIDE * _rounding.radius(values['c'])
      limit = limit.reshape(limit.shape + (1,) * (axes - 1))
      for name in points:
        values[name] = _rounding.limited(values[name], limit)
      return formula(*bound.args, **bound.kwargs)

    compiled = jax.jit(limited, static_argnames=static) if jit else limited

    @functools.wraps(formula)
    def function(*args: Any, **kwargs: Any) -> jax.Array:
      bound = signature.bind(*args, **kwargs)
      bound.apply_defaults()
      values = bound.arguments
      numerics.check_positive(**{name: values[name] for name in positive})
      names = (*points, *vectors)
      arrays = {name: jnp.asarray(values[name]) for name in names}
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
      column = values['c'].reshape(*values['c'].shape, *[1] * (axes - 1))
      for name in points:
        check_inside(name, values[name], column)
      return compiled(*bound.args, **bound.kwargs).astype(dtype)

    return cast(F, function)

  return decorate
