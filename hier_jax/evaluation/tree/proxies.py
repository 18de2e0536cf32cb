"""The tree that hierarchical proxies make of items."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks, _distances
from hier_jax.evaluation.retrieval import _spaces
from hier_jax.evaluation.retrieval.lift import lift
from hier_jax.evaluation.tree.structure import Tree, leaf_names

ROOTS = ('auto', 'proxy', 'origin')
# Proxies whose distances to all nodes are held at a time.
_PROXIES = 128
# Pairs of nodes handled at a time: few, so that their rows stay in the cache.
_PAIRS = 2048
# Elements of the matrix in which nearest neighbors are looked for.
_SCORES = 2**23
# Nodes whose distances are held at a time, where each is a pair with itself.
_NODES = 2**15


def proxy_tree(
  embeddings: Float[ArrayLike, 'n d'],
  proxies: Float[ArrayLike, 'P d'],
  *,
  c: float,
  k: int = 1,
  root: str = 'auto',
  names: Sequence[str] | None = None,
) -> Tree:
  """The tree that hierarchical proxies make of items, by the rule of the loss.

  In HIER, the lowest common ancestor (LCA) of nodes i and j is the proxy p with
  the smallest max(d_ip, d_jp). The parent of a node i is the ancestor that this
  rule finds most often for (i, j), with j among the reciprocal k nearest
  neighbors of i; if i has none, for (i, i). At k = 1 this is the nearest proxy
  of i, which is the lowest ancestor that the rule can find for i: it is the LCA
  of i and every j that is nearer to it than i. A larger k requires that i
  shares the ancestor with others, and skips proxies that have fewer descendants
  than i has neighbors.

  A proxy looks for its ancestors only among proxies nearer to the origin, so no
  cycle can arise. An item may have any proxy as its parent, even one farther
  from the origin, such as a proxy on the clip sphere or beyond it: an item is a
  leaf wherever it lies. Proxies without an item below them are left out; nodes
  with one child stay (see `contract`). Ties go to the proxy nearer to the
  origin, then to the lower row.

  Time is O(n P d), and O(n^2 d + n k P) for k > 1. Memory is a few copies of
  the items in float64, and for k > 1 the distances of all to 128 proxies.

  Args:
    embeddings: items `[n, d]`, points of the ball, any floating dtype.
    proxies: proxies `[P, d]`, points of the ball: `poincare.to_ball` of the
      loss's parameters, which are tangent vectors.
    c: the c > 0 of the ball of curvature -c. Proxies on the sphere (c None) or
      in Euclidean space (c = 0) have no height; see `linkage_tree` for them.
    k: number of nearest neighbors, the node itself included, among which
      reciprocal ones are found.
    root: 'proxy' makes the proxy nearest the origin the root. 'origin' makes
      the origin the root and a possible parent of proxies, but not of items: a
      proxy goes below it if it is nearer to the origin than to any proxy closer
      to the origin. 'auto' chooses 'proxy' if every other proxy is at least
      twice as far from the origin as the nearest one; otherwise the center of
      the ball is empty, no proxy is above all others, and it chooses 'origin'.
    names: names of the n items; None for a tree without names.

  Returns:
    A tree with `proxy`, `radius` and `length`, the distance to the parent.

  Raises:
    UserError: rows with NaN or Inf, points outside the ball, wrong shapes,
      unequal dimensions, c not positive and finite, k not from 1 to the number
      of items and of proxies, unknown `root`, wrong `names`.

  References:
    Kim, Jeong and Kwak, HIER, CVPR 2023, arXiv 2212.14258, equation 4.

  Example:
    Nodes 3, 4 and 5 are the proxies 1, 0 and 2; the last is the root.

    >>> from hier_jax import evaluation
    >>> items = [[0.6, 0.0], [0.7, 0.0], [-0.6, 0.0]]
    >>> proxies = [[0.5, 0.0], [-0.5, 0.0], [0.0, 0.01]]
    >>> tree = evaluation.proxy_tree(items, proxies, c=1.0)
    >>> tree.parent.tolist(), tree.proxy.tolist()
    ([4, 4, 3, 5, 5, -1], [-1, -1, -1, 1, 0, 2])
  """
  if root not in ROOTS:
    raise UserError(f'`root` is {root!r}; expected one of {list(ROOTS)}')
  if not (checked := _checks.curvature('c', c)):
    raise UserError(
      f'`c` is {checked}; expected the c > 0 of a ball, where proxies have a '
      "height: elsewhere use linkage_tree with distance 'lca_proxy'"
    )
  c = checked
  items = _spaces.points('embeddings', embeddings, 'hyperbolic', c)
  items = np.asarray(items, np.float64)
  proxies = _checks.points('proxies', proxies, c)
  same_dimensions(items, proxies)
  k = _checks.positive_int('k', k)
  if k > min(len(items), len(proxies)):
    raise UserError(
      f'`k` is {k} for {len(items)} items and {len(proxies)} proxies; expected'
      ' at most the fewer'
    )
  names = leaf_names(names, len(items))
  ranked, rows = _from_the_root(proxies, root, c)
  places = np.arange(len(ranked))
  anywhere = np.full(len(items), len(ranked))
  # From the clip sphere the origin is nearer than almost any trained proxy: if
  # items could have it for their parent, the tree would be a star.
  first = int(rows[0] < 0)
  of_items = _parents(items, ranked, (first, anywhere), k, c)
  of_ranked = _parents(ranked, ranked, (0, places), k, c)
  return _number(items, ranked, (of_items, of_ranked), rows, names, c)


def same_dimensions(embeddings, proxies):
  """Raises `UserError` where `[n, d]` and `[P, d]` differ in d."""
  if embeddings.shape[1] != proxies.shape[1]:
    raise UserError(
      f'`proxies` has {proxies.shape[1]} dimensions and `embeddings`'
      f' {embeddings.shape[1]}; expected the same: take both from one model'
    )


def _radius(x, c):
  """Distances to the origin `[n]`."""
  return _apart(x, np.zeros((1, x.shape[1])), np.zeros(len(x), int), c)


def _apart(x, y, rows, c):
  """Distances `[n]` between each row of x and its row of y, `y[rows]`."""
  far = np.empty(len(x))
  for start in range(0, len(x), _PAIRS):
    part = slice(start, start + _PAIRS)
    far[part] = _distances.paired(x[part], y[rows[part]], 'hyperbolic', c)
  return far


def _from_the_root(proxies, root, c):
  """Ancestors `[P, d]` or `[P + 1, d]`, the root first, and their rows.

  The row of the origin is -1.
  """
  radius = _radius(proxies, c)
  rows = np.argsort(radius, kind='stable')
  ranked = proxies[rows]
  if root == 'auto':
    nearest, *others = radius[rows]
    root = 'proxy' if 2 * nearest <= min(others, default=np.inf) else 'origin'
  if root == 'proxy':
    return ranked, rows
  return np.vstack([np.zeros_like(ranked[:1]), ranked]), np.append(-1, rows)


def _parents(nodes, ranked, among, k, c):
  """The parent of each node, by the votes of its pairs.

  Args:
    nodes: `[n, d]`.
    ranked: ancestors `[P, d]`, the root first.
    among: first and limit `[n]`: `ranked[first:limit]` are the ancestors to
      choose from for a node.
    k: see `proxy_tree`.
    c: curvature.

  Returns:
    int64 `[n]`, places in `ranked`; -1 where there is no ancestor.
  """
  first, limit = among
  if k == 1:
    return _nearest(nodes, ranked, among, c)
  pairs = _reciprocal_pairs(nodes, k, c)
  pick, far = _ancestors(nodes, ranked, pairs, (first, limit[pairs[0]]), c)
  base = len(ranked) + 1
  vote, where, count = np.unique(
    pairs[0] * base + pick + 1, return_inverse=True, return_counts=True
  )
  closest = np.full(len(vote), np.inf)
  np.minimum.at(closest, where, far)
  # Of ancestors found equally often that of the closest pair wins.
  vote = vote[np.lexsort((vote, closest, -count, vote // base))]
  _, best = np.unique(vote // base, return_index=True)
  return vote[best] % base - 1


def _nearest(nodes, ranked, among, c):
  """`_parents` where each node is its own only neighbor."""
  first, limit = among
  found = []
  for start in range(0, len(nodes), _NODES):
    part = slice(start, start + _NODES)
    row = np.arange(len(nodes[part]))
    some = _ancestors(nodes[part], ranked, (row, row), (first, limit[part]), c)
    found.append(some[0])
  return np.concatenate(found)


def _reciprocal_pairs(nodes, k, c):
  """Nodes i and their reciprocal neighbors j, two arrays int64 `[pairs]`.

  j is a reciprocal neighbor of i where each is among the k nearest of the
  other, itself included. A node without any is paired with itself.
  """
  n = len(nodes)
  row = np.arange(n)
  queries, gallery = lift(nodes, nodes, c=c)
  nearest = np.empty((n, k), np.int64)
  for rows in np.array_split(row, 1 + n * n // _SCORES):
    far = -(queries[rows] @ gallery.T)
    nearest[rows] = np.argpartition(far, k - 1, axis=1)[:, :k]
  forth, back = row[:, None] * n + nearest, nearest * n + row[:, None]
  mutual = np.isin(forth, back) & (nearest != row[:, None])
  alone = row[~mutual.any(1)]
  return (
    np.append(np.nonzero(mutual)[0], alone),
    np.append(nearest[mutual], alone),
  )


def _ancestors(nodes, ranked, pairs, among, c):
  """The proxy p with the smallest max(d_ip, d_jp) of each pair i, j.

  Args:
    nodes: `[n, d]`.
    ranked: ancestors `[P, d]`.
    pairs: i and j, both int `[pairs]`.
    among: first and limit `[pairs]`: p is in `ranked[first:limit]`.
    c: curvature.

  Returns:
    p as int64 `[pairs]`, -1 where there is none, and that maximum `[pairs]`.
  """
  first, limit = among
  pick, least = np.full(len(limit), -1), np.full(len(limit), np.inf)
  for start in range(first, len(ranked), _PROXIES):
    block = ranked[start : start + _PROXIES]
    dist = _distances.Gallery(block, 'hyperbolic', c).distances(nodes)
    place = start + np.arange(len(block))
    for begin in range(0, len(limit), _PAIRS):
      rows = slice(begin, begin + _PAIRS)
      far = np.maximum(*(dist[node[rows]] for node in pairs))
      far[place >= limit[rows, None]] = np.inf
      best = far.argmin(1)
      value = np.take_along_axis(far, best[:, None], 1)[:, 0]
      nearer = value < least[rows]
      pick[rows] = np.where(nearer, start + best, pick[rows])
      least[rows] = np.where(nearer, value, least[rows])
  return pick, least


def _number(items, ranked, above, rows, names, c):
  """The tree: items first, then the ancestors in use, the root last.

  Args:
    items: `[n, d]`.
    ranked: ancestors `[P, d]`, the root first.
    above: places in `ranked` of the parents of items `[n]` and ancestors `[P]`.
    rows: the proxies `[P]` that the ancestors are.
    names: see `Tree`.
    c: curvature.
  """
  of_items, of_ranked = above
  used = np.zeros(len(ranked), bool)
  used[of_items] = True
  for place in range(len(ranked) - 1, 0, -1):
    used[of_ranked[place]] |= used[place]
  inner = np.flatnonzero(used)[::-1]
  above = np.concatenate([of_items, of_ranked[inner]])
  number = np.full(len(ranked), -1)
  number[inner] = len(items) + np.arange(len(inner))
  # A copy of all would be another of the items.
  kinds = (items, of_items), (ranked[inner], of_ranked[inner])
  length = np.concatenate([_apart(x, ranked, up, c) for x, up in kinds])
  radius = np.concatenate([_radius(x, c) for x, _ in kinds])
  return Tree(
    parent=np.where(above < 0, -1, number[above]).astype(np.int32),
    names=names,
    proxy=np.append(np.full(len(items), -1), rows[inner]).astype(np.int32),
    radius=radius,
    length=np.where(above < 0, 0, length),
  )
