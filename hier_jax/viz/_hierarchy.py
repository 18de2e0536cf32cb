"""The tree that the page shows, its order and what its nodes are called."""

import dataclasses

import numpy as np
from scipy.cluster import vq

from hier_jax.errors import UserError
from hier_jax.evaluation import _distances
from hier_jax.evaluation.centroids import class_centroids
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.retrieval import _spaces
from hier_jax.evaluation.tree.linkage import linkage_tree
from hier_jax.evaluation.tree.proxies import proxy_tree

SOURCES = ('auto', 'proxies', 'linkage')
# Items without labels that are clustered one by one; of more, groups.
_ITEMS, _GROUPS = 2_000, 500


@dataclasses.dataclass(frozen=True, eq=False)
class Hierarchy:
  """A tree over n items, nodes 0 to n - 1; no nodes where there are no items.

  Attributes:
    parent: int32 `[nodes]`, -1 for the root.
    proxy: int32 `[nodes]`, row of the proxy that a node is, -1 for none.
    points: float64 `[nodes, d]` of the items' space, NaN where a node has none.
    note: where the tree comes from, for people.
    order: int32 `[n]`, the item at each place; those below a node are
      neighbors.
    start: int32 `[nodes]`, place of the first item below a node.
    size: int32 `[nodes]`, how many items lie below a node.
  """

  parent: np.ndarray
  proxy: np.ndarray
  points: np.ndarray
  note: str
  order: np.ndarray
  start: np.ndarray
  size: np.ndarray

  def leaves(self, node: int) -> np.ndarray:
    """The items below a node."""
    first = self.start[node]
    return self.order[first : first + self.size[node]]


def hierarchy(collection: Collection, source: str | Hierarchy) -> Hierarchy:
  """The tree of a collection.

  Items that have the same parent are ordered by class, and classes by what lies
  above them.

  Args:
    collection: with checked embeddings.
    source: one of `SOURCES`; or a tree of it, which is returned.

  Raises:
    UserError: proxies are asked for where there are none.
  """
  if isinstance(source, Hierarchy):
    return source
  if source not in SOURCES:
    raise UserError(
      f'the source of the tree is {source!r}; expected one of {list(SOURCES)}'
    )
  usable = collection.proxies is not None and bool(collection.c)
  if source == 'proxies' and not usable:
    raise UserError(
      'there are no hierarchical proxies in a ball to make a tree of: expected'
      ' a run with config.loss.hier and c > 0, or the tree by linkage'
    )
  if len(collection.embeddings) < 2:
    parent, proxy, points, note = _star(collection)
  elif usable and source != 'linkage':
    parent, proxy, points, note = _of_proxies(collection)
  else:
    parent, proxy, points, note = _of_linkage(collection)
    if source == 'auto':
      note = f'There are no hierarchical proxies, so this is {note}'
    note = note[0].upper() + note[1:]
  n = len(collection.embeddings)
  order, start, size = _ordered(parent, n, _rank(levels(collection), n))
  return Hierarchy(
    parent.astype(np.int32), proxy.astype(np.int32), points, note,
    order, start, size,
  )  # fmt: skip


def _star(collection):
  """No node for no item; one node above one item."""
  x = np.asarray(collection.embeddings, np.float64)
  if not len(x):
    return np.zeros(0), np.zeros(0), x, 'There are no images.'
  points = np.vstack([x, np.full_like(x, np.nan)])
  return np.array([1, -1]), np.full(2, -1), points, 'There is one image.'


def _of_proxies(collection):
  x = np.asarray(collection.embeddings).astype(np.float64)
  proxies = np.asarray(collection.proxies).astype(np.float64)
  tree = proxy_tree(x, proxies, c=collection.c)
  assert tree.proxy is not None
  rows = tree.proxy[len(x) :]
  # Where a node above the proxies is none of them, it is the origin.
  inner = np.where(rows[:, None] < 0, 0.0, proxies[rows])
  used, all_ = int((rows >= 0).sum()), len(proxies)
  note = (
    f'The tree of the hierarchical proxies, by the rule of the loss: {used} of'
    f' {all_} proxies have images below them.'
  )
  return tree.parent, tree.proxy, np.vstack([x, inner]), note


def _of_linkage(collection):
  # Not average linkage: in the ball, where all items lie about as far out, it
  # makes chains of a hundred nodes, in which nobody finds anything.
  x = np.asarray(collection.embeddings).astype(np.float64)
  centers, group, note = _groups(collection, x)
  c = collection.c
  n, num = len(x), len(centers)
  above = (
    linkage_tree(centers, c=c, method='complete').parent
    if num > 1
    else np.array([-1], np.int32)
  )
  if group is None:
    parent = above
    known = x
  else:
    parent = np.concatenate([n + group, np.where(above < 0, -1, n + above)])
    known = np.vstack([x, centers])
  points = np.full((len(parent), x.shape[1]), np.nan)
  points[: len(known)] = known
  return parent, np.full(len(parent), -1), points, note


