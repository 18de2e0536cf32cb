"""Trees laid out: ancestors and counts against walks up the tree."""

import types
from collections import Counter

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage

from hier_jax.errors import UserError
from hier_jax.evaluation.tree.dendrogram import (
  Dendrogram,
  laid_out,
  parents_of_linkage,
)
from tests.support import trees

#        8
#     7     4
#   5   3
#  0 1 2           6 has one child, 7
PARENT = [5, 5, 5, 7, 8, 7, 8, 6, -1]


def every_tree():
  rng = np.random.default_rng(0)
  yield np.array(PARENT), 5
  yield np.array([-1]), 1
  yield np.array([1, 2, -1]), 1
  yield np.array([3, 3, 3, -1]), 3
  for num_items, num_inner in ((1, 4), (2, 3), (20, 1), (20, 7), (17, 60)):
    yield trees.random_tree(rng, num_items, num_inner), num_items
  for num_items in (2, 3, 16, 33):
    yield trees.binary_tree(rng, num_items), num_items


@pytest.mark.parametrize(('parent', 'n'), list(every_tree()))
def test_layout_and_ancestors(parent, n):
  tree = Dendrogram.from_parent(parent, n)
  ways = [trees.way_up(parent, node) for node in range(len(parent))]
  np.testing.assert_array_equal(tree.depth, [len(way) - 1 for way in ways])
  for node in range(len(parent)):
    items = trees.below(parent, node, n)
    assert tree.size[node] == len(items)
    there = slice(tree.start[node], tree.start[node] + tree.size[node])
    assert sorted(tree.order[there]) == items
  i, j = np.indices((n, n)).reshape(2, -1)
  expected = [
    trees.common_ancestor(parent, a, b) for a, b in zip(i, j, strict=True)
  ]
  np.testing.assert_array_equal(tree.lca(i, j), expected)


@pytest.mark.parametrize(('parent', 'n'), list(every_tree()))
def test_upward_counts(parent, n):
  codes = np.random.default_rng(1).integers(0, 4, n)
  met = {node: Counter() for node in range(len(parent))}
  for i in range(n):
    for j in range(i):
      if codes[i] == codes[j]:
        met[trees.common_ancestor(parent, i, j)][codes[i]] += 1
  seen = []
  for node, held, pairs, most in Dendrogram.from_parent(parent, n).upward(
    codes
  ):
    expected = Counter(codes[trees.below(parent, node, n)].tolist())
    assert held == expected
    assert most == max(expected.values())
    assert pairs == met[node]
    seen.append(node)
  assert sorted(seen) == list(range(n, len(parent)))


def test_long_chain():
  # As deep as it is large: nothing may recurse, or square the nodes.
  n = 20_000
  inner = np.arange(n, 2 * n - 1)
  parent = np.concatenate([[n], inner, inner + 1])
  parent[-1] = -1
  tree = Dendrogram.from_parent(parent, n)
  assert tree.depth[0] == n - 1
  found = tree.lca([0, 5, n - 1], [1, 9, 0])
  np.testing.assert_array_equal(found, [n, n + 8, 2 * n - 2])


def test_linkage():
  points = [[0.0], [1.0], [5.0], [5.5]]
  parent = parents_of_linkage(linkage(points, 'average'))
  np.testing.assert_array_equal(parent, [5, 5, 4, 4, 6, 6, -1])


def test_laid_out_takes_both():
  tree = laid_out(PARENT, 5)
  assert laid_out(tree, 5) is tree
  holder = types.SimpleNamespace(parent=np.array(PARENT))
  np.testing.assert_array_equal(laid_out(holder, 5).start, tree.start)
  with pytest.raises(UserError, match='the tree has 5 items; expected 4'):
    laid_out(tree, 4)


@pytest.mark.parametrize(
  ('parent', 'n', 'message'),
  [
    ([2.0, 2.0, -1.0], 2, r'float64 \(3,\); expected the parent of each node'),
    ([[2, 2, -1]], 2, r'\(1, 3\)'),
    ([-1], 2, 'has 1 nodes; expected its 2 items'),
    ([], 0, r'float64 \(0,\)'),
    ([3, 3, -1, -1], 2, r'has 2 roots \(parent -1\): node 2, 3; expected 1'),
    ([2, 2, 3, 2], 2, 'has 0 roots'),
    ([2, 7, -1, -5], 2, '2 nodes whose parent is none of the 4: node 1, 3'),
    (
      [1, 3, 0, -1],
      2,
      '2 items with children: node 0, 1; expected the 2 items to be nodes 0',
    ),
    (
      [3, 2, -1, 4, 3],
      2,
      '3 nodes that never reach the root: node 0, 3, 4;',
    ),
    ([2, 2, -1, 3], 2, '1 nodes that never reach the root: node 3;'),
    ([2, 2, -1], 1, '1 nodes without children beside the 1 items: node 1;'),
    ([2, 2, -1, 2], 2, '1 nodes without children beside the 2 items: node 3;'),
  ],
)
def test_no_tree(parent, n, message):
  with pytest.raises(UserError, match=message):
    Dendrogram.from_parent(np.array(parent), n)


def test_no_linkage():
  with pytest.raises(UserError, match=r'`linkage` has shape \(3,\)'):
    parents_of_linkage([0, 1, 2])
