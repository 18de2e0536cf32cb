"""Hyperbolic functions written in s = r^2, in which they are analytic at 0.

So values, all derivatives and the limit c = 0 come out of one expression, where
square roots of sums of squares have no derivative at 0. The digits of what goes
into them are `_rounding`'s business. Results are in the dtype of the arguments,
float32 or float64.

Errors are given in u, half a unit in the last place (6e-8 in float32).
"""

import functools
import itertools
import math
from fractions import Fraction

import jax
import jax.numpy as jnp
from jax import lax

from hier_jax import numerics
from hier_jax.poincare import _rounding

# Of sinh(sqrt(c) d / 2)^2, whose square must not overflow: no two points inside
# the floor of `_rounding.gap` come near it.
_LARGEST = 1e18


# ---- functions of s = r^2 ---------------------------------------------------


def _polynomial(s, coefficients):
  """Horner's rule; the constant term comes first."""
  total = jnp.full_like(s, coefficients[-1])
  for coefficient in reversed(coefficients[:-1]):
    total = total * s + coefficient
  return total


@functools.cache
def _asinh_series(itemsize):
  """Taylor coefficients in s of asinh(sqrt s) / sqrt s, enough for s < 1/2."""
  terms = {4: 18, 8: 44}[itemsize]
  return [
    (-1) ** k * math.comb(2 * k, k) / (4**k * (2 * k + 1)) for k in range(terms)
  ]


def asinhc(s):
  """asinh(r) / r of s = r^2 >= 0, to about 3 u."""
  near = s < 0.5
  small, large = jnp.where(near, s, 0), jnp.where(near, 1, s)
  r = jnp.sqrt(large)
  series = _polynomial(small, _asinh_series(s.dtype.itemsize))
  return jnp.where(near, series, jnp.log(r + jnp.sqrt(1 + large)) / r)


def asinh_length(k, c):
  """asinh(sqrt(c) k) / sqrt(c), with the sign of k; k at c = 0.

  Constant beyond sqrt(c) k = 1e18, to which no points inside the floor of
  `_rounding.gap` lead.
  """
  k = _rounding.limited(k, _LARGEST * _rounding.radius(c)[..., 0])
  return k * asinhc(c * k * k)


@functools.cache
def _lambert(itemsize):
  """Numerator and denominator of 3 + s/(5 + s/(7 + ...)), polynomials in s.

  Enough terms for s < 2.
  """
  below, above = [Fraction(1)], [Fraction(1)]
  for odd in range({4: 13, 8: 23}[itemsize], 1, -2):
    shifted = [Fraction(0), *below]
    longest = itertools.zip_longest(above, shifted, fillvalue=Fraction(0))
    above, below = [odd * a + b for a, b in longest], above
  return [[float(a / below[0]) for a in p] for p in (above, below)]


def tanhc_steps(s):
  """tanh(r) / r of s = r^2 >= 0 as near, part, far.

  It is 1 - part where `near`, and `far` elsewhere. Lambert's continued fraction
  1 / (1 + s/(3 + s/(5 + ...))) for s < 2.
  """
  near = s < 2
  small, large = jnp.where(near, s, 0), jnp.where(near, 2, s)
  above, below = (_polynomial(small, p) for p in _lambert(s.dtype.itemsize))
  r = jnp.sqrt(large)
  decay = jnp.exp(-2 * r)
  far = (1 - 2 * decay / (1 + decay)) / r
  part = small * below / (above + small * below)
  return near, part, far


def times_tanhc(u, s):
  """Product u tanh(r) / r, s = r^2 >= 0 broadcast against u.

  The small part of it is added to u last: that costs one rounding.
  """
  near, part, far = tanhc_steps(s)
  return jnp.where(near, u - u * part, u * far)


def times_artanhc(x, s, gap, error):
  """Product x artanh(r) / r, s = r^2, gap = 1 - s but for a share `error`.

  The series in s, added to x last, or 2 asinh(r / sqrt(1 - s)) / 2.
  """
  near = s < 0.4
  small, large = jnp.where(near, s, 0), jnp.where(near, 0.5, s)
  terms = {4: 20, 8: 42}[s.dtype.itemsize]
  series = _polynomial(small, [1 / (2 * k + 3) for k in range(terms)])
  log, rest = _twice_asinh(large / gap, error)
  far = (log + rest) / (2 * jnp.sqrt(large))
  return jnp.where(near, x + x * (small * series), x * far)


def sinhc(s):
  """sinh(r) / r of s = r^2 >= 0; overflows with sinh."""
  near = s < 1
  small, large = jnp.where(near, s, 0), jnp.where(near, 1, s)
  terms = {4: 6, 8: 11}[s.dtype.itemsize]
  series = [1 / math.factorial(2 * k + 1) for k in range(terms)]
  r = jnp.sqrt(large)
  far = (jnp.exp(r) - jnp.exp(-r)) / (2 * r)
  return jnp.where(near, _polynomial(small, series), far)


