"""Purity of the nodes of trees against the definitions, pair by pair."""

import functools
import itertools
import math

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.purity import dendrogram_purity, node_purity
from hier_jax.evaluation.tree.structure import Tree
from tests.support import trees

TAXONOMY = Taxonomy.from_levels(
  [[i // 4, i // 2] for i in range(8)] + [[-1, -1]]
)
TREE = [4, 4, 5, 5, 6, 6, -1]


def purity(parent, labels):
  n = len(labels)
  shares = []
  for i, j in itertools.combinations(range(n), 2):
    if labels[i] == labels[j]:
      items = trees.below(parent, trees.common_ancestor(parent, i, j), n)
      shares.append(np.mean(np.asarray(labels)[items] == labels[i]))
  return np.mean(shares) if shares else None


def test_purity_by_hand():
  # ((a b) (a a)) c: pairs of a meet twice at 4 items, 3 of a, once at 2.
  parent = [5, 5, 6, 6, 8, 7, 7, 8, -1]
  found = dendrogram_purity(parent, list('abaac'))
  assert found == (pytest.approx((2 * 3 / 4 + 1) / 3),) * 3
  # One class is pure in any tree, and so is each in a subtree of its own.
  assert dendrogram_purity(parent, list('xxxxx')).value == 1
  assert dendrogram_purity(parent, list('bbddc')).value == 1


@pytest.mark.parametrize(('parent', 'labels'), list(trees.labeled_trees()))
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


@pytest.mark.parametrize(('parent', 'labels'), list(trees.labeled_trees()))
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


SAMPLED = functools.partial(dendrogram_purity, TREE, [0, 0, 1, 1], max_exact=1)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: dendrogram_purity(TREE, [0, 1, 2, 3]), 'none of the 4 classes'),
    (lambda: dendrogram_purity(TREE, [0] * 5), '1 items with children: node 4'),
    (lambda: dendrogram_purity(TREE, []), r'`labels` has shape \(0,\)'),
    (lambda: SAMPLED(confidence=95), '`confidence` is 95'),
    (lambda: SAMPLED(confidence='a'), "`confidence` is 'a'"),
    (lambda: SAMPLED(num_samples=0), '`num_samples` is 0'),
    (lambda: SAMPLED(max_exact=np.nan), '`max_exact` is nan'),
    (lambda: SAMPLED(seed=-1), '`seed` is -1'),
    (lambda: node_purity([4, 4, 4, 4, 4], [0] * 4, TAXONOMY), '0 roots'),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(UserError, match=message):
    call()


def test_a_tree_made_before_serves_too():
  tree = Tree(TREE)
  labels = [0, 0, 1, 4]
  assert dendrogram_purity(tree, labels) == dendrogram_purity(TREE, labels)
