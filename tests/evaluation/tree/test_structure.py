"""Trees: their fields, and ancestors and counts against walks up the tree."""

import dataclasses
from collections import Counter

import numpy as np
import pytest
from scipy.cluster.hierarchy import linkage

from hier_jax.errors import UserError
from hier_jax.evaluation.tree._parents import parents_of_linkage
from hier_jax.evaluation.tree.structure import Tree, as_tree, contract
from tests.support import trees
from tests.support.planted_trees import groups

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
  tree = as_tree(parent, n)
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
  for node, held, pairs, most in as_tree(parent, n).upward(codes):
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
  tree = as_tree(parent, n)
  assert tree.depth[0] == n - 1
  found = tree.lca([0, 5, n - 1], [1, 9, 0])
  np.testing.assert_array_equal(found, [n, n + 8, 2 * n - 2])


def test_linkage():
  points = [[0.0], [1.0], [5.0], [5.5]]
  parent = parents_of_linkage(linkage(points, 'average'))
  np.testing.assert_array_equal(parent, [5, 5, 4, 4, 6, 6, -1])


def test_a_tree_or_its_parents():
  tree = as_tree(PARENT, 5)
  assert as_tree(tree, 5) is tree
  np.testing.assert_array_equal(Tree(PARENT).start, tree.start)
  with pytest.raises(UserError, match='the tree has 5 items; expected 4'):
    as_tree(tree, 4)


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
def test_parents_of_no_tree(parent, n, message):
  with pytest.raises(UserError, match=message):
    as_tree(np.array(parent), n)


def test_no_linkage():
  with pytest.raises(UserError, match=r'`linkage` has shape \(3,\)'):
    parents_of_linkage([0, 1, 2])


def test_contract_by_hand():
  # 0 and 1 below 3; 2 below 4; 3 alone below 5; 4 and 5 below 6, alone below
  # the root 7.
  tree = Tree(
    np.array([3, 3, 4, 5, 6, 6, 7, -1], np.int32),
    ('a', 'b', 'c'),
    proxy=np.array([-1, -1, -1, 10, 11, 12, 13, 14]),
    radius=np.array([9.0, 9, 9, 8, 7, 6, 5, 0]),
    length=np.array([1.0, 2, 3, 4, 5, 6, 7, 0]),
  )
  small = contract(tree)
  np.testing.assert_array_equal(small.parent, [3, 3, 4, 4, -1])
  np.testing.assert_array_equal(small.proxy, [-1, -1, -1, 10, 13])
  np.testing.assert_array_equal(small.radius, [9, 9, 9, 8, 5])
  np.testing.assert_array_equal(small.length, [1, 2, 8, 10, 0])
  assert small.names == tree.names and small.height is None
  assert groups(small) == {g for g in groups(tree) if len(g) > 1}
  again = contract(small)
  for field in dataclasses.fields(Tree):
    np.testing.assert_array_equal(
      getattr(again, field.name), getattr(small, field.name)
    )


def test_contract_a_chain():
  size = 5000
  parent = np.append(np.arange(1, size), -1)
  tree = contract(Tree(parent, length=np.ones(size)))
  np.testing.assert_array_equal(tree.parent, [-1])
  np.testing.assert_array_equal(tree.length, [0])
  # With a leaf at every step all of it stays.
  leaf_parent = size + np.maximum(np.arange(size) - 1, 0)
  inner = np.append(size + parent[:-2], -1)
  tree = Tree(np.concatenate([leaf_parent, inner]))
  np.testing.assert_array_equal(contract(tree).parent, tree.parent)


def test_fields_have_their_dtypes():
  tree = Tree([2, 2, -1], names=(1, 2), proxy=[-1, -1, 3], height=[0, 0, 1])
  assert tree.parent.dtype == tree.proxy.dtype == np.int32
  assert tree.height.dtype == np.float64
  assert tree.names == ('1', '2') and tree.radius is None
  assert Tree(np.array([-1])).num_leaves == 1


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'parent': [2, 2, 2]}, 'roots'),
    ({'parent': [-1, -1]}, 'roots'),
    ({'parent': [3, 3, 5, 4, 3, -1]}, 'cycle'),
    ({'parent': [2, 2, 7, -1]}, 'parent'),
    ({'parent': [-1, 0]}, 'child'),
    ({'parent': [2.0, 2.0, -1.0]}, 'float64'),
    ({'parent': [[2, 2, -1]]}, r'\(1, 3\)'),
    ({'radius': [1.0, 2.0]}, r'`radius` of .* \(2,\)'),
    ({'length': [1.0, np.nan, 0]}, '`length` of node 1 is NaN'),
    ({'names': ['a']}, '`names` has 1 entries; expected 2'),
    ({'names': ['a', 'b\0']}, 'name 1 is'),
  ],
)
def test_no_tree(fields, message):
  with pytest.raises(UserError, match=message):
    Tree(**{'parent': [2, 2, -1], **fields})