def log_sinhc(s):
  """log(sinh(r) / r) of s = r^2 >= 0; never overflows."""
  near = s < 1
  large = jnp.where(near, 1, s)
  r = jnp.sqrt(large)
  far = r + jnp.log1p(-jnp.exp(-2 * r)) - jnp.log(2 * r)
  return jnp.where(near, jnp.log(sinhc(jnp.where(near, s, 0))), far)


def log1pc(z):
  """log(1 + z) / z for z > -1; 1 at 0."""
  near = jnp.abs(z) < 0.05
  terms = {4: 7, 8: 14}[z.dtype.itemsize]
  series = [(-1) ** k / (k + 1) for k in range(terms)]
  far = jnp.where(near, 1, z)
  return jnp.where(
    near,
    _polynomial(jnp.where(near, z, 0), series),
    jnp.log1p(far) / far,
  )


def cosh(s):
  """Hyperbolic cosine of r, s = r^2 >= 0; overflows with its square."""
  return jnp.sqrt(1 + s * sinhc(s) ** 2)


def log_cosh(s):
  """The logarithm of cosh(r), s = r^2 >= 0; never overflows."""
  return log_sinhc(4 * s) - log_sinhc(s)


# ---- distances --------------------------------------------------------------


def _twice_asinh(s, error):
  """2 asinh(sqrt s), and what its rounding left out, for s (1 - error).

  It is arcosh(1 + z) = log(1 + z + sqrt(z (z + 2))), z = 2s.
  """
  z = 2 * jnp.minimum(s, _LARGEST)
  root = jnp.sqrt(z * (z + 2))
  whole, lost = _rounding.two_sum(_rounding.one(z), z + root)
  rest = lost / whole - error * (z / root)
  return jnp.log(whole), lax.stop_gradient(rest)


def _sqrt_and_error(c):
  """sqrt(c), and what its rounding left out as a share of it."""
  root = jnp.sqrt(c)
  return root, lax.stop_gradient(
    -_rounding.product_error(root, root, c) / (2 * c)
  )


@jax.custom_jvp
def _arc(q, c, error):
  s = c * q
  near = s < 0.5
  small = jnp.where(near, s, 0)
  tail = small * _polynomial(small, _asinh_series(s.dtype.itemsize)[1:])
  short = 2 * jnp.sqrt(jnp.where(near, q, 0)) * (1 + (tail - error / 2))
  large = jnp.where(near, 1, s)
  lost = jnp.where(near, 0, _rounding.product_error(c, q, s))
  log, rest = _twice_asinh(large, error - lost / large)
  scale, scale_error = _sqrt_and_error(jnp.where(c > 0, c, 1))
  rest = rest - log * scale_error
  return jnp.where(near, short, (log + rest) / scale)


def arc_slopes(q, c, length):
  """The derivatives of `arc`, given its value, in q and c; 0 at q = 0."""
  s = c * q
  apart = q > 0
  root = jnp.sqrt(jnp.where(apart, q, 1) * (1 + s))
  by_q = jnp.where(apart, 1 / root, 0)
  near = s < 0.5
  # d (sqrt(s) asinhc(s)) and its rest, divided by c.
  slopes = [k * a for k, a in enumerate(_asinh_series(s.dtype.itemsize))]
  short = (
    2 * q * numerics.sqrt(q) * _polynomial(jnp.where(near, s, 0), slopes[1:])
  )
  long = (q * by_q - length / 2) / jnp.where(near, 1, c)
  return by_q, jnp.where(near, short, long)


@_arc.defjvp
def _arc_jvp(primals, tangents):
  length = _arc(*primals)
  by_q, by_c = arc_slopes(primals[0], primals[1], length)
  return length, by_q * tangents[0] + by_c * tangents[1]


def arc(q, c, error=0):
  """Length (2 / sqrt c) asinh(sqrt(c q)) of q >= 0, and 2 sqrt(q) at c = 0.

  For q = |x-y|^2 / ((1 - c|x|^2)(1 - c|y|^2)) this is the distance. Corrections
  are gathered and added once, so that few roundings are left: about 4 u.

  Args:
    q: `[...]`; the derivative at 0 is 0.
    c: curvature, broadcast against q.
    error: the true q is q (1 - error), to first order; not differentiated.

  Returns:
    `[...]`.
  """
  return _arc(q, jnp.broadcast_to(c, q.shape), jnp.broadcast_to(error, q.shape))


def length(t, gaps, c, error):
  """The `arc` of |t|^2 / gaps, however short or long t is.

  Args:
    t: `[..., d]`, the difference of two points.
    gaps: `[...]`, the product of their 1 - c|.|^2.
    c: curvature `[...]`.
    error: what is left out of the gaps as a share of them.

  Returns:
    `[...]`.
  """
  y, power = numerics.scaled(t)
  power = power[..., 0]
  return power * arc(jnp.sum(y * y, -1) / gaps, c * power * power, error)
