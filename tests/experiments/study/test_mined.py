"""Mining with a traced k, and what is mined."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study import mined
from hier_jax import losses, mining, poincare

# Whole losses and trainings are compiled.
pytestmark = pytest.mark.slow

KEY = jax.random.key(0)


def points(n, dim=8, seed=1):
  z = jax.random.normal(jax.random.key(seed), (n, dim))
  return poincare.to_ball(z, c=0.1, clip_radius=2.3)


def test_neighbors_are_the_librarys_for_each_k_in_one_program():
  similarity = mined.similarity_of(points(20), 0.1)
  traced = jax.jit(
    chex.assert_max_traces(mined.reciprocal_neighbors, 1),
    static_argnames='k_max',
  )
  for k in (1, 2, 4, 7):
    neighbors, count = traced(similarity, k, k_max=7)
    want, number = mining.reciprocal_neighbors(similarity, k)
    np.testing.assert_array_equal(neighbors[:, :k], want)
    assert np.all(np.asarray(neighbors[:, k:]) == 20)
    np.testing.assert_array_equal(count, number)


def test_triplets_are_the_librarys():
  similarity = mined.similarity_of(points(20), 0.1)
  got, count = mined.mine(KEY, similarity, 4, k_max=6, per_anchor=5, anchors=20)
  neighbors, number = mining.reciprocal_neighbors(similarity, 4)
  want = mining.sample_triplets(KEY, neighbors, number, 20, per_anchor=5)
  assert want.weight.sum() > 0
  np.testing.assert_array_equal(count, number)
  for a, b in zip(got, want, strict=True):
    np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize('c', [0.1, 0.0, None])
def test_distances_match_float64(c):
  x = np.asarray(points(6), np.float64)
  y = np.asarray(points(5, seed=2), np.float64)
  if c is None:
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x, y))
    want = 1 - x @ y.T
  else:
    sq = ((x[:, None] - y[None]) ** 2).sum(-1)
    want = 2 * np.sqrt(sq)
    if c:
      gaps = (1 - c * (a**2).sum(1) for a in (x, y))
      want = np.arccosh(1 + 2 * c * sq / np.outer(*gaps)) / np.sqrt(c)
  got = mined.distances(jnp.float32(x), jnp.float32(y), c)
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)


def test_k_follows_classes_and_images_of_a_class():
  labels = jnp.arange(60) // 3
  assert int(mined.batch_k(labels, 0)) == 3
  assert int(jax.jit(mined.batch_k)(labels, 1.0)) == 6
  # Half of the other classes are in the batch: half of 4 relatives.
  assert mined.expected_relatives(5, 11, 21) == 2
  assert mined.expected_relatives(1, 11, 21) == 0


def memory_of(z, labels, size=12):
  memory = losses.init_memory(size, z.shape[1])
  return losses.enqueue(memory, z, labels)


def test_a_memory_adds_nodes_of_its_classes_without_a_gradient():
  z, labels = points(6), jnp.arange(6) // 2
  past = points(4, seed=3)
  memory = memory_of(past, jnp.array([0, 1, 2, 7]))
  nodes = mined.nodes_of(z, labels, c=0.1, memory=memory)
  np.testing.assert_array_equal(nodes.points[6:10], past)
  np.testing.assert_array_equal(nodes.real, np.arange(18) < 10)
  both = np.concatenate([z, past])
  near = np.asarray(mined.similarity_of(jnp.asarray(both), 0.1))
  same = np.array([0, 0, 1, 1, 2, 2, 0, 1, 2, 7])
  want = near + (same[:, None] == same[None])
  np.testing.assert_allclose(nodes.similarity[:10, :10], want, rtol=1e-6)
  assert np.all(np.asarray(nodes.similarity[10:]) < -1e5)

  def total(z, memory):
    return mined.nodes_of(z, labels, c=0.1, memory=memory).points.sum()

  by_z, by_past = jax.grad(total, (0, 1), allow_int=True)(z, memory)
  assert np.all(np.asarray(by_z) == 1)
  assert not np.any(np.asarray(by_past.embeddings))


def test_a_memory_gives_neighbors_and_negatives_but_no_empty_places():
  z, labels = points(6), jnp.arange(6) // 2
  memory = memory_of(points(8, seed=3), jnp.arange(8) % 4)
  nodes = mined.nodes_of(z, labels, c=0.1, memory=memory)
  triplets, count = mined.mine(
    KEY,
    nodes.similarity,
    5,
    k_max=5,
    per_anchor=40,
    anchors=6,
    real=nodes.real,
  )
  assert count.shape == (6,) and triplets.weight.shape == (240,)
  kept = np.asarray(triplets.weight) > 0
  assert kept.any() and not kept.all()
  assert np.asarray(triplets.anchor)[kept].max() < 6
  for rows in triplets.positive, triplets.negative:
    rows = np.asarray(rows)[kept]
    assert 6 <= rows.max() < 14


def test_given_similarities_take_the_place_of_distances():
  z, labels = points(8), jnp.arange(8)
  group = jnp.arange(8) % 2
  teacher = (group[:, None] == group[None]) + 2 * jnp.eye(8)
  nodes = mined.nodes_of(z, labels, c=0.1, similarity=teacher)
  triplets, _ = mined.mine(
    KEY, nodes.similarity, 4, k_max=4, per_anchor=9, anchors=8
  )
  assert np.all(np.asarray(triplets.weight) == 1)
  i, j, k = (np.asarray(group[rows]) for rows in triplets[:3])
  assert np.all(i == j) and np.all(i != k)


def test_bad_input_is_named():
  z, labels = points(4), jnp.arange(4)
  with pytest.raises(ValueError, match=r'similarity has shape \(3, 3\)'):
    mined.nodes_of(z, labels, c=0.1, similarity=jnp.eye(3))
  with pytest.raises(ValueError, match='k_max = 5 nearest neighbors'):
    mined.mine(KEY, jnp.eye(4), 2, k_max=5, per_anchor=1, anchors=4)
