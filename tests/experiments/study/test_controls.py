"""Controls: shuffled neighbors, levels, distillation."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from experiments.study import controls, mined, variants
from hier_jax import poincare

# Whole losses and trainings are compiled.
pytestmark = pytest.mark.slow

KEY = jax.random.key(0)


def test_shuffled_neighbors_are_as_many_and_of_others():
  z = poincare.to_ball(jax.random.normal(KEY, (24, 4)), c=0.1)
  labels = jnp.arange(24) // 4
  similarity = mined.similarity_of(z, 0.1)
  other = jax.jit(controls.shuffled_similarity)(KEY, similarity, labels)
  order = np.asarray(jax.random.permutation(KEY, 24))
  same = np.asarray(labels)[order]
  same = same[:, None] == same[None]
  want = np.asarray(similarity)[np.ix_(order, order)] + same
  np.testing.assert_allclose(other, want, rtol=1e-6)
  call = functools.partial(
    variants.mined_triplet, KEY, z, labels, k=4, triplets_per_anchor=20
  )
  _, own = call()
  loss, aux = call(similarity=other, same_class=0)
  assert np.isfinite(loss)
  assert own['data/same_class'] == 1 and aux['data/same_class'] < 0.5
  # The graph is the same.
  for key in ('data/anchors', 'data/no_neighbors'):
    np.testing.assert_allclose(aux[key], own[key], rtol=1e-6)


def planted(images=3):
  """Features of 8 classes: 2 groups of 2 subgroups of 2, and their levels."""
  rng = np.random.default_rng(0)
  code = np.arange(8)[:, None] >> np.array([2, 1, 0]) & 1
  means = (2 * code - 1) * np.array([4, 2, 1])
  labels = np.repeat(np.arange(8), images)
  features = means[labels] + rng.normal(size=(8 * images, 3)) * 0.05
  return (
    features,
    labels,
    np.stack([code[:, 0], 2 * code[:, 0] + code[:, 1]], 1),
  )


def partition(column):
  return {tuple(np.flatnonzero(column == value)) for value in set(column)}


def test_pseudo_levels_find_the_planted_tree():
  features, labels, levels = planted()
  order = np.random.default_rng(1).permutation(len(labels))
  found = controls.pseudo_levels(
    features[order], labels[order], [2, 4], metric='euclidean'
  )
  assert found.dtype == np.int32 and found.shape == (8, 3)
  for column, want in zip(found.T, levels.T, strict=False):
    assert partition(column) == partition(want)
  np.testing.assert_array_equal(found[:, -1], np.arange(8))


def test_pseudo_levels_are_nested_and_have_their_sizes():
  features = np.random.default_rng(0).normal(size=(60, 5))
  found = controls.pseudo_levels(features, np.arange(60) % 20, [1, 3, 7, 20])
  assert [len(set(column)) for column in found.T] == [1, 3, 7, 20, 20]
  for coarse, fine in zip(found.T[:-1], found.T[1:], strict=True):
    assert all(len(set(coarse[fine == node])) == 1 for node in set(fine))


def test_class_means_are_of_directions():
  features = np.array([[2.0, 0.0], [0.0, 5.0], [0.0, 1.0]])
  got = controls.class_means(features, np.array([0, 0, 1]))
  np.testing.assert_allclose(got, [[0.5, 0.5], [0, 1]])


def test_bad_features_and_sizes_are_named():
  features, labels, _ = planted()
  with pytest.raises(ValueError, match=r'sizes of levels are \[4, 2\]'):
    controls.pseudo_levels(features, labels, [4, 2])
  with pytest.raises(ValueError, match=r'sizes of levels are \[9\]'):
    controls.pseudo_levels(features, labels, [9])
  with pytest.raises(ValueError, match='class 0 of 9 has no row'):
    controls.class_means(features, labels + 1)
  with pytest.raises(ValueError, match='not finite'):
    controls.class_means(features * np.nan, labels)
  with pytest.raises(ValueError, match=r'labels \(23,\)'):
    controls.class_means(features, labels[1:])
  with pytest.raises(ValueError, match=r'levels have shapes \(8,\), \(7,\)'):
    controls.true_levels(np.arange(8), np.arange(7))


def test_true_levels_number_nodes_by_their_path():
  group, subgroup = np.array([5, 5, 9, 9]), np.array([0, 1, 0, 0])
  got = controls.true_levels(group, subgroup)
  np.testing.assert_array_equal(
    got, [[0, 0, 0], [0, 1, 1], [1, 2, 2], [1, 2, 3]]
  )


def sup_con(z, labels, temperature):
  """Khosla et al., equation 2, row by row."""
  z = z / np.linalg.norm(z, axis=1, keepdims=True)
  logits, each = z @ z.T / temperature, []
  for i in range(len(z)):
    others = np.arange(len(z)) != i
    positive = others & (labels == labels[i])
    if positive.any():
      total = special.logsumexp(logits[i][others])
      each.append(np.mean(total - logits[i][positive]))
  return np.mean(each)


def compiled(loss):
  return jax.jit(jax.value_and_grad(loss))


def test_level_sup_con_matches_float64():
  features, labels, levels = planted()
  levels = np.concatenate([levels, np.arange(8)[:, None]], 1)
  rows, weights = levels[labels], (0.2, 0.5, 1.0)
  each = [sup_con(features, row, 0.3) for row in rows.T]
  want = np.dot(each, weights) / sum(weights)

  @compiled
  def f(z, weights):
    return controls.level_sup_con(
      z, jnp.asarray(labels), levels, weights=weights, temperature=0.3
    )

  z = jnp.float32(features)
  loss, grad = f(z, weights)
  np.testing.assert_allclose(loss, want, rtol=1e-4)
  chex.assert_tree_all_finite(grad)
  assert np.isnan(f(z.at[0, 0].set(jnp.nan), weights)[0])
  with pytest.raises(ValueError, match='1 weights given for 3 levels'):
    controls.level_sup_con(z, labels, levels, weights=(1,))


@pytest.mark.parametrize('c', [None, 0.1])
def test_distillation_matches_float64(c):
  z = jax.random.normal(KEY, (6, 3)) * 0.5
  rng = np.random.default_rng(0)
  teacher = rng.uniform(-1, 1, (6, 6))
  x = np.asarray(z, np.float64)
  if c is None:
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    own = unit @ unit.T
  else:
    own = -np.asarray(poincare.dist_matrix(z, z, c=c), np.float64)
  total = 0
  for i in range(6):
    others = np.arange(6) != i
    p = special.softmax(teacher[i][others] / 0.5)
    q = special.softmax(own[i][others] / 0.2)
    total += special.rel_entr(p, q).sum() / 6

  @compiled
  def f(z, temperature):
    return controls.relational_distillation(
      z,
      jnp.float32(teacher),
      temperature=temperature,
      teacher_temperature=0.5,
      c=c,
    )

  loss, grad = f(z, 0.2)
  np.testing.assert_allclose(loss, total, rtol=1e-4)
  chex.assert_tree_all_finite(grad)
  assert np.isnan(f(z.at[0, 0].set(jnp.nan), 0.2)[0])


def test_distillation_is_0_where_both_agree():
  z = jax.random.normal(KEY, (6, 3))
  unit = z / jnp.linalg.norm(z, axis=1, keepdims=True)
  loss = controls.relational_distillation(z, unit @ unit.T)
  np.testing.assert_allclose(loss, 0, atol=1e-5)
  with pytest.raises(ValueError, match=r'teacher has shape \(3, 3\)'):
    controls.relational_distillation(z, jnp.eye(3))
