"""HypHC's term and hierarchical proxies against float64 NumPy."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from experiments.study import trees
from hier_jax import losses, poincare

# Whole losses and trainings are compiled.
pytestmark = pytest.mark.slow

KEY = jax.random.key(0)


def random_points(n, c, seed=1):
  u = jax.random.normal(jax.random.key(seed), (n, 3))
  return poincare.to_ball(u, c=c, clip_radius=None)


def nearest_of_many(x, y, c):
  """The least distance from 0 of 4,001 points of the geodesic."""
  t = jnp.linspace(0, 1, 4001)
  path = jax.vmap(lambda t: poincare.geodesic(t, x, y, c=c))(t)
  return np.asarray(poincare.dist0(path, c=c)).min()


@pytest.mark.parametrize('c', [0.5, 1.0])
def test_depth_is_the_least_distance_of_the_geodesic_from_0(c):
  x, y = random_points(6, c), random_points(6, c, seed=2)
  # One geodesic runs away from the origin: its end is nearest.
  y = y.at[0].set(x[0] * 1.05)
  got = jax.jit(trees.lca_depth)(x, y, c=c)
  want = [nearest_of_many(a, b, c) for a, b in zip(x, y, strict=True)]
  np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-3)
  np.testing.assert_allclose(trees.lca_depth(y, x, c=c), got, rtol=1e-4)


def test_depth_of_one_radius_is_the_papers():
  """Chami et al., appendix: artanh(sqrt(R^2 + 1) - R), twice."""
  angle, r = 1.1, 0.6
  x = jnp.array([r, 0.0])
  y = r * jnp.array([np.cos(angle), np.sin(angle)])
  # The circle of the geodesic: its center is (1 + r^2) / (2 r cos(angle / 2))
  # from the origin, its radius R.
  center = (1 + r**2) / (2 * r * np.cos(angle / 2))
  radius = np.sqrt(center**2 - 1)
  want = 2 * np.arctanh(center - radius)
  np.testing.assert_allclose(trees.lca_depth(x, y, c=1.0), want, rtol=1e-5)


def test_depth_has_the_gradient_of_differences():
  x, y = random_points(2, 1.0)
  f = lambda x: trees.lca_depth(x, y, c=1.0)
  chex.assert_numerical_grads(f, (x,), order=1, atol=1e-2, rtol=1e-2)
  same = jax.grad(lambda x: trees.lca_depth(x, x, c=1.0))(x)
  chex.assert_tree_all_finite(same)


def test_leaves_are_of_one_radius_in_the_proxies_directions():
  proxies = jax.random.normal(KEY, (4, 3))
  got = np.asarray(jax.jit(trees.leaves)(proxies, 1.5, c=0.4))
  unit = np.asarray(proxies)
  unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
  want = unit * np.tanh(np.sqrt(0.4) * 1.5) / np.sqrt(0.4)
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_triples_are_of_three_rows_each_as_likely():
  triples = np.asarray(trees.random_triples(KEY, 6000, 4))
  assert all(len(set(t)) == 3 for t in triples[:200].tolist())
  assert triples.min() == 0 and triples.max() == 3
  _, counts = np.unique(triples, axis=0, return_counts=True)
  assert len(counts) == 24 and counts.min() > 150
  with pytest.raises(ValueError, match='triples of 2 rows asked for'):
    trees.random_triples(KEY, 1, 2)


def test_dasgupta_matches_float64():
  z = random_points(7, 0.5)
  rng = np.random.default_rng(0)
  w = rng.uniform(size=(7, 7))
  w = (w + w.T) / 2
  depth = np.asarray(trees.lca_depth(z[:, None], z[None], c=0.5), np.float64)
  total = 0
  triples = np.asarray(trees.random_triples(KEY, 40, 7))
  for i, j, k in triples:
    pairs = [(i, j), (i, k), (j, k)]
    own = np.array([w[p] for p in pairs])
    share = special.softmax(np.array([depth[p] for p in pairs]) / 0.2)
    total += own.sum() - own @ share

  def f(z, temperature):
    return trees.dasgupta(
      KEY, z, jnp.float32(w), c=0.5, temperature=temperature, triples=40
    )

  loss, grad = jax.jit(jax.value_and_grad(f))(z, 0.2)
  np.testing.assert_allclose(loss, total / 40, rtol=1e-5)
  np.testing.assert_allclose(f(z, 0.2), loss, rtol=1e-5)
  chex.assert_tree_all_finite(grad)
  assert np.any(np.asarray(grad))
  lost = z.at[0, 0].set(jnp.nan)
  assert np.isnan(jax.jit(jax.value_and_grad(f))(lost, 0.2)[0])
  with pytest.raises(ValueError, match=r'similarity has shape \(6, 6\)'):
    trees.dasgupta(KEY, z, jnp.eye(6))


def test_dasgupta_is_least_where_similar_leaves_are_siblings():
  directions = np.array([[1, 0.2], [1, -0.2], [-1, 0.2], [-1, -0.2]])
  points = 0.9 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
  siblings = np.array([0, 0, 1, 1])
  strangers = np.array([0, 1, 0, 1])
  cost = [
    trees.dasgupta(
      KEY,
      jnp.float32(points),
      jnp.float32(of[:, None] == of[None]),
      c=1.0,
      triples=100,
    )
    for of in (siblings, strangers)
  ]
  assert cost[0] < 0.05 and cost[1] > 0.8


def test_proxy_anchor_of_a_level_is_of_means():
  z = jax.random.normal(KEY, (8, 3))
  labels = jnp.arange(8) % 4
  class_proxies = jax.random.normal(jax.random.key(1), (4, 3))
  levels = jnp.array([[0, 0], [0, 1], [1, 2], [1, 3]])
  unit = np.asarray(class_proxies)
  unit = unit / np.linalg.norm(unit, axis=1, keepdims=True)
  coarse = np.stack([unit[:2].mean(0), unit[2:].mean(0)])
  np.testing.assert_allclose(
    trees.level_means(class_proxies, levels[:, 0], 2), coarse, rtol=1e-5
  )
  want = 0.3 * losses.proxy_anchor(z, labels // 2, jnp.asarray(coarse))
  want += 2 * losses.proxy_anchor(z, labels, class_proxies)

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1))
  def f(z, class_proxies, weights):
    return trees.hierarchical_proxy_anchor(
      z, labels, class_proxies, levels, num_nodes=(2, 4), weights=weights
    )

  loss, grads = f(z, class_proxies, (0.3, 2.0))
  np.testing.assert_allclose(loss, want, rtol=1e-5)
  chex.assert_tree_all_finite(grads)
  assert all(np.any(np.asarray(g)) for g in grads)
  assert np.isnan(f(z.at[0, 0].set(jnp.nan), class_proxies, (0.3, 2.0))[0])
  with pytest.raises(ValueError, match='2 levels, 1 numbers of nodes'):
    trees.hierarchical_proxy_anchor(
      z, labels, class_proxies, levels, num_nodes=(2,), weights=(1, 1)
    )
