"""Sums, 1 - c|x|^2 and norms that keep their digits near the boundary.

1 - c|x|^2 cancels there, so it is summed with the errors of its roundings; and
norms are taken of rows divided by a power of two. All of it holds eager and
under jit, where XLA contracts products to FMA and reorders sums. Results are in
the dtype of the arguments, float32 or float64.
"""

import jax
import jax.numpy as jnp
from jax import lax

from hier_jax import numerics

# ---- sums and products with their errors ------------------------------------


def two_sum(a, b):
  """Rounded sum of a and b, and its exact error (Knuth)."""
  s = a + b
  t = s - a
  return s, (a - (s - t)) + (b - t)


def one(x):
  """1 for x >= 0, of whose origin XLA knows nothing.

  Under jit it folds (1 + x) - 1 to x, and with it the error that `two_sum` is
  after.
  """
  return (x >= 0).astype(x.dtype)


def split(x):
  """High and low part of x, so short that their products are exact."""
  uint, mask = {
    4: (jnp.uint32, 0xFFFFF000),
    8: (jnp.uint64, 0xFFFFFFFFF8000000),
  }[x.dtype.itemsize]
  bits = lax.bitcast_convert_type(x, uint) & uint(mask)
  high = lax.bitcast_convert_type(bits, x.dtype)
  return high, x - high


def _add_pairs(a, b):
  total, rounding = two_sum(a[0], b[0])
  # The error stays below a unit of the sum, and so does what is lost of it.
  return two_sum(total, rounding + (a[1] + b[1]))


def _sqnorm_pair(x):
  """|x|^2 of `[..., d]` as an unevaluated sum of two floats `[...]`.

  The pieces' products are exact and their sum carries its own error, so neither
  contraction to FMA nor the order of the reduction can spoil it.
  """
  high, low = split(x)
  total, error = high * high, jnp.zeros_like(x)
  for product in (2 * high * low, low * low):
    total, rounding = two_sum(total, product)
    error = error + rounding
  zero = jnp.zeros((), x.dtype)
  return lax.reduce((total, error), (zero, zero), _add_pairs, (x.ndim - 1,))


def product_error(a, b, product):
  """What the rounding of a b left out."""
  (a_high, a_low), (b_high, b_low) = split(a), split(b)
  rest = (a_high * b_high - product) + a_high * b_low
  return (rest + a_low * b_high) + a_low * b_low


@jax.custom_jvp
def _gap(x, c):
  sq_high, sq_low = _sqnorm_pair(x)
  shape = jnp.broadcast_shapes(sq_high.shape, jnp.shape(c))
  sq_high, sq_low, c = (
    jnp.broadcast_to(a, shape) for a in (sq_high, sq_low, c)
  )
  c_high, c_low = split(c)
  s_high, s_low = split(sq_high)
  total, error = one(sq_high), jnp.zeros_like(sq_high)
  for product in (
    c_high * s_high,
    c_high * s_low,
    c_low * s_high,
    c_low * s_low,
    c * sq_low,
  ):
    total, rounding = two_sum(total, -product)
    error = error + rounding
  total, error = two_sum(total, error)
  floor = jnp.finfo(x.dtype).eps
  inside = total > floor
  return (
    jnp.where(inside, total, floor),
    jnp.where(inside, error / jnp.where(inside, total, 1), 0),
  )


@_gap.defjvp
def _gap_jvp(primals, tangents):
  x, c = primals
  x_dot, c_dot = tangents
  gap, error = _gap(x, c)
  slope = -2 * c * jnp.sum(x * x_dot, -1) - c_dot * jnp.sum(x * x, -1)
  inside = gap > jnp.finfo(x.dtype).eps
  return (gap, error), (jnp.where(inside, slope, 0), jnp.zeros_like(error))


def gap_and_error(x, c):
  """1 - c|x|^2, and what its rounding left out as a share of it.

  The plain form loses every digit near the boundary. Floored at one unit of
  rounding (float32: 1.2e-7), which stands for all points on and outside the
  boundary; the derivative is 0 there.

  Args:
    x: `[..., d]`.
    c: curvature `[...]`.

  Returns:
    Two arrays `[...]`; no derivative flows through the second.
  """
  y, power = numerics.scaled(x)
  power = power[..., 0]
  gap, error = _gap(y, c * power * power)
  return gap, lax.stop_gradient(error)


def gap(x, c):
  """1 - c|x|^2 as a column `[..., 1]`; see `gap_and_error`."""
  return gap_and_error(x, c)[0][..., None]


# ---- norms ------------------------------------------------------------------


def shorten(x, length, slack=0):
  """Rows longer than a length, brought to it: x min(1, length / |x|).

  Args:
    x: `[..., d]`.
    length: positive, `[..., 1]` or a number; infinite for none.
    slack: is added to |x|.

  Returns:
    `[..., d]`.
  """
  y, power = numerics.scaled(x)
  size = numerics.sqrt(numerics.dot(y, y)) + slack / power
  longer = power * size > length
  size, length = jnp.where(longer, size, 1), jnp.where(longer, length, 1)
  return jnp.where(longer, y * (length / size), x)


def radius(c):
  """1 / sqrt(c) as a column `[..., 1]`; infinite, with derivative 0, at 0."""
  curved = (c > 0)[..., None]
  root = jnp.sqrt(jnp.where(curved, c[..., None], 1))
  return jnp.where(curved, 1 / root, jnp.inf)


def limited(x, limit):
  """Entries of x from -limit to limit, and NaN where they are not finite.

  For what is beyond all that has a meaning, so that its squares are finite.
  """
  return jnp.where(jnp.isfinite(x), jnp.clip(x, -limit, limit), jnp.nan)


def curved_sq(x, c):
  """The product c |x|^2 as a column `[..., 1]`; 0 at c = 0 for any x."""
  y, power = numerics.scaled(x)
  return c[..., None] * power * power * numerics.dot(y, y)
