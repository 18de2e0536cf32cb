"""The wrapped normal and the uniform distribution of the ball."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from hier_jax import poincare
from hier_jax.poincare import wrapped_normal


@pytest.mark.parametrize('c', [0.0, 0.3, 2.0])
def test_the_wrapped_normal_density_integrates_to_one(c):
  loc, scale = jnp.array([0.3, -0.2]), jnp.array([0.4, 0.7])
  width = 1 / np.sqrt(c) if c else 4.0
  axis = np.linspace(-width, width, 801, dtype=np.float32)
  x = np.stack(np.meshgrid(axis, axis, indexing='ij'), -1)
  inside = c * np.sum(x * x, -1) < 0.9999
  x = np.where(inside[..., None], x, 0)
  density = np.exp(wrapped_normal.log_prob(x, loc, scale, c=c))
  volume = np.asarray(poincare.conformal_factor(x, c=c)) ** 2
  cells = np.where(inside, density * volume, 0)
  total = integrate.simpson(integrate.simpson(cells, x=axis), x=axis)
  assert abs(total - 1) < 2e-3


@pytest.mark.parametrize('c', [0.0, 0.5])
def test_wrapped_normal_samples_follow_their_density(c):
  d, n = 5, 20_000
  loc = jnp.full(d, 0.2)
  x = wrapped_normal.sample(jax.random.key(0), loc, 0.5, c=c, shape=(n,))
  # lambda log_loc(x) is normal by construction; read back from the points.
  v = poincare.logmap(loc, x, c=c) * poincare.conformal_factor(loc, c=c)
  for k in range(d):
    assert stats.kstest(v[:, k] / 0.5, 'norm').pvalue > 1e-3
  # Importance sampling: the mean of 1 / density is the volume where the
  # density counts, here of a geodesic ball of radius 1.
  r = poincare.dist(loc, x, c=c)
  log_density = wrapped_normal.log_prob(x, loc, 0.5, c=c)
  estimate = np.mean(np.where(r < 1, np.exp(-np.asarray(log_density)), 0))
  shell = lambda s: (
    s ** (d - 1)
    * ((np.sinh(np.sqrt(c) * s) / (np.sqrt(c) * s)) ** (d - 1) if c else 1)
  )
  area = 8 * np.pi**2 / 3  # of the unit sphere in five dimensions
  exact = area * integrate.quad(shell, 1e-9, 1)[0]
  assert abs(estimate / exact - 1) < 0.05


def test_wrapped_normal_is_differentiable_and_takes_shapes():
  loc = jnp.full((4, 3), 0.1)
  draw = lambda loc, scale, c: wrapped_normal.sample(
    jax.random.key(1), loc, scale, c=c, shape=(2,)
  )
  x, vjp = jax.vjp(draw, loc, jnp.ones(3), jnp.float32(0.5))
  assert x.shape == (2, 4, 3)
  gradients = vjp(jnp.ones_like(x))
  chex.assert_tree_all_finite(gradients)
  assert all(jnp.any(g != 0) for g in gradients)
  log_prob = wrapped_normal.log_prob(x, loc, jnp.ones(3), c=0.5)
  assert log_prob.shape == (2, 4)
  # At the mean itself, and at the edge of the ball.
  far = jnp.array([[0.1, 0.1, 0.1], [1.41, 0, 0]])
  f = lambda x, c: jnp.sum(wrapped_normal.log_prob(x, far[:1], c=c))
  chex.assert_tree_all_finite(jax.grad(f, (0, 1))(far, 0.5))
  half = wrapped_normal.sample(jax.random.key(1), jnp.bfloat16(loc), c=0.5)
  assert half.dtype == jnp.bfloat16
  with pytest.raises(ValueError, match='scale is 0, expected a finite number'):
    wrapped_normal.sample(jax.random.key(1), loc, 0, c=1.0)


@pytest.mark.slow
@pytest.mark.parametrize('c', [0.0, 0.5, 4.0])
@pytest.mark.parametrize('d', [1, 2, 3, 16, 512])
def test_uniform_points_fill_the_volume_evenly(d, c):
  radius = 2.5
  x = poincare.random_uniform(
    jax.random.key(d), (20_000, d), c=c, radius=radius
  )
  r = np.asarray(poincare.dist0(x, c=c), np.float64)
  grid = np.linspace(0, radius, 20_001)[1:]
  root = np.sqrt(c)
  log_shell = (d - 1) * np.log(np.sinh(root * grid) if c else grid)
  shell = np.exp(log_shell - log_shell.max())
  volume = integrate.cumulative_simpson(shell, x=grid, initial=0)
  cdf = lambda q: np.interp(q, grid, volume / volume[-1])
  assert stats.kstest(r, cdf).pvalue > 1e-3
  assert r.max() <= radius * (1 + 1e-5)
  # No direction is preferred.
  mean = np.mean(np.asarray(x) / np.linalg.norm(x, axis=1, keepdims=True), 0)
  assert np.abs(mean).max() < 5 / np.sqrt(d * 20_000)


def test_uniform_points_take_dtypes_and_refuse_a_bad_radius():
  key = jax.random.key(0)
  x = poincare.random_uniform(
    key, (2, 3, 4), c=1.0, radius=1.0, dtype=jnp.bfloat16
  )
  assert x.shape == (2, 3, 4)
  assert x.dtype == jnp.bfloat16
  with pytest.raises(ValueError, match='radius is -1, expected a finite numb'):
    poincare.random_uniform(key, (2, 3), c=1.0, radius=-1)
