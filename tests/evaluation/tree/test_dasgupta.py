"""Dasgupta's cost against the definition, pair by pair."""

import itertools
import math

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.dasgupta import dasgupta_cost, taxonomic_cost
from tests.support import trees

TAXONOMY = Taxonomy.from_levels(
  [[i // 4, i // 2] for i in range(8)] + [[-1, -1]]
)
TREE = [4, 4, 5, 5, 6, 6, -1]
W = np.ones((4, 4))


def test_cost_by_hand():
  # The path a - b - c: cutting at an end costs 3 + 2, together 3 + 3.
  w = np.array([[0, 1, 0], [1, 0, 1], [0, 1, 0]])
  assert dasgupta_cost([3, 3, 4, 4, -1], w) == 2 + 3
  assert dasgupta_cost([3, 3, 3, -1], w) == 3 + 3
  assert dasgupta_cost([3, 3, 3, -1], w, normalize=True) == 1
  assert dasgupta_cost([3, 3, 4, 4, -1], w, normalize=True) == 5 / 6


@pytest.mark.parametrize('n', [2, 3, 7, 12])
def test_cost_of_a_clique_is_that_of_any_binary_tree(n):
  # Dasgupta 2016, section 4.1.
  parent = trees.binary_tree(np.random.default_rng(n), n)
  assert dasgupta_cost(parent, np.ones((n, n))) == (n**3 - n) / 3


@pytest.mark.parametrize(('parent', 'labels'), list(trees.labeled_trees()))
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
  found = dasgupta_cost(parent, w, normalize=True)
  assert found == pytest.approx(cost / (n * total), rel=1e-12)


@pytest.mark.parametrize(('parent', 'labels'), list(trees.labeled_trees()))
def test_taxonomic_cost(parent, labels):
  w = TAXONOMY.common_levels(labels[:, None], labels) / 3
  found = taxonomic_cost(parent, labels, TAXONOMY)
  if not np.triu(w, 1).any():
    assert math.isnan(found)
    return
  expected = dasgupta_cost(parent, w, normalize=True)
  assert found == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: dasgupta_cost(TREE, W[:3]), r'shape \(3, 4\)'),
    (lambda: dasgupta_cost(TREE, W[:2, :2]), '2 nodes without children'),
    (lambda: dasgupta_cost(TREE, -W), '16 of 16 entries that are neg'),
    (lambda: dasgupta_cost(TREE, W + np.triu(W)), '12 of 16 entries'),
    (lambda: dasgupta_cost(TREE, W * np.nan), '16 of 16 entries'),
    (lambda: dasgupta_cost(TREE, 0 * W, normalize=True), 'is 0 for all pairs'),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(UserError, match=message):
    call()
