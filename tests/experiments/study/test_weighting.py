"""Weights by the ratio of gradient norms."""

import jax
import jax.numpy as jnp
import numpy as np

from experiments.study import weighting


def test_both_losses_pull_alike():
  z = jax.random.normal(jax.random.key(0), (5, 3))
  a, b = lambda z: jnp.sum(z**3), lambda z: 1e-3 * jnp.sum(jnp.sin(z))
  weight = jax.jit(lambda z: weighting.balanced_weight(a, b, z))(z)
  x = np.asarray(z, np.float64)
  want = np.linalg.norm(3 * x**2) / np.linalg.norm(1e-3 * np.cos(x))
  np.testing.assert_allclose(weight, want, rtol=1e-5)
  capped = weighting.balanced_weight(a, b, z, largest=2.0)
  assert float(capped) == 2


def test_no_gradient_no_weight_and_nan_stays():
  z = jnp.ones((2, 2))
  loss = lambda z: jnp.sum(z**2)
  assert (
    float(weighting.balanced_weight(loss, lambda z: 1.0 + 0 * z[0, 0], z)) == 0
  )
  lost = lambda z: loss(z) * jnp.nan
  assert np.isnan(weighting.balanced_weight(loss, lost, z))
  assert np.isnan(weighting.balanced_weight(lost, loss, z))
  by_z = jax.grad(lambda z: weighting.balanced_weight(loss, loss, z))(z)
  assert not np.any(np.asarray(by_z))
