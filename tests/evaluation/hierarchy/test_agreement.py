"""Metrics of trees against the definitions, pair by pair."""

import itertools
import math

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage

from hier_jax.errors import UserError
from hier_jax.evaluation.hierarchy.agreement import (
  dasgupta_cost,
  dendrogram_purity,
  lca_agreement,
  node_purity,
  pairs,
  spearman,
  taxonomic_cost,
)
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.dendrogram import Dendrogram, parents_of_linkage
from tests.support import trees

TAXONOMY = Taxonomy.from_levels(
  [[i // 4, i // 2] for i in range(8)] + [[-1, -1]]
)


def lca_depth(a, b):
  return int(TAXONOMY.lca_depth(a, b))


def random_trees():
  rng = np.random.default_rng(0)
  for n, inner in ((2, 1), (15, 6), (25, 40)):
    yield trees.random_tree(rng, n, inner), rng.integers(0, 9, n)
  for n in (2, 13, 24):
    yield trees.binary_tree(rng, n), rng.integers(0, 9, n)


def purity(parent, labels):
  n = len(labels)
  shares = []
  for i, j in itertools.combinations(range(n), 2):
    if labels[i] == labels[j]:
      items = trees.below(parent, trees.common_ancestor(parent, i, j), n)
      shares.append(np.mean(np.asarray(labels)[items] == labels[i]))
  return np.mean(shares) if shares else None


def average_ranks(x):
  return [sum(b < a for b in x) + sum(b == a for b in x) / 2 for a in x]


def pearson(x, y):
  x, y = np.array(x) - np.mean(x), np.array(y) - np.mean(y)
  scale = math.sqrt((x @ x) * (y @ y))
  return x @ y / scale if scale else math.nan


def kendall(x, y):
  """Tau-b."""
  if len(x) < 2:
    return math.nan
  signs = [
    (np.sign(x[i] - x[j]), np.sign(y[i] - y[j]))
    for i, j in itertools.combinations(range(len(x)), 2)
  ]
  a, b = np.array(signs, float).T
  scale = math.sqrt((a @ a) * (b @ b))
  return a @ b / scale if scale else math.nan


# ---- purity -----------------------------------------------------------------


def test_purity_by_hand():
  # ((a b) (a a)) c: pairs of a meet twice at 4 items, 3 of a, once at 2.
  parent = [5, 5, 6, 6, 8, 7, 7, 8, -1]
  found = dendrogram_purity(parent, list('abaac'))
  assert found == (pytest.approx((2 * 3 / 4 + 1) / 3),) * 3
  # One class is pure in any tree, and so is each in a subtree of its own.
  assert dendrogram_purity(parent, list('xxxxx')).value == 1
  assert dendrogram_purity(parent, list('bbddc')).value == 1


@pytest.mark.parametrize(('parent', 'labels'), list(random_trees()))
def test_purity(parent, labels):
  expected = purity(parent, labels)
  if expected is None:
    with pytest.raises(UserError, match='has two of the 2 items'):
      dendrogram_purity(parent, labels)
    return
  found = dendrogram_purity(parent, labels)
  assert found == (pytest.approx(expected, rel=1e-12),) * 3
  sampled = dendrogram_purity(parent, labels, max_exact=1, confidence=0.9999)
  assert sampled.low <= expected <= sampled.high
  assert sampled.high - sampled.low < 0.02
  again = dendrogram_purity(parent, labels, max_exact=1, confidence=0.9999)
  assert again == sampled


def test_purity_of_renumbered_items_is_the_same():
  rng = np.random.default_rng(1)
  parent, labels = trees.binary_tree(rng, 30), rng.integers(0, 5, 30)
  order = rng.permutation(30)
  moved = parent.copy()
  moved[:30] = parent[:30][order]
  expected = dendrogram_purity(parent, labels).value
  found = dendrogram_purity(moved, labels[order]).value
  assert found == pytest.approx(expected, rel=1e-12)


def test_purity_of_many():
  rng = np.random.default_rng(2)
  parent, labels = trees.binary_tree(rng, 20_000), rng.integers(0, 500, 20_000)
  exact = dendrogram_purity(parent, labels)
  sampled = dendrogram_purity(parent, labels, max_exact=1, confidence=0.9999)
  assert sampled.low <= exact.value <= sampled.high


# ---- Dasgupta's cost --------------------------------------------------------


def test_cost_by_hand():
  # The path a - b - c: cutting at an end costs 3 + 2, together 3 + 3.
  w = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
  assert dasgupta_cost([3, 3, 4, 4, -1], w) == 2 + 3
  assert dasgupta_cost([3, 3, 3, -1], w) == 3 + 3
  assert dasgupta_cost([3, 3, 3, -1], w, normalise=True) == 1
  assert dasgupta_cost([3, 3, 4, 4, -1], w, normalise=True) == 5 / 6


@pytest.mark.parametrize('n', [2, 3, 7, 12])
def test_cost_of_a_clique_is_that_of_any_binary_tree(n):
  # Dasgupta 2016, section 4.1.
  parent = trees.binary_tree(np.random.default_rng(n), n)
  assert dasgupta_cost(parent, np.ones((n, n))) == (n**3 - n) / 3


@pytest.mark.parametrize(('parent', 'labels'), list(random_trees()))
def test_cost(parent, labels):
  n = len(labels)
  w = np.random.default_rng(3).uniform(size=(n, n))
  w = w + w.T
  cost = total = 0
  for i, j in itertools.combinations(range(n), 2):
    node = trees.common_ancestor(parent, i, j)
    cost += w[i, j] * len(trees.below(parent, node, n))
    total += w[i, j]
  assert dasgupta_cost(parent, w) == pytest.approx(cost, rel=1e-12)
  found = dasgupta_cost(parent, w, normalise=True)
  assert found == pytest.approx(cost / (n * total), rel=1e-12)


@pytest.mark.parametrize(('parent', 'labels'), list(random_trees()))
def test_taxonomic_cost(parent, labels):
  w = TAXONOMY.common_levels(labels[:, None], labels) / 3
  found = taxonomic_cost(parent, labels, TAXONOMY)
  if not np.triu(w, 1).any():
    assert math.isnan(found)
    return
  expected = dasgupta_cost(parent, w, normalise=True)
  assert found == pytest.approx(expected, rel=1e-12)


# ---- common ancestors -------------------------------------------------------


def test_triples_by_hand():
  # Items a, a, b of one group and another c; the tree joins a with b first.
  labels = [0, 0, 1, 4]
  parent = [4, 5, 4, 6, 5, 6, -1]
  # By the taxonomy aa > ab > ac; the tree has a1b > a1a2 = a2b > c. Anchored at
  # a1: (a2 b) wrong, (a2 c) (b c) right; at a2: (a1 b) tied, two right; at b:
  # (a1 c) (a2 c) right, (a1 a2) no triple; at c none.
  found = lca_agreement(parent, labels, TAXONOMY)
  assert found.triplets == pytest.approx(6 / 8)
  assert found.tied == pytest.approx(1 / 8)


@pytest.mark.parametrize(('parent', 'labels'), list(random_trees()))
@pytest.mark.parametrize('own_depth', [False, True])
def test_lca_agreement(parent, labels, own_depth):
  n = len(labels)
  depth = [len(trees.way_up(parent, x)) - 1 for x in range(len(parent))]
  node_depth = depth
  if own_depth:
    node_depth = np.random.default_rng(4).normal(size=len(parent))
  both = list(itertools.combinations(range(n), 2))
  learned = [node_depth[trees.common_ancestor(parent, i, j)] for i, j in both]
  known = [lca_depth(labels[i], labels[j]) for i, j in both]
  right = tied = total = 0
  for i, j, k in itertools.permutations(range(n), 3):
    if lca_depth(labels[i], labels[j]) > lca_depth(labels[i], labels[k]):
      a = depth[trees.common_ancestor(parent, i, j)]
      b = depth[trees.common_ancestor(parent, i, k)]
      right, tied, total = right + (a > b), tied + (a == b), total + 1
  found = lca_agreement(
    parent, labels, TAXONOMY, node_depth=node_depth if own_depth else None
  )
  expected = pearson(average_ranks(learned), average_ranks(known))
  assert found.spearman == pytest.approx(expected, rel=1e-9, nan_ok=True)
  expected = kendall(learned, known)
  assert found.kendall == pytest.approx(expected, rel=1e-9, nan_ok=True)
  if total:
    assert found[2:] == pytest.approx((right / total, tied / total))
  else:
    assert np.isnan(found[2:]).all()


def test_lca_agreement_of_the_taxonomy_itself():
  found = lca_agreement(TAXONOMY.parents(), TAXONOMY.classes, TAXONOMY)
  assert found == pytest.approx((1, 1, 1, 0))
  # Binary, so that it cannot be right everywhere: but no triple is wrong.
  far = TAXONOMY.distance(np.arange(9)[:, None], np.arange(9))
  binary = parents_of_linkage(linkage(far[np.triu_indices(9, 1)], 'average'))
  found = lca_agreement(binary, TAXONOMY.classes, TAXONOMY)
  assert found.triplets == 1


def test_lca_agreement_of_a_sample():
  rng = np.random.default_rng(5)
  labels = np.sort(rng.integers(0, 9, 400))
  x = labels + rng.normal(size=400)
  parent = parents_of_linkage(linkage(x[:, None], 'average'))
  exact = lca_agreement(parent, labels, TAXONOMY)
  sample = [
    lca_agreement(
      parent, labels, TAXONOMY, max_pairs=20_000, max_anchors=100, seed=seed
    )
    for seed in (0, 0, 1)
  ]
  assert sample[0] == sample[1] != sample[2]
  for found in sample:
    np.testing.assert_allclose(found, exact, atol=0.04)


# ---- inner nodes ------------------------------------------------------------


@pytest.mark.parametrize(('parent', 'labels'), list(random_trees()))
def test_node_purity(parent, labels):
  n = len(labels)
  found = node_purity(parent, labels, TAXONOMY)
  total, weight = np.zeros(3), 0
  for row, node in enumerate(range(n, len(parent))):
    items = trees.below(parent, node, n)
    assert found.size[row] == len(items)
    nodes = TAXONOMY.path[labels[items]].T.tolist()
    shares = [max(map(x.count, x)) / len(x) for x in nodes]
    np.testing.assert_allclose(found.purity[row], shares)
    if parent[node] >= 0:
      total, weight = total + len(items) * np.array(shares), weight + len(items)
  if weight:
    np.testing.assert_allclose(found.mean_purity, total / weight)
  held = [list(parent[:n]).count(x) / n for x in set(parent[:n])]
  assert found.num_used == len(held)
  entropy = -sum(p * math.log(p) for p in held)
  assert found.perplexity == pytest.approx(math.exp(entropy))


def test_node_purity_of_a_star_is_that_of_its_root():
  found = node_purity([4, 4, 4, 4, -1], [0, 0, 1, 4], TAXONOMY)
  np.testing.assert_allclose(found.mean_purity, [3 / 4, 3 / 4, 1 / 2])
  assert (found.num_used, found.perplexity) == (1, 1)


# ---- helpers and bad input --------------------------------------------------


def test_pairs():
  rng = np.random.default_rng(6)
  i, j = pairs(5, 10, rng)
  expected = list(itertools.combinations(range(5), 2))
  assert list(zip(i, j, strict=True)) == expected
  i, j = pairs(5, 9, rng)
  assert len(i) == 9
  i, j = pairs(50, 1000, rng)
  assert (i < j).all() and i.min() == 0 and j.max() == 49


def test_spearman():
  rng = np.random.default_rng(7)
  x, y = rng.integers(0, 5, (2, 40))
  expected = pearson(average_ranks(x), average_ranks(y))
  assert spearman(x, y) == pytest.approx(expected)
  assert math.isnan(spearman(x, np.ones(40)))
  assert math.isnan(spearman(x[:1], y[:1]))


TREE = [4, 4, 5, 5, 6, 6, -1]
W = np.ones((4, 4))


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: dendrogram_purity(TREE, [0, 1, 2, 3]), 'none of the 4 classes'),
    (lambda: dendrogram_purity(TREE, [0] * 5), '1 items with children: node 4'),
    (lambda: dendrogram_purity(TREE, []), r'`labels` has shape \(0,\)'),
    (lambda: dasgupta_cost(TREE, W[:3]), r'shape \(3, 4\)'),
    (lambda: dasgupta_cost(TREE, W[:2, :2]), '2 nodes without children'),
    (lambda: dasgupta_cost(TREE, -W), '16 of 16 entries that are neg'),
    (lambda: dasgupta_cost(TREE, W + np.triu(W)), '12 of 16 entries'),
    (lambda: dasgupta_cost(TREE, W * np.nan), '16 of 16 entries'),
    (lambda: dasgupta_cost(TREE, 0 * W, normalise=True), 'is 0 for all pairs'),
    (
      lambda: lca_agreement(TREE, [0, 0, 1, 99], TAXONOMY),
      "holds 1 class: '99'",
    ),
    (
      lambda: lca_agreement(TREE, [0] * 4, TAXONOMY, node_depth=[1, 2]),
      r'`node_depth` has shape \(2,\); expected .* 7 nodes',
    ),
    (lambda: node_purity([4, 4, 4, 4, 4], [0] * 4, TAXONOMY), '0 roots'),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(UserError, match=message):
    call()


def test_a_tree_laid_out_before_serves_too():
  tree = Dendrogram.from_parent(TREE, 4)
  labels = [0, 0, 1, 4]
  assert dendrogram_purity(tree, labels) == dendrogram_purity(TREE, labels)
