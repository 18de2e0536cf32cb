"""Proxies between the steps."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import special

from experiments.study import proxies
from hier_jax import losses, poincare

KEY = jax.random.key(0)


def test_the_start_is_the_librarys_times_a_scale():
  want = losses.init_hier_proxies(KEY, 5, 3, clip_radius=1.0)
  for scale in (1.0, 0.1):
    got = proxies.init_proxies(KEY, 5, 3, init_scale=scale, clip_radius=1.0)
    np.testing.assert_allclose(got, scale * want, rtol=1e-6)


def test_usage_is_the_mean_soft_pick():
  z = poincare.to_ball(jax.random.normal(KEY, (7, 3)), c=0.1, clip_radius=None)
  v = jax.random.normal(jax.random.key(1), (4, 3))
  dist = np.asarray(
    poincare.dist_matrix(z, poincare.to_ball(v, c=0.1, clip_radius=2.3), c=0.1)
  )
  want = special.softmax(-dist / 0.3, 1).mean(0)
  got = jax.jit(proxies.proxy_usage)(z, v, temperature=0.3)
  np.testing.assert_allclose(got, want, rtol=1e-5)
  np.testing.assert_allclose(np.sum(got), 1, rtol=1e-5)
  by_z = jax.grad(lambda z: jnp.max(proxies.proxy_usage(z, v)))(z)
  assert not np.any(np.asarray(by_z))


def test_only_unused_proxies_move_to_data():
  z = poincare.to_ball(jax.random.normal(KEY, (7, 3)), c=0.1, clip_radius=None)
  v = jax.random.normal(jax.random.key(1), (5, 3))
  usage = jnp.array([0.5, 0.4, 0.001, 0.098, 0.001])
  new, now = jax.jit(proxies.reseed)(
    KEY, v, usage, z, threshold=0.1, shrink=0.4
  )
  dead = np.array([False, False, True, False, True])
  np.testing.assert_array_equal(new[~dead], v[~dead])
  np.testing.assert_allclose(now, np.where(dead, 0.2, usage), rtol=1e-6)
  tangent = 0.4 * np.asarray(poincare.log0(z, c=0.1))
  for row in np.asarray(new)[dead]:
    assert np.abs(tangent - row).max(1).min() < 1e-6
  # Half as far from the origin, and more, than a row of the data.
  assert (
    np.linalg.norm(new[dead], axis=1).max()
    < np.linalg.norm(np.asarray(poincare.log0(z, c=0.1)), axis=1).max()
  )
