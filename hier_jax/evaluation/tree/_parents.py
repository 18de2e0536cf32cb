"""Trees as the parent of each node: items first, -1 for the root."""

import numpy as np

from hier_jax.errors import UserError, listed


def parents_of_linkage(linkage) -> np.ndarray:
  """A linkage matrix of SciPy `[n - 1, 4]` as parents of nodes `[2n - 1]`."""
  linkage = np.asarray(linkage)
  if linkage.ndim != 2 or linkage.shape[1] != 4 or not len(linkage):
    raise UserError(
      f'`linkage` has shape {linkage.shape}; expected [items - 1, 4], as '
      'scipy.cluster.hierarchy.linkage returns it'
    )
  num_items = len(linkage) + 1
  parent = np.full(num_items + len(linkage), -1, np.int64)
  made = np.arange(num_items, len(parent))
  parent[linkage[:, :2].astype(np.int64)] = made[:, None]
  return parent


def integers(parent) -> np.ndarray:
  """The parents as int64 `[nodes]`.

  Raises:
    UserError: they are no integers, or not of one dimension.
  """
  parent = np.asarray(parent)
  if parent.ndim != 1 or parent.dtype.kind not in 'iu':
    raise UserError(
      f'the tree is {parent.dtype} {parent.shape}; expected the parent of each '
      'node, integers [nodes]'
    )
  return parent.astype(np.int64)


def check_parents(parent, num_items: int) -> np.ndarray:
  """The parents as int64, where they make a tree over the items.

  Raises:
    UserError: not one root; nodes of no such number; items with children or
      other nodes without; nodes that are their own ancestors.
  """
  parent = integers(parent)
  if not 1 <= num_items <= len(parent):
    raise UserError(
      f'the tree has {len(parent)} nodes; expected its {num_items} items among '
      'them, one at least'
    )
  roots = np.flatnonzero(parent == -1)
  if len(roots) != 1:
    raise UserError(
      f'the tree has {len(roots)} roots (parent -1){_listed(roots, ": ")}; '
      'expected 1: join several under one node'
    )
  bad = np.flatnonzero((parent < -1) | (parent >= len(parent)))
  if len(bad):
    raise UserError(
      f'the tree has {len(bad)} nodes whose parent is none of the '
      f'{len(parent)}: {_listed(bad)}'
    )
  is_inner = np.zeros(len(parent), bool)
  is_inner[parent[parent >= 0]] = True
  if len(bad := np.flatnonzero(is_inner[:num_items])):
    raise UserError(
      f'the tree has {len(bad)} items with children: {_listed(bad)}; expected '
      f'the {num_items} items to be nodes 0 to {num_items - 1}'
    )
  if len(bad := num_items + np.flatnonzero(~is_inner[num_items:])):
    raise UserError(
      f'the tree has {len(bad)} nodes without children beside the {num_items} '
      f'items: {_listed(bad)}; expected a label for each item, and no inner '
      'node without items: leave these out'
    )
  depths(parent)
  return parent


def depths(parent: np.ndarray) -> np.ndarray:
  """Edges from the root to each node, int64 `[nodes]`.

  Raises:
    UserError: nodes that are their own ancestors.
  """
  depth = (parent >= 0).astype(np.int64)
  above = np.where(parent >= 0, parent, np.arange(len(parent)))
  # Each round doubles the way that is known; none is longer than all nodes.
  for _ in range(len(parent).bit_length()):
    depth = depth + depth[above]
    above = above[above]
  if len(bad := np.flatnonzero(parent[above] >= 0)):
    raise UserError(
      f'the tree has {len(bad)} nodes that never reach the root: '
      f'{_listed(bad)}; expected no cycle'
    )
  return depth


def highest(parent: np.ndarray, is_open: np.ndarray) -> np.ndarray:
  """The highest node at or above each that is below none but open ones.

  Args:
    parent: of each node `[nodes]`, -1 of the root.
    is_open: `[nodes]` bool; the nodes above an open one are open.

  Returns:
    int64 `[nodes]`; an open node's is itself.
  """
  ends = (parent < 0) | is_open[parent] | is_open
  up = np.where(ends, np.arange(len(parent)), parent)
  # In doubling steps, as in `depths`.
  for _ in range(len(parent).bit_length()):
    up = up[up]
  return up


def _listed(nodes: np.ndarray, before: str = '') -> str:
  if len(nodes) == 0:
    return ''
  return f'{before}node {listed(nodes)}'