def _groups(collection, x):
  """What is clustered: centers, the group of each item or None, a note."""
  c = collection.c
  if collection.labels is not None:
    centers, _ = class_centroids(x, collection.labels, c=c)
    _, group = np.unique(collection.labels, return_inverse=True)
    return centers, group, 'complete linkage of the centroids of the classes.'
  if len(x) <= _ITEMS:
    return x, None, 'complete linkage of the images.'
  rows = _distances.normalize(x) if c is None else x
  _, group = vq.kmeans2(rows, _GROUPS, minit='points', seed=0)
  centers, _ = class_centroids(x, group, c=c)
  _, group = np.unique(group, return_inverse=True)
  return centers, group, (
    f'complete linkage of {len(centers)} groups of images, made by k-means.'
  )  # fmt: skip


def _ordered(parent, n, rank):
  """`Hierarchy.order`, `.start` and `.size`.

  Below each node its own items come first, by rank, then its other children by
  the mean rank of their items.
  """
  parent = parent.astype(np.int64)
  nodes = len(parent)
  size, total = np.zeros(nodes, np.int64), np.zeros(nodes)
  size[:n], total[:n] = 1, rank
  upward = _upward(parent)
  for node in upward:
    if (above := parent[node]) >= 0:
      size[above] += size[node]
      total[above] += total[node]
  mean = total / np.maximum(size, 1)
  start, free = np.zeros(nodes, np.int64), np.zeros(nodes, np.int64)
  kind = np.arange(nodes) >= n
  # Parents first, and the children of each in their order.
  place = np.empty(nodes, np.int64)
  place[upward[::-1]] = np.arange(nodes)
  siblings = np.lexsort((mean, kind, np.where(parent < 0, -1, place[parent])))
  for node in siblings:
    if (above := parent[node]) >= 0:
      start[node] = free[node] = free[above]
      free[above] += size[node]
  order = np.empty(n, np.int32)
  order[start[:n]] = np.arange(n)
  return order, start.astype(np.int32), size.astype(np.int32)


def _upward(parent):
  """All nodes, children before their parents."""
  depth = np.zeros(len(parent), np.int64)
  above = parent.copy()
  while (above >= 0).any():
    depth += above >= 0
    above = np.where(above >= 0, parent[above], -1)
  return np.argsort(-depth, kind='stable')


def levels(collection):
  """Of each level, coarsest first, names and the code of each item `[n]`."""
  if collection.labels is None:
    return []
  labels, taxonomy = collection.labels, collection.taxonomy
  found = []
  if taxonomy is not None:
    for column in taxonomy.path.T[:-1]:
      nodes, codes = np.unique(column, return_inverse=True)
      names = [taxonomy.node_names[node] for node in nodes]
      found.append((names, codes[labels]))
  found.append((list(collection.classes), labels))
  return found


def level_names(collection) -> list[str]:
  """What the levels are called, coarsest first; none without labels."""
  if collection.labels is None:
    return []
  if collection.taxonomy is None:
    return ['class']
  return [*collection.taxonomy.level_names[:-1], 'class']


def _rank(levels, n):
  """What puts items of one class, subgroup and group beside each other."""
  if not levels or not n:
    return np.arange(n, dtype=float)
  keys = [codes for _, codes in reversed(levels)]
  found = np.empty(n)
  found[np.lexsort(keys)] = np.arange(n)
  return found


def names(tree: Hierarchy, levels) -> tuple[list[str], np.ndarray]:
  """What inner nodes are called: what half of their items are, or more.

  If that is true at no level, a node is called by its two main names at the
  coarsest level.

  Args:
    tree: the tree.
    levels: of each level, coarsest first, the names and the code of each item
      `[n]`.

  Returns:
    Names and shares of the inner nodes. The share is that of the items with
    the (first) name; names are empty where there is no level.
  """
  n = len(tree.order)
  found, shares = [], []
  for node in range(n, len(tree.parent)):
    name, share = '', 0.0
    below = tree.leaves(node)
    for labels, codes in reversed(levels):
      count = np.bincount(codes[below], minlength=2)
      most = np.argsort(-count, kind='stable')[:2]
      name, share = labels[most[0]], count[most[0]] / len(below)
      if share >= 0.5:
        break
      name = ', '.join(labels[i] for i in most)
    found.append(name)
    shares.append(share)
  return found, np.array(shares, np.float32)


def representatives(tree: Hierarchy, c: float | None) -> np.ndarray:
  """The most typical item of each inner node, int32.

  The nearest to the node's own point; where it has none, that of its largest
  child.
  """
  n = len(tree.order)
  distance, c = _spaces.resolve(None, c)
  found = np.full(len(tree.parent), -1, np.int32)
  found[:n] = np.arange(n)
  most = np.zeros(len(tree.parent), np.int64)
  for node in _upward(tree.parent.astype(np.int64)):
    if node >= n and np.isfinite(tree.points[node, 0]) and _named(tree, node):
      below = tree.leaves(node)
      rows = np.broadcast_to(
        tree.points[node], (len(below), len(tree.points[node]))
      )
      far = _distances.paired(tree.points[below], rows, distance, c)
      found[node] = below[far.argmin()]
    above = tree.parent[node]
    if above >= 0 and tree.size[node] > most[above]:
      most[above], found[above] = tree.size[node], found[node]
  return found[n:]


def _named(tree, node):
  """Whether a node's point is its own: the origin is as near to all."""
  return tree.parent[node] >= 0 or tree.proxy[node] >= 0
