"""Common ancestors of trees and of a taxonomy, pair by pair."""

import itertools

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage

from hier_jax.errors import UserError
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree._parents import parents_of_linkage
from hier_jax.evaluation.tree.lca import lca_agreement
from tests.support import correlations, trees

TAXONOMY = Taxonomy.from_levels(
  [[i // 4, i // 2] for i in range(8)] + [[-1, -1]]
)
TREE = [4, 4, 5, 5, 6, 6, -1]


def lca_depth(a, b):
  return int(TAXONOMY.lca_depth(a, b))


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


@pytest.mark.parametrize(('parent', 'labels'), list(trees.labeled_trees()))
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
  expected = correlations.spearman(learned, known)
  assert found.spearman == pytest.approx(expected, rel=1e-9, nan_ok=True)
  expected = correlations.kendall(learned, known)
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


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (
      lambda: lca_agreement(TREE, [0, 0, 1, 99], TAXONOMY),
      "holds 1 class: '99'",
    ),
    (
      lambda: lca_agreement(TREE, [0] * 4, TAXONOMY, node_depth=[1, 2]),
      r'`node_depth` has shape \(2,\); expected .* 7 nodes',
    ),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(UserError, match=message):
    call()
