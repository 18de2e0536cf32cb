"""Flat clusters: a tree cut at some height, depth or number of them."""

from __future__ import annotations

import numbers

import numpy as np
from jaxtyping import Int64, Integer
from numpy.typing import ArrayLike

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation.tree import _parents
from hier_jax.evaluation.tree.structure import Tree


def cut_tree(
  tree: Tree | Integer[ArrayLike, ' nodes'],
  *,
  num_clusters: int | None = None,
  height: float | None = None,
  depth: int | None = None,
) -> Int64[np.ndarray, ' n']:
  """Cuts a tree into flat clusters, each the items below one node.

  Exactly one option is given. Time is O(nodes log nodes), without recursion.

  Args:
    tree: a `Tree`, or the parent of each of its nodes, the items first.
    num_clusters: as many clusters as can be had up to this number: of the nodes
      below which all is one cluster yet the highest is opened, then the next,
      as long as no more come of it. In a tree without heights that of most
      items is.
    height: items are together where they meet in a node of this height or less.
    depth: items are together where they meet this many edges below the root or
      deeper.

  Returns:
    The cluster of each item, int64 `[n]`, numbered by their first items.

  Raises:
    UserError: not a tree, no option or several, a number of clusters that is
      not positive, a depth that is negative, a height that is NaN, or one where
      the tree has no heights.

  Example:
    >>> from hier_jax import evaluation
    >>> tree = evaluation.linkage_tree([[0.0], [1.0], [10.0], [13.0]], c=0)
    >>> evaluation.cut_tree(tree, num_clusters=2).tolist()
    [0, 0, 1, 1]
    >>> evaluation.cut_tree(tree, height=2.0).tolist()
    [0, 0, 1, 2]
  """
  if not isinstance(tree, Tree):
    tree = Tree(np.asarray(tree))
  given = {'num_clusters': num_clusters, 'height': height, 'depth': depth}
  named = [name for name, value in given.items() if value is not None]
  if len(named) != 1:
    raise UserError(
      f'{" and ".join(named) or "no option"} given; expected one of'
      f' {", ".join(given)}'
    )
  if num_clusters is not None:
    most = _checks.positive_int('num_clusters', num_clusters)
    is_open = _opened(tree, most)
  elif height is not None:
    height = _checks.real('height', height, lambda x: x == x, 'a number')
    is_open = _heights(tree) > height
  else:
    if not isinstance(depth, numbers.Integral) or depth < 0:
      raise UserError(f'`depth` is {depth!r}; expected an integer of 0 or more')
    is_open = tree.depth < depth
  is_open[: tree.num_leaves] = False
  return _numbered(_parents.highest(tree.parent, is_open)[: tree.num_leaves])


def _heights(tree: Tree) -> np.ndarray:
  """The largest height at or below each node."""
  if tree.height is None:
    raise UserError(
      'the tree has no heights to cut at; expected one of linkage_tree, or '
      '`depth` or `num_clusters`'
    )
  height, above = tree.height.copy(), tree.parent
  below = np.flatnonzero(above >= 0)
  if np.all(height[above[below]] >= height[below]):
    return height
  largest, parents = height.tolist(), above.tolist()
  for node in np.argsort(-tree.depth, kind='stable').tolist()[:-1]:
    parent = parents[node]
    largest[parent] = max(largest[parent], largest[node])
  return np.array(largest)


def _opened(tree: Tree, most: int) -> np.ndarray:
  """Nodes that are no cluster, where there are `most` at the end or fewer."""
  high = tree.size if tree.height is None else _heights(tree)
  children = np.bincount(tree.parent[tree.parent >= 0], minlength=len(high))
  inner = np.arange(tree.num_leaves, len(high))
  # A node is opened after those above it, even where it is as high as they.
  order = inner[np.lexsort((tree.depth[inner], -high[inner]))]
  num = 1 + np.cumsum(children[order] - 1)
  is_open = np.zeros(len(high), bool)
  is_open[order[: np.searchsorted(num, most, side='right')]] = True
  return is_open


def _numbered(cluster: np.ndarray) -> np.ndarray:
  """Numbers in the order in which they come first."""
  _, first, code = np.unique(cluster, return_index=True, return_inverse=True)
  number = np.empty(len(first), np.int64)
  number[np.argsort(first)] = np.arange(len(first))
  return number[code]
