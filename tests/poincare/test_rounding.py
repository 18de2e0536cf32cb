"""1 - c|x|^2 against mpmath."""

import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from hier_jax.poincare import _rounding

pytestmark = pytest.mark.optimized


@pytest.mark.parametrize('jit', [False, True], ids=['eager', 'jit'])
def test_the_gap_keeps_its_digits_up_to_the_boundary(jit):
  rng = np.random.default_rng(1)
  f = jax.jit(_rounding.gap_and_error) if jit else _rounding.gap_and_error
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
  gap, vjp = jax.vjp(lambda x: _rounding.gap(x, jnp.float32(1))[:, 0], x)
  np.testing.assert_allclose(gap, [eps, eps, 0.64], rtol=1e-6)
  np.testing.assert_allclose(
    vjp(jnp.ones(3))[0], [[0, 0], [0, 0], [-1.2, 0]], rtol=1e-6
  )
