"""The gyromidpoint and the Frechet mean."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import poincare
from tests.support import derivatives, exact_geometry


def residual(m, x, w, c):
  """The Frechet mean's first-order condition, as a share of its terms."""
  logs = w[:, None] * exact_geometry.logmap(m[None], x, c)
  return float(np.linalg.norm(logs.sum(0)) / np.sum(exact_geometry.norm(logs)))


@pytest.mark.parametrize('regime', exact_geometry.REGIMES)
@pytest.mark.parametrize('c', exact_geometry.CURVATURES)
def test_frechet_mean_is_stationary(c, regime):
  rng = np.random.default_rng(0)
  for d in (2, 16, 128):
    x = exact_geometry.ball(rng, 20, d, c, regime)
    w = rng.uniform(0.1, 1, 20).astype(np.float32)
    m = poincare.frechet_mean(x, w, c=c)
    wide = exact_geometry.wide(m, x, w)
    assert residual(*wide, exact_geometry.curvature(c)) <= 1e-6


def test_frechet_mean_minimizes_squared_distances():
  rng = np.random.default_rng(1)
  x = exact_geometry.ball(rng, 9, 3, 1.0, 'mid')
  w = rng.uniform(0.1, 1, 9).astype(np.float32)
  cost = lambda m: poincare.dist(m[..., None, :], x, c=1.0) ** 2 @ w
  m = poincare.frechet_mean(x, w, c=1.0)
  around = m[None] + 0.01 * exact_geometry.directions(rng, 50, 3).astype(
    np.float32
  )
  assert jnp.all(cost(m) < cost(around))
  assert cost(m) < cost(poincare.midpoint(x, w, c=1.0))


@pytest.mark.parametrize('flat', [False, True])
def test_frechet_mean_has_implicit_derivatives(flat):
  rng = np.random.default_rng(2)
  x = exact_geometry.ball(rng, 12, 3, 2.0, 'mid').reshape(2, 6, 3)
  w = rng.uniform(0.1, 1, (2, 6))
  if flat:
    f, args = lambda x, w: poincare.frechet_mean(x, w, c=0), (x, w)
  else:
    f = lambda x, w, c: poincare.frechet_mean(x, w, c=c)
    args = x, w, [0.3, 2.0]
  derivatives.check(f, *args)


@pytest.mark.optimized
def test_derivatives_hold_nothing_of_the_steps():
  f = lambda x, n: jnp.sum(poincare.frechet_mean(x, c=1.0, max_steps=n))
  x = jnp.asarray(
    exact_geometry.ball(np.random.default_rng(3), 50, 8, 1, 'mid')
  )
  size = lambda n: (
    jax.jit(jax.grad(f), static_argnums=1)
    .lower(x, n)
    .compile()
    .memory_analysis()
    .temp_size_in_bytes
  )
  assert size(10) == size(1000)


def test_means_of_two_points_are_the_middle_of_their_geodesic():
  x = exact_geometry.ball(np.random.default_rng(4), 14, 5, 0.5, 'mid').reshape(
    7, 2, 5
  )
  middle = poincare.geodesic(0.5, x[:, 0], x[:, 1], c=0.5)
  for mean in (poincare.midpoint, poincare.frechet_mean):
    chex.assert_trees_all_close(mean(x, c=0.5), middle, rtol=1e-4, atol=1e-6)


def test_means_take_leading_dimensions_weights_and_curvatures():
  rng = np.random.default_rng(5)
  x = exact_geometry.ball(rng, 24, 3, 1.0, 'mid').reshape(2, 3, 4, 3)
  w = rng.uniform(0.1, 1, (3, 4)).astype(np.float32)
  c = np.float32([[0.2], [0.9]])
  for mean in (poincare.midpoint, poincare.frechet_mean):
    got = mean(x, w, c=c)
    assert got.shape == (2, 3, 3)
    for i in range(2):
      for j in range(3):
        one = mean(x[i, j], w[j], c=float(c[i, 0]))
        chex.assert_trees_all_close(got[i, j], one, rtol=1e-5, atol=1e-6)
    flat = mean(x, w, c=0)
    want = np.sum(x * w[..., None], 2) / np.sum(w, 1, keepdims=True)
    chex.assert_trees_all_close(flat, want, rtol=1e-5, atol=1e-6)
    assert not np.any(mean(x[0, 0], np.zeros(4, np.float32), c=1.0))
    assert mean(jnp.bfloat16(x), c=1.0).dtype == jnp.bfloat16


def test_masked_points_do_not_count():
  x = exact_geometry.ball(np.random.default_rng(6), 6, 4, 1.0, 'mid')
  w = np.float32([1, 1, 1, 0, 0, 0])
  for mean in (poincare.midpoint, poincare.frechet_mean):
    chex.assert_trees_all_close(
      mean(x, w, c=1.0), mean(x[:3], c=1.0), rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize('mean', [poincare.midpoint, poincare.frechet_mean])
def test_gradients_are_finite_everywhere(mean):
  # Equal points, points at 0, and points on the boundary.
  @jax.jit
  def run(x, c):
    value, vjp = jax.vjp(lambda x, c: mean(x, c=c), x, c)
    return value, vjp(jnp.ones(2))

  for row in ([0.3, 0.0], [0.0, 0.0], [1.0, 0.0], [2.0, 0.0]):
    x = np.float32([row, row, [0.0, 0.5]])
    for a in jax.tree.leaves(run(x, np.float32(1))):
      assert np.all(np.isfinite(a))
