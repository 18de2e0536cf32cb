"""Where the page puts items and nodes on the unit disk."""

import numpy as np

from hier_jax.evaluation.tree._parents import depths
from hier_jax.viz import projection
from hier_jax.viz._hierarchy import Hierarchy

# How wide a node's sector is where it stands, by hyperbolic length over 2 pi;
# the least step from a node to its child, less in a tree deeper than all these
# steps; what an item takes, by hyperbolic area; the longest radius.
_WIDTH, _STEP, _STEPS, _AREA, _LONGEST = 0.3, 0.35, 20, 0.3, 14.0
# float32 tells points from the edge up to here.
_LARGEST = 1 - 1e-6
# 95 % of the items are nearer the center.
_RADIUS = 0.9
# What only takes two directions of many.
_LINEAR = 'pca', 'horopca'
_TITLES = {
  'pca': 'Tangent PCA',
  'horopca': 'HoroPCA',
  'cosne': 'CO-SNE',
  'umap': 'UMAP',
}


def of_tree(tree: Hierarchy) -> np.ndarray:
  """A layout of the tree: sectors by the number of items below.

  A node of m of n items has a sector of 2 pi m / n. It stands where that sector
  is as wide as every other node's, by the hyperbolic metric, so that each part
  of the tree looks alike once it is in the focus. The items of one node fill
  its sector.

  Returns:
    float64 `[nodes, 2]`, of norm below 1.
  """
  n, nodes = len(tree.order), len(tree.parent)
  if not nodes:
    return np.zeros((0, 2))
  angle = 2 * np.pi * (tree.start + tree.size / 2) / n
  own = np.arcsinh(_WIDTH * n / tree.size) - np.arcsinh(_WIDTH)
  radius = np.zeros(nodes)
  step = min(_STEP, _STEP * _STEPS / max(1, depths(tree.parent).max()))
  # Parents before their children: they have more items, or later numbers where
  # a node has one child.
  for node in sorted(range(n, nodes), key=lambda i: (-tree.size[i], -i)):
    if (above := tree.parent[node]) >= 0:
      radius[node] = max(own[node], radius[above] + step)
  radius[:n] = _of_items(tree, radius)
  flat = np.tanh(np.minimum(radius, _LONGEST) / 2)[:, None]
  return flat * np.stack([np.cos(angle), np.sin(angle)], axis=1)


def _of_items(tree, radius):
  """Radii of the items `[n]`: items of a node fill a part of its sector."""
  n = len(tree.order)
  above = tree.parent[:n]
  num = np.bincount(above, minlength=len(tree.parent))[above]
  # A sector of width w at its node has the area w (e^r - 1) within r.
  width = 2 * np.pi * _WIDTH
  # Golden steps spread the items, whatever their number.
  share = (tree.start[:n] * 0.6180339887498949) % 1
  reach = np.log1p(_AREA * (0.5 + share * num) / width)
  return radius[above] + _STEP + reach


def of_points(
  tree: Hierarchy, c: float | None, *, method: str = 'pca', seed: int = 0
) -> tuple[np.ndarray, str]:
  """A projection of items and proxies; other nodes amid their items.

  Two of many dimensions have a small part of the lengths, so that points crowd
  at the origin: after 'pca' and 'horopca' tangent vectors are magnified until
  95 % of the items have norm below .9 on the disk.

  Args:
    tree: with the points.
    c: of `projection.project`, as are method and seed.
    method: one of `projection.METHODS`.
    seed: of what is drawn.

  Returns:
    float64 `[nodes, 2]`, of norm below 1, and what to tell of it.

  Raises:
    UserError: see `projection.project`.
  """
  n = len(tree.order)
  disk = np.zeros((len(tree.parent), 2))
  if n < 2:
    return disk, ''
  known = np.isfinite(tree.points[:, 0])
  items, also = tree.points[:n], tree.points[n:][known[n:]]
  found = projection.project(
    items, also if len(also) else None, c=c, method=method,
    seed=seed,
  )  # fmt: skip
  disk[known], scale = np.vstack([found.disk, found.also]), 1.0
  if method in _LINEAR:
    disk[known], scale = _magnified(disk[known], n)
  for node in np.flatnonzero(~known):
    disk[node] = _midpoint(disk[tree.leaves(int(node))])
  norm = np.linalg.norm(disk, axis=1, keepdims=True)
  disk *= np.minimum(1, _LARGEST / np.maximum(norm, _LARGEST))
  if n < 3:
    return disk, ''
  name = _TITLES[method]
  if f'{scale:.2g}' != '1':
    name += f', magnified {scale:.2g} times'
  return disk, f'{name}: {kept(tree, disk, c, seed)}.'


def kept(tree: Hierarchy, disk: np.ndarray, c: float | None, seed: int) -> str:
  """What a layout keeps of the distances of the items, for people."""
  n = len(tree.order)
  if n < 3:
    return 'too few images to compare distances'
  rank, share = projection.distortion(tree.points[:n], disk[:n], c, seed)
  if np.isnan(rank):
    return 'all distances are equal'
  return (
    f'Spearman correlation of distances {rank:.2f}, {100 * share:.0f} % of the'
    ' 10 nearest neighbors kept'
  )


def _magnified(disk, n):
  """Points whose tangent vectors at the origin are longer, and how much."""
  far = np.quantile(np.linalg.norm(disk[:n], axis=1), 0.95)
  if far == 0:
    return disk, 1.0
  scale = float(np.arctanh(_RADIUS) / np.arctanh(far))
  return projection.rescaled(
    disk, lambda norm: np.tanh(scale * np.arctanh(norm))
  ), scale


def _midpoint(disk):
  """The centroid of the hyperboloid, as a point of the disk."""
  weight = 1 / (1 - np.minimum(np.sum(disk**2, 1), _LARGEST))
  time = np.sum(2 * weight - 1)
  space = np.sum(2 * weight[:, None] * disk, 0)
  return space / (time + np.sqrt(max(time**2 - space @ space, 0)))
