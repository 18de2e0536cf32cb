"""The functions the ball is made of, against mpmath."""

import functools

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from hier_jax import numerics
from hier_jax.poincare import _analytic, _pairwise

pytestmark = pytest.mark.optimised

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


@pytest.mark.parametrize('jit', [False, True], ids=['eager', 'jit'])
def test_the_gap_keeps_its_digits_up_to_the_boundary(jit):
  rng = np.random.default_rng(1)
  f = jax.jit(_analytic.gap_and_error) if jit else _analytic.gap_and_error
  for d in (1, 2, 9, 128, 512):
    for c in (1e-6, 0.1, 1.0, 10.0):
      direction = rng.standard_normal((50, d))
      direction /= np.linalg.norm(direction, axis=1, keepdims=True)
      radius = 1 - 10 ** rng.uniform(-6, 0, (50, 1))
      x = (direction * radius / np.sqrt(c)).astype(np.float32)
      gap, error = f(x, jnp.float32(c))
      assert np.all(np.abs(error) <= np.finfo(np.float32).eps)
      with mpmath.workdps(40):
        true_c = mpmath.mpf(float(np.float32(c)))
        for row, g, e in zip(x, gap, error, strict=True):
          exact = 1 - true_c * mpmath.fsum(float(v) ** 2 for v in row)
          got = mpmath.mpf(float(g)) * (1 + mpmath.mpf(float(e)))
          assert abs(got / exact - 1) <= 2e-8


def test_the_gap_is_floored_outside_with_derivative_zero():
  eps = np.finfo(np.float32).eps
  x = jnp.array([[1.0, 0.0], [3.0, 4.0], [0.6, 0.0]])
  gap, vjp = jax.vjp(lambda x: _analytic.gap(x, jnp.float32(1))[:, 0], x)
  np.testing.assert_allclose(gap, [eps, eps, 0.64], rtol=1e-6)
  np.testing.assert_allclose(
    vjp(jnp.ones(3))[0], [[0, 0], [0, 0], [-1.2, 0]], rtol=1e-6
  )


def test_sqdist_matrix_is_direct_and_differentiable():
  rng = np.random.default_rng(2)
  x, y = (rng.standard_normal((n, 70)).astype(np.float32) for n in (130, 65))
  want = np.sum((x[:, None].astype(float) - y[None]) ** 2, -1)
  np.testing.assert_allclose(_pairwise.sqdist_matrix(x, y), want, rtol=1e-6)
  g = rng.standard_normal((130, 65)).astype(np.float32)
  _, vjp = jax.vjp(_pairwise.sqdist_matrix, x, y)
  by_x, by_y = vjp(jnp.asarray(g))
  apart = 2 * g[..., None].astype(float) * (x[:, None].astype(float) - y[None])
  np.testing.assert_allclose(by_x, apart.sum(1), rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(by_y, -apart.sum(0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_first_of_the_largest_has_the_gradient(dtype):
  x = jnp.asarray([[1, 3, 3], [-2, -2, -5], [4, jnp.nan, 9]], dtype)
  for axis in (0, 1):
    f = functools.partial(numerics.largest, axis=axis)
    for run in (lambda g: g, jax.jit):
      got = run(f)(x)
      assert got.dtype == dtype
      np.testing.assert_array_equal(
        *(a.astype(float) for a in (got, x.max(axis)))
      )
  grad = jax.jit(jax.grad(lambda x: jnp.sum(numerics.largest(x, 1))))(x)
  np.testing.assert_array_equal(grad, [[0, 1, 0], [1, 0, 0], [0, 1, 0]])


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_the_largest_of_a_product_and_sum_has_a_gradient(dtype):
  """Which may be rounded once here and twice there."""
  rng = np.random.default_rng(0)
  a, b, c = (jnp.asarray(rng.normal(size=(64, 49, 16)), dtype) for _ in 'abc')
  f = lambda a: jnp.sum(numerics.largest(jax.nn.relu(a * b + c), 1))
  for run in (lambda g: g, jax.jit):
    np.testing.assert_array_equal(
      jnp.sum(run(jax.grad(f))(a) != 0, 1), jnp.ones((64, 16))
    )
