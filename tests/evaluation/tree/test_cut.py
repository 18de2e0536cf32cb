"""Flat clusters of trees against the definitions and SciPy's."""

import numpy as np
import pytest
from scipy.cluster import hierarchy

from hier_jax.errors import UserError
from hier_jax.evaluation.tree.cut import cut_tree
from hier_jax.evaluation.tree.linkage import linkage_tree
from hier_jax.evaluation.tree.structure import Tree
from tests.support import trees

# ((0 1) 2) (3 4 5), and its heights.
PARENT = [6, 6, 7, 8, 8, 8, 7, 9, 9, -1]
HEIGHT = [0, 0, 0, 0, 0, 0, 1.0, 3.0, 2.0, 5.0]


def numbered(clusters):
  """Numbers in the order in which they come first."""
  return [list(dict.fromkeys(clusters)).index(x) for x in clusters]


def test_by_hand():
  tree = Tree(PARENT, height=HEIGHT)
  assert cut_tree(tree, height=5).tolist() == [0] * 6
  assert cut_tree(tree, height=3).tolist() == [0, 0, 0, 1, 1, 1]
  assert cut_tree(tree, height=2.5).tolist() == [0, 0, 1, 2, 2, 2]
  assert cut_tree(tree, height=-1).tolist() == list(range(6))
  assert cut_tree(tree, depth=0).tolist() == [0] * 6
  assert cut_tree(tree, depth=1).tolist() == [0, 0, 0, 1, 1, 1]
  assert cut_tree(tree, depth=2).tolist() == [0, 0, 1, 2, 3, 4]
  assert cut_tree(tree, num_clusters=1).tolist() == [0] * 6
  assert cut_tree(tree, num_clusters=3).tolist() == [0, 0, 1, 2, 2, 2]
  # To open 8 makes two more, and nothing lower is opened before.
  assert cut_tree(tree, num_clusters=4).tolist() == [0, 0, 1, 2, 2, 2]
  assert cut_tree(tree, num_clusters=5).tolist() == [0, 0, 1, 2, 3, 4]
  assert cut_tree(tree, num_clusters=99).tolist() == list(range(6))


def test_without_heights_the_largest_is_opened():
  assert cut_tree(PARENT, num_clusters=2).tolist() == [0, 0, 0, 1, 1, 1]
  # A node with one child is as large as it, and opened before.
  assert cut_tree([2, 2, 3, 4, -1], num_clusters=2).tolist() == [0, 1]


def test_heights_that_fall_towards_the_root():
  tree = Tree([3, 3, 4, 4, -1], height=[0, 0, 0, 7.0, 5.0])
  assert cut_tree(tree, height=6.0).tolist() == [0, 1, 2]
  assert cut_tree(tree, num_clusters=2).tolist() == [0, 0, 1]


@pytest.mark.parametrize('method', ['average', 'single'])
def test_as_scipy(method):
  x = np.random.default_rng(0).normal(size=(40, 3))
  linkage = hierarchy.linkage(x, method)
  tree = linkage_tree(x, c=0, method=method)
  for num in (1, 2, 7, 40):
    expected = hierarchy.fcluster(linkage, num, 'maxclust')
    assert cut_tree(tree, num_clusters=num).tolist() == numbered(expected)
  height = 0.5 * linkage[:, 2].max() + 1e-6
  expected = hierarchy.fcluster(linkage, height, 'distance')
  assert cut_tree(tree, height=height).tolist() == numbered(expected)


@pytest.mark.parametrize(('parent', 'labels'), list(trees.labeled_trees()))
@pytest.mark.parametrize('depth', [1, 2, 4])
def test_depth(parent, labels, depth):
  ways = [trees.way_up(parent, item)[::-1] for item in range(len(labels))]
  expected = numbered([way[: depth + 1][-1] for way in ways])
  assert cut_tree(parent, depth=depth).tolist() == expected


def test_a_long_chain():
  size = 20_000
  inner = size + np.arange(1, size - 1)
  parent = [size, *range(size, 2 * size - 1), *inner, -1]
  found = cut_tree(Tree(parent), num_clusters=3)
  assert found.tolist() == [0] * (size - 2) + [1, 2]


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({}, 'no option given; expected one of num_clusters, height, depth'),
    ({'height': 1.0, 'depth': 2}, 'height and depth given'),
    ({'num_clusters': 0}, '`num_clusters` is 0'),
    ({'depth': -1}, '`depth` is -1'),
    ({'height': float('nan')}, '`height` is nan'),
    ({'height': '2'}, "`height` is '2'; expected a number"),
    ({'height': 1j}, '`height` is 1j'),
    ({'height': 1.0}, 'the tree has no heights'),
  ],
)
def test_bad_input(options, message):
  with pytest.raises(UserError, match=message):
    cut_tree(PARENT, **options)


@pytest.mark.parametrize('parent', [['a'], None, [2.0, 2.0, -1.0], 3, [[1]]])
def test_what_is_no_list_of_parents_is_refused(parent):
  with pytest.raises(UserError, match='expected the parent of each node'):
    cut_tree(parent, depth=1)
