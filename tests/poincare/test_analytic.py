"""The functions the ball is made of, against mpmath."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from hier_jax.poincare import _analytic

pytestmark = pytest.mark.optimized

# Name -> the function, its mpmath formula in s = r^2, the range of s and the
# bound in units of half a unit in the last place.
FUNCTIONS = {
  'asinhc': (
    _analytic.asinhc,
    lambda s: mpmath.asinh(mpmath.sqrt(s)) / mpmath.sqrt(s),
    (1e-12, 1e12),
    8,
  ),
  'tanhc': (
    lambda s: _analytic.times_tanhc(jnp.ones_like(s), s),
    lambda s: mpmath.tanh(mpmath.sqrt(s)) / mpmath.sqrt(s),
    (1e-12, 1e12),
    6,
  ),
  'sinhc': (
    _analytic.sinhc,
    lambda s: mpmath.sinh(mpmath.sqrt(s)) / mpmath.sqrt(s),
    (1e-12, 100),
    16,
  ),
  'cosh': (
    _analytic.cosh,
    lambda s: mpmath.cosh(mpmath.sqrt(s)),
    (1e-12, 100),
    20,
  ),
  'log_sinhc': (
    _analytic.log_sinhc,
    lambda s: mpmath.log(mpmath.sinh(mpmath.sqrt(s)) / mpmath.sqrt(s)),
    (1, 1e6),
    24,
  ),
  'log1pc': (
    _analytic.log1pc,
    lambda z: mpmath.log1p(z) / z,
    (1e-9, 1e3),
    8,
  ),
  'arc': (
    lambda q: _analytic.arc(q, jnp.asarray(0.7, q.dtype)),
    lambda q: 2 * mpmath.asinh(mpmath.sqrt(q * ARC_C)) / mpmath.sqrt(ARC_C),
    (1e-12, 1e14),
    5,
  ),
}
ARC_C = None


@pytest.mark.parametrize('double', [False, True], ids=['float32', 'float64'])
@pytest.mark.parametrize('name', FUNCTIONS)
def test_functions_keep_their_digits(name, double, monkeypatch):
  f, formula, (low, high), bound = FUNCTIONS[name]
  dtype = np.float64 if double else np.float32
  monkeypatch.setitem(globals(), 'ARC_C', mpmath.mpf(float(dtype(0.7))))
  rng = np.random.default_rng(0)
  s = np.exp(rng.uniform(np.log(low), np.log(high), 400)).astype(dtype)
  # Where the branches meet.
  s = np.append(s, np.array([0.3, 0.5, 0.7142857, 1, 2], dtype))
  s = s[(s > low) & (s < high)]
  with jax.enable_x64(double), mpmath.workdps(40):
    want = [formula(mpmath.mpf(float(v))) for v in s]
    for g in (f, jax.jit(f)):
      got = np.asarray(g(jnp.asarray(s)))
      assert got.dtype == dtype
      worst = max(
        abs(float((mpmath.mpf(float(a)) - b) / b))
        for a, b in zip(got, want, strict=True)
      )
      assert worst <= bound * np.finfo(dtype).eps / 2
