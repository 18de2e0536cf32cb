"""The tree over items: its nodes, their ancestors and their properties."""

import dataclasses
import functools
import re
from collections.abc import Iterator

import numpy as np

from hier_jax.errors import UserError
from hier_jax.evaluation.tree import _parents

# Control characters, halves of surrogate pairs and what XML forbids: not every
# format can hold them.
_UNWRITABLE = re.compile('[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff]')
_FIELDS = {
  'proxy': np.int32,
  'radius': np.float64,
  'height': np.float64,
  'length': np.float64,
}


@dataclasses.dataclass(frozen=True, eq=False)
class Tree:
  """A rooted tree whose leaves are items.

  Nodes 0 to n - 1 are the leaves, in the order of the items; all later nodes
  have children, in any order and number. In the trees made by this package,
  every node comes before its parent, so the root is last.

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

  Raises:
    UserError: no root or several, a cycle, leaves that are not the first nodes,
      a field whose length differs from `parent`, NaN or Inf, names that no file
      can hold.

  Example:
    >>> import numpy as np
    >>> from hier_jax import evaluation
    >>> tree = evaluation.Tree(np.array([3, 3, 4, 4, -1]))
    >>> tree.num_leaves, tree.depth.tolist(), tree.lca([0, 0], [1, 2]).tolist()
    (3, [2, 2, 1, 1, 0], [3, 4])
  """

  parent: np.ndarray
  names: tuple[str, ...] | None = None
  proxy: np.ndarray | None = None
  radius: np.ndarray | None = None
  height: np.ndarray | None = None
  length: np.ndarray | None = None

  def __post_init__(self):
    """Checks the fields and brings them to their dtypes."""
    parent = _parents.integers(self.parent)
    n = len(parent) - len(np.unique(parent[parent >= 0]))
    parent = _parents.check_parents(parent, n).astype(np.int32)
    values = {'parent': parent, 'names': leaf_names(self.names, n)}
    for name in _FIELDS:
      values[name] = _field(name, getattr(self, name), len(parent))
    for name, value in values.items():
      # The one way to set a field of a frozen dataclass.
      object.__setattr__(self, name, value)

  @functools.cached_property
  def num_leaves(self) -> int:
    """n, how many nodes have no child."""
    return len(self.parent) - len(np.unique(self.parent[self.parent >= 0]))

  @functools.cached_property
  def depth(self) -> np.ndarray:
    """Edges from the root to each node, int64 `[nodes]`."""
    return _parents.depths(self.parent)

  @functools.cached_property
  def size(self) -> np.ndarray:
    """Leaves below each node, 1 for a leaf, int64 `[nodes]`."""
    above = self.parent.tolist()
    size = [int(node < self.num_leaves) for node in range(len(above))]
    for node in reversed(self._downward[1:]):
      size[above[node]] += size[node]
    return np.array(size)

  @functools.cached_property
  def start(self) -> np.ndarray:
    """Place of the first leaf below each node, int64 `[nodes]`.

    Places are chosen so that the leaves below a node are adjacent.
    """
    above, size = self.parent.tolist(), self.size.tolist()
    # Children stand in a row where their parent's leaves begin.
    start = [0] * len(above)
    free = [0] * len(above)
    for node in self._downward[1:]:
      start[node] = free[node] = free[above[node]]
      free[above[node]] += size[node]
    return np.array(start)

  @functools.cached_property
  def _downward(self) -> list[int]:
    """All nodes, parents before their children."""
    return np.argsort(self.depth, kind='stable').tolist()

  @functools.cached_property
  def order(self) -> np.ndarray:
    """The item at each place, int64 `[n]`."""
    order = np.empty(self.num_leaves, np.int64)
    order[self.start[: self.num_leaves]] = np.arange(self.num_leaves)
    return order

  @functools.cached_property
  def joins(self) -> np.ndarray:
    """Common ancestor of the items at a place and the next, int64 `[n - 1]`."""
    # A node that is not the first child joins its first item to the one before.
    later = np.flatnonzero(self.parent >= 0)
    later = later[self.start[later] > self.start[self.parent[later]]]
    joins = np.empty(self.num_leaves - 1, np.int64)
    joins[self.start[later] - 1] = self.parent[later]
    return joins

  @functools.cached_property
  def _least(self) -> list[np.ndarray]:
    """The least deep of 1, 2, 4, ... neighboring joins, from each place on."""
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
      if node < self.num_leaves:
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


def as_tree(tree, num_items: int) -> Tree:
  """Returns the tree over this number of items.

  Args:
    tree: a `Tree`, or the parent of each node, integers `[nodes]`, -1 the
      root's, with the items first.
    num_items: n.

  Raises:
    UserError: not a tree (see `Tree`), or one over another number of items.
  """
  if not isinstance(tree, Tree):
    return Tree(_parents.check_parents(tree, num_items))
  if tree.num_leaves != num_items:
    raise UserError(
      f'the tree has {tree.num_leaves} items; expected {num_items}, one a label'
    )
  return tree


def contract(tree: Tree) -> Tree:
  """Replaces each node that has a single child by that child.

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
    tree = dataclasses.replace(tree, length=length)
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
