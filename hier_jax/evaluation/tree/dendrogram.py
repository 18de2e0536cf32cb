"""A tree over items, laid out so that its metrics are quick to take.

A tree is the parent of each node, an int array `[num_nodes]`, -1 the root's.
Nodes 0 .. n - 1 are the n items and have no children; all nodes after them
have, in any order and number. Proxies below which no item lies are left out.
"""

import dataclasses
import functools
from collections.abc import Iterator

import numpy as np

from hier_jax.errors import UserError, listed


@dataclasses.dataclass(frozen=True, eq=False)
class Dendrogram:
  """A tree with its items laid out so that those below a node are neighbours.

  Attributes:
    parent: int64 `[N]`.
    depth: int64 `[N]`, edges from the root.
    size: int64 `[N]`, items below each node, 1 for an item.
    start: int64 `[N]`, place of the first of these.
    num_items: n.
  """

  parent: np.ndarray
  depth: np.ndarray
  size: np.ndarray
  start: np.ndarray
  num_items: int

  @classmethod
  def from_parent(cls, parent, num_items: int) -> 'Dendrogram':
    """Checks and lays out a tree.

    Raises:
      UserError: not one root; nodes of no such number; items with children or
        other nodes without; nodes that are their own ancestors.
    """
    parent = _checked(parent, num_items)
    depth = _depths(parent)
    above = parent.tolist()
    downward = np.argsort(depth, kind='stable').tolist()
    size = [int(node < num_items) for node in range(len(above))]
    for node in reversed(downward[1:]):
      size[above[node]] += size[node]
    # Children stand in a row where their parent's items begin.
    start = [0] * len(above)
    free = [0] * len(above)
    for node in downward[1:]:
      start[node] = free[node] = free[above[node]]
      free[above[node]] += size[node]
    return cls(parent, depth, np.array(size), np.array(start), num_items)

  @functools.cached_property
  def order(self) -> np.ndarray:
    """The item at each place, int64 `[n]`."""
    order = np.empty(self.num_items, np.int64)
    order[self.start[: self.num_items]] = np.arange(self.num_items)
    return order

  @functools.cached_property
  def joins(self) -> np.ndarray:
    """Common ancestor of the items at a place and the next, int64 `[n - 1]`."""
    # A node that is not the first child joins its first item to the one before.
    later = np.flatnonzero(self.parent >= 0)
    later = later[self.start[later] > self.start[self.parent[later]]]
    joins = np.empty(self.num_items - 1, np.int64)
    joins[self.start[later] - 1] = self.parent[later]
    return joins

  @functools.cached_property
  def _least(self) -> list[np.ndarray]:
    """The least deep of 1, 2, 4, ... neighbouring joins, from each place on."""
    table = [self.joins]
    while len(table[-1]) > (half := 1 << (len(table) - 1)):
      table.append(self._higher(table[-1][:-half], table[-1][half:]))
    return table

  def _higher(self, a, b):
    return np.where(self.depth[a] <= self.depth[b], a, b)

  def lca(self, a, b) -> np.ndarray:
    """Lowest common ancestor of items `[k]` and `[k]`; a where a = b."""
    a, b = np.asarray(a), np.asarray(b)
    low, high = np.sort([self.start[a], self.start[b]], axis=0)
    # It is the least deep join between the two. Two stretches of a power of 2
    # cover what lies between.
    power = np.frexp(np.maximum(high - low, 1))[1] - 1
    out = a.copy()
    for k, least in enumerate(self._least):
      at = np.flatnonzero((power == k) & (high > low))
      out[at] = self._higher(least[low[at]], least[high[at] - (1 << k)])
    return out

  def upward(
    self, codes: np.ndarray
  ) -> Iterator[tuple[int, dict[int, int], dict[int, int], int]]:
    """Counts the groups below each inner node, deepest first.

    A node's smaller children are counted into its largest, O(n log n) in all.

    Args:
      codes: group of each item `[n]`, int.

    Yields:
      The node; items of each group below it, to be read before the next node;
      pairs of items of each group that have it as their lowest common ancestor;
      items of its largest group.
    """
    held: dict[int, dict[int, int]] = {}
    met: dict[int, dict[int, int]] = {}
    most: dict[int, int] = {}
    groups, above = codes.tolist(), self.parent.tolist()
    for node in np.argsort(-self.depth, kind='stable').tolist():
      if node < self.num_items:
        mine, largest = {groups[node]: 1}, 1
      else:
        mine, largest = held.pop(node), most.pop(node)
        yield node, mine, met.pop(node, {}), largest
      parent = above[node]
      if parent in held:
        joint = met.setdefault(parent, {})
        held[parent], grown = _merge(held[parent], mine, joint)
        most[parent] = max(most[parent], largest, grown)
      else:
        held[parent], most[parent] = mine, largest


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


def laid_out(tree, num_items: int) -> Dendrogram:
  """The tree of parents `[num_nodes]`, laid out where it is not yet.

  Args:
    tree: parents, what has them as its attribute `parent`, or a `Dendrogram`.
    num_items: n.

  Raises:
    UserError: not a tree, or one over another number of items.
  """
  if not isinstance(tree, Dendrogram):
    return Dendrogram.from_parent(getattr(tree, 'parent', tree), num_items)
  if tree.num_items != num_items:
    raise UserError(
      f'the tree has {tree.num_items} items; expected {num_items}, one a label'
    )
  return tree


def _merge(a, b, joint):
  """The counts of both, pairs across them added to `joint`, and the most."""
  if len(a) < len(b):
    a, b = b, a
  most = 0
  for group, count in b.items():
    there = a.get(group, 0)
    if there:
      joint[group] = joint.get(group, 0) + there * count
    a[group] = there + count
    most = max(most, there + count)
  return a, most


def _checked(parent, num_items: int) -> np.ndarray:
  """The parents as int64, where they are numbers of nodes and have one root."""
  parent = np.asarray(parent)
  if parent.ndim != 1 or parent.dtype.kind not in 'iu':
    raise UserError(
      f'the tree is {parent.dtype} {parent.shape}; expected the parent of each '
      'node, integers [nodes]'
    )
  parent = parent.astype(np.int64)
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
  return parent


def _depths(parent: np.ndarray) -> np.ndarray:
  """Edges from the root to each node."""
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


def _listed(nodes: np.ndarray, before: str = '') -> str:
  if len(nodes) == 0:
    return ''
  return f'{before}node {listed(nodes)}'
