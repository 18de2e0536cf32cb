"""JAX helpers that know no geometry: settings, dtypes, norms, roots, maxima."""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import DTypeLike

__all__ = [
  'as_key',
  'check_finite',
  'check_positive',
  'dot',
  'largest',
  'made_once',
  'norm',
  'power_of_two',
  'product_precision',
  'scaled',
  'sqrt',
  'unit',
  'varying_as',
  'widened',
]

# Types of values that can be read without waiting for a device.
_KNOWN = int, float, complex, str, bytes, np.generic, np.ndarray


def as_key(key: Any) -> jax.Array:
  """The PRNG key, typed, whether it is so or raw, and of any generator.

  Args:
    key: what was given for one.

  Raises:
    TypeError: for a seed, several keys, and what else is no key.
  """
  dtype = getattr(key, 'dtype', None)
  if dtype is not None:
    if jnp.issubdtype(dtype, jax.dtypes.prng_key) and key.ndim == 0:
      return key
    if dtype == jnp.uint32 and key.ndim == 1:
      return jax.random.wrap_key_data(key)
    key = f'{dtype} {key.shape}'
  raise TypeError(f'key is {key}, expected one PRNG key: jax.random.key(SEED)')


def check_finite(**settings: Any) -> None:
  """Checks settings whose values are known: no NaN, and nothing infinite.

  Values of JAX's arrays are not looked at: they may be traced, and reading them
  would wait for the device.

  Args:
    **settings: name -> a number, an array, several of these, or None.

  Raises:
    ValueError: for text, and a number of Python or NumPy that is not finite.
  """
  _check(settings, -math.inf, 'a finite number')


def check_positive(**settings: Any) -> None:
  """As `check_finite`, of settings that must also be above 0."""
  _check(settings, 0, 'a finite number above 0')


def _check(settings: dict[str, Any], above: float, expected: str) -> None:
  for name, value in settings.items():
    if not all(_fits(leaf, above) for leaf in jax.tree.leaves(value)):
      shown = repr(value) if isinstance(value, (str, bytes)) else value
      raise ValueError(f'{name} is {shown}, expected {expected}')


def _fits(value: Any, above: float) -> bool:
  """Whether a value is above a bound and finite, or is not known."""
  if not isinstance(value, _KNOWN):
    return True
  known = np.asarray(value)
  # Complex numbers, text and times are not among the numbers of a setting.
  if known.dtype.kind in 'cSUmM':
    return False
  # Written so that a NaN is refused.
  return bool(np.all((known > above) & (known < math.inf)))


def product_precision(dtype: DTypeLike) -> lax.Precision | None:
  """The precision at which products of this type keep its digits.

  Accelerators round float32 to fewer bits (TF32 on NVIDIA GPUs, bfloat16 on
  TPUs) unless they are asked not to. Who wants their speed asks for bfloat16.
  """
  wide = jnp.finfo(dtype).bits > 16
  return lax.Precision.HIGHEST if wide else None


def widened(x: jax.Array) -> jax.Array:
  """The array in float32, or in float64 where it is."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def largest(x: jax.Array, axis: int) -> jax.Array:
  """The maximum along an axis; its first place has all of the gradient.

  That of `jnp.max` is shared by the places that equal the maximum. Where the
  compiler makes it of values that were rounded otherwise, in a product and sum
  at once or in a wider type, there is none: 0 / 0.
  """
  place = jnp.argmax(lax.stop_gradient(x), axis, keepdims=True)
  return jnp.squeeze(jnp.take_along_axis(x, place, axis), axis)


@jax.custom_jvp
def made_once(*arrays: jax.Array) -> tuple[jax.Array, ...]:
  """Arrays of one shape, in one kernel on a CPU.

  There XLA makes an array, and all that leads to it, wherever it is used, and
  compiles it as often: what a program takes to compile is mostly the number of
  its kernels and their length. A reduction of several arrays is a kernel of its
  own. Sums of an array and zeros are the array; this has no use for large ones,
  as they are not made by vectors.
  """
  if jax.default_backend() != 'cpu':
    return arrays
  lane = lax.broadcasted_iota(jnp.int32, (2, *arrays[0].shape), 0)
  halves = [jnp.where(lane == 0, a[None], 0) for a in arrays]
  zeros = [jnp.zeros((), a.dtype) for a in arrays]
  add = lambda x, y: tuple(a + b for a, b in zip(x, y, strict=True))
  return tuple(lax.reduce(halves, zeros, add, (0,)))


@made_once.defjvp
def _made_once_jvp(
  primals: tuple[jax.Array, ...], tangents: tuple[jax.Array, ...]
) -> tuple[tuple[jax.Array, ...], tuple[jax.Array, ...]]:
  return made_once(*primals), tangents


def varying_as(x: jax.Array, *others: jax.Array) -> jax.Array:
  """x, to `shard_map` a value of each device's own where one of others is.

  What a loop starts from must be of the type that it ends with.
  """

  def axes(a: jax.Array) -> frozenset[str]:
    return jax.typeof(a).manual_axis_type.varying

  missing = tuple(frozenset().union(*map(axes, others)) - axes(x))
  return lax.pcast(x, missing, to='varying') if missing else x


def dot(x: jax.Array, y: jax.Array) -> jax.Array:
  """<x, y> as a column `[..., 1]`."""
  return jnp.sum(x * y, -1, keepdims=True)


def sqrt(x: jax.Array) -> jax.Array:
  """Square root with derivative 0, not infinity, at 0; NaN of NaN."""
  nothing = x <= 0
  return jnp.where(nothing, 0, jnp.sqrt(jnp.where(nothing, 1, x)))


def power_of_two(x: jax.Array) -> jax.Array:
  """The largest power of two up to x >= 0, without derivative; 1 at 0.

  In float32 it is between 2^-103 and 2^103, so that neither it nor its
  reciprocal takes another number out of the range of floats.
  """
  uint, exponent = {
    4: (jnp.uint32, 0x7F800000),
    8: (jnp.uint64, 0x7FF0000000000000),
  }[x.dtype.itemsize]
  bits = lax.bitcast_convert_type(lax.stop_gradient(x), uint) & uint(exponent)
  power = lax.bitcast_convert_type(bits, x.dtype)
  least = jnp.finfo(x.dtype).tiny / jnp.finfo(x.dtype).eps
  return jnp.where(x > 0, jnp.clip(power, least, 1 / least), 1)


def scaled(x: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Rows x as y and powers of two s: x = s y, exactly, with |y| near 1.

  Sums of squares of y neither overflow nor underflow.

  Args:
    x: `[..., d]`.

  Returns:
    y `[..., d]` and s `[..., 1]`.
  """
  largest = jnp.max(jnp.abs(x), -1, keepdims=True, initial=0)
  power = power_of_two(largest)
  # Exact, as x / power is: a product compiles into what uses it.
  return x * (1 / power), power


def norm(x: jax.Array) -> jax.Array:
  """|x| as a column `[..., 1]`; 0 at 0, with derivative 0."""
  y, power = scaled(x)
  return power * sqrt(dot(y, y))


def unit(x: jax.Array) -> jax.Array:
  """The direction x / |x| `[..., d]`; 0 at 0, with derivative 0; NaN of NaN."""
  y, _ = scaled(x)
  sq = dot(y, y)
  nothing = sq == 0
  return jnp.where(nothing, 0, y / jnp.sqrt(jnp.where(nothing, 1, sq)))
