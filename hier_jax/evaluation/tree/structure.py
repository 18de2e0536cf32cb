"""A tree over items with what is known of its nodes."""

import re
from typing import NamedTuple

import numpy as np

from hier_jax.errors import UserError
from hier_jax.evaluation.tree.dendrogram import Dendrogram

# Control characters, halves of surrogate pairs and what XML forbids: not every
# format can hold them.
_UNWRITABLE = re.compile('[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]')
_FIELDS = {
  'proxy': np.int32,
  'radius': np.float64,
  'height': np.float64,
  'length': np.float64,
}


class Tree(NamedTuple):
  """A rooted tree whose leaves are items.

  Nodes 0 to n - 1 are the leaves, in the order of the items; those after them
  have children. In the trees made here every node comes before its parent, so
  that the root is last.

  Attributes:
    parent: int32 `[nodes]`, -1 for the root.
    names: of the n leaves, or None.
    proxy: int32 `[nodes]`, the row of the proxy that a node is, -1 where it is
      none; or None.
    radius: float64 `[nodes]`, distance to the origin; or None.
    height: float64 `[nodes]`, the dissimilarity at which a node was merged, 0
      for leaves; or None.
    length: float64 `[nodes]`, of the edge to the parent, 0 for the root; or
      None.
  """

  parent: np.ndarray
  names: tuple[str, ...] | None = None
  proxy: np.ndarray | None = None
  radius: np.ndarray | None = None
  height: np.ndarray | None = None
  length: np.ndarray | None = None

  @property
  def num_leaves(self) -> int:
    """n, how many nodes have no child."""
    return len(self.parent) - len(np.unique(self.parent[self.parent >= 0]))


def check_tree(tree: Tree) -> Tree:
  """The tree with its fields in their dtypes.

  Raises:
    UserError: not one root, a cycle, leaves that are not the first nodes (see
      `dendrogram.Dendrogram`), a field of another length than `parent`, NaN or
      Inf, names that no file can hold.
  """
  parent = np.atleast_1d(np.asarray(tree.parent))
  n = tree._replace(parent=parent).num_leaves
  parent = Dendrogram.from_parent(parent, n).parent.astype(np.int32)
  fields = {
    name: _field(name, getattr(tree, name), len(parent)) for name in _FIELDS
  }
  return Tree(parent, leaf_names(tree.names, n), **fields)


def contract(tree: Tree) -> Tree:
  """Leaves out the nodes that have a single child, which takes their place.

  Lengths of edges add up. Every internal node that is left has two children or
  more, and the groups of leaves are the same.

  Returns:
    A tree of the same leaves, its nodes in the order of the given one.
  """
  size = len(tree.parent)
  children = np.bincount(tree.parent[tree.parent >= 0], minlength=size)
  kept = children != 1
  # Beyond the root is one more node, its own parent. Each node that goes is a
  # step towards the nearest ancestor that stays.
  above = np.where(tree.parent < 0, size, tree.parent)
  length = np.zeros(size) if tree.length is None else tree.length
  up = np.append(np.where(kept, np.arange(size), above), size)
  way = np.append(np.where(kept, 0, length), 0)
  # In doubling steps: a chain of n nodes takes log n of them.
  for _ in range(size.bit_length()):
    way, up = way + way[up], up[up]
  number = np.append(np.cumsum(kept) - 1, -1)
  parent = number[up[above]].astype(np.int32)
  if tree.length is not None:
    length = np.where(parent < 0, 0, length + way[above])
    tree = tree._replace(length=length)
  fields = {name: getattr(tree, name) for name in _FIELDS}
  fields = {k: None if v is None else v[kept] for k, v in fields.items()}
  return Tree(parent[kept], tree.names, **fields)


def leaf_names(names, length: int) -> tuple[str, ...] | None:
  """Names as a tuple of `length` strings; None for None.

  Raises:
    UserError: another number of names, characters that no file can hold.
  """
  if names is None:
    return None
  names = tuple(map(str, names))
  if len(names) != length:
    raise UserError(f'`names` has {len(names)} entries; expected {length}')
  for i, name in enumerate(names):
    if _UNWRITABLE.search(name):
      raise UserError(
        f'name {i} is {name!r}; expected text without control characters: '
        'replace them'
      )
  return names


def _field(name, values, size):
  """An optional field of a tree as an array `[size]`."""
  if values is None:
    return None
  values = np.asarray(values)
  if values.shape != (size,):
    raise UserError(
      f'`{name}` of the tree has shape {values.shape}; expected ({size},), one '
      'a node'
    )
  finite = np.isfinite(values)
  if not finite.all():
    raise UserError(
      f'`{name}` of node {finite.argmin()} is NaN or Inf; expected numbers, or '
      'None for the whole field'
    )
  return values.astype(_FIELDS[name])
