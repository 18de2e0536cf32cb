"""Trees by agglomerative clustering: decoders of a hierarchy, and baselines."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike
from scipy.cluster import hierarchy

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks, _distances
from hier_jax.evaluation.retrieval import _spaces
from hier_jax.evaluation.tree._parents import parents_of_linkage
from hier_jax.evaluation.tree.proxies import same_dimensions
from hier_jax.evaluation.tree.structure import Tree, leaf_names

DISTANCES = ('cosine', 'euclidean', 'hyperbolic', 'lca_depth', 'lca_proxy')
METHODS = ('single', 'complete', 'average', 'ward')
# Of that many all distances take 0.4 GB, and SciPy works on a copy.
MAX_ITEMS = 10_000
# Distances that are made at a time.
_PAIRS = 2**21
# Distances to proxies that are compared at a time: few, to stay in the cache.
_COMPARED = 2**16


def linkage_tree(
  embeddings: Float[ArrayLike, 'n d'],
  *,
  c: float | None = None,
  distance: str | None = None,
  method: str = 'average',
  proxies: Float[ArrayLike, 'P d'] | None = None,
  names: Sequence[str] | None = None,
) -> Tree:
  """The binary tree that agglomerative clustering makes of items.

  With the distance of the items, the tree is a baseline. Two other
  dissimilarities decode a hierarchy, since they depend on where the lowest
  common ancestor (LCA) of two items lies:

  - 'lca_depth': the hyperbolic LCA is the point of the geodesic between the
    items that is nearest to the origin; this is how much nearer to the origin
    it lies than the farthest of all items. With the method 'single', this is
    the decoding of HypHC. It uses no proxies.
  - 'lca_proxy': the distance of the items to the LCA of HIER's loss, min_p
    max(d_ip, d_jp) over proxies p. Unlike `proxy_tree`, it never compares one
    proxy with another, so their radii do not matter.

  Time is O(n^2 d), for 'lca_proxy' O(n^2 P); memory is O(n^2).

  Args:
    embeddings: items, or centroids of `class_centroids`, `[n, d]`, any floating
      dtype, at most `MAX_ITEMS`.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      of curvature -c.
    distance: 'cosine', 'euclidean' or 'hyperbolic', 'lca_depth' in the ball, or
      'lca_proxy', by the distance that c says; None for that distance.
    method: the linkage of clusters: 'single', 'complete', 'average', or, for
      'euclidean', 'ward'.
    proxies: proxies `[P, d]` in the space of the embeddings, given exactly for
      'lca_proxy'.
    names: names of the n items; None for a tree without names.

  Returns:
    A tree with `height`, the dissimilarity of the two clusters that a node
    joins, and `length`, the difference in height along an edge.

  Raises:
    UserError: rows with NaN or Inf, points outside the ball, wrong shapes,
      unequal dimensions, one item or more than `MAX_ITEMS`, options that are
      unknown or contradict each other, wrong `names`.

  References:
    Chami et al., From Trees to Continuous Embeddings and Back: Hyperbolic
    Hierarchical Clustering, NeurIPS 2020, arXiv 2010.00402, section 4.
    Kim, Jeong and Kwak, HIER, CVPR 2023, arXiv 2212.14258, equation 4.

  Example:
    >>> from hier_jax import evaluation
    >>> tree = evaluation.linkage_tree([[0.0], [1.0], [10.0]], c=0)
    >>> tree.parent.tolist(), tree.height.round(2).tolist()
    ([3, 3, 4, 4, -1], [0.0, 0.0, 0.0, 1.0, 9.5])
  """
  distance, c = _resolve(distance, method, c)
  x = _checks.points('embeddings', embeddings, c)
  if not 2 <= len(x) <= MAX_ITEMS:
    raise UserError(
      f'`embeddings` has {len(x)} rows; expected 2 to {MAX_ITEMS}: cluster the '
      'class_centroids, or use proxy_tree, which takes any number'
    )
  names = leaf_names(names, len(x))
  if (proxies is not None) != (distance == 'lca_proxy'):
    given = 'no `proxies`' if proxies is None else '`proxies`'
    raise UserError(
      f'`distance` is {distance!r} with {given}; expected them exactly for '
      "'lca_proxy'"
    )
  if proxies is not None:
    proxies = _checks.points('proxies', proxies, c)
    same_dimensions(x, proxies)
  # So that no square of a large or small number is lost.
  scale = _spaces.to_unit(x) if distance == 'euclidean' else 1.0
  far = _condensed(_between(scale * x, proxies, distance, c), len(x))
  linkage = hierarchy.linkage(far, method)
  linkage[:, 2] /= scale
  parent = parents_of_linkage(linkage).astype(np.int32)
  height = np.concatenate([np.zeros(len(x)), linkage[:, 2]])
  length = np.where(parent < 0, 0, height[parent] - height)
  return Tree(parent, names, height=height, length=length)


def _resolve(distance, method, c):
  """The distance and c meant, where they go with each other and the method."""
  if distance == 'lca_proxy':
    c = _checks.curvature('c', c)
  else:
    distance, c = _spaces.resolve(distance, c, DISTANCES)
  if method not in METHODS:
    raise UserError(f'`method` is {method!r}; expected one of {list(METHODS)}')
  if method == 'ward' and distance != 'euclidean':
    raise UserError(
      f"`method` is 'ward' with {distance!r}; expected 'euclidean', for which "
      'it is defined: at c = 0, with rows of length 1 if angles count'
    )
  return distance, c


def _between(x, proxies, distance, c):
  """A function from start, stop to distances `[stop - start, n - start]`.

  Rows are the items from start to stop, columns all items from start on.
  """
  if distance == 'lca_depth':
    return functools.partial(_lca_depth, _klein(x, c), c)
  if distance == 'lca_proxy':
    by = _spaces.resolve(None, c)
    to_proxies = _distances.Gallery(proxies, *by).distances(x)
    return functools.partial(_lca_proxy, to_proxies)
  gallery = _distances.Gallery(x, distance, c)
  return lambda start, stop: gallery.distances(x[start:stop])[:, start:]


def _condensed(between, n):
  """Distances of all pairs in SciPy's order, `[n (n - 1) / 2]`."""
  far, done = np.empty(n * (n - 1) // 2), 0
  step = max(1, _PAIRS // n)
  for start in range(0, n, step):
    block = between(start, min(start + step, n))
    part = block[np.triu_indices(len(block), 1, block.shape[1])]
    far[done : done + len(part)] = part
    done += len(part)
  return far


def _klein(x, c):
  """Points of the ball in the Klein model, in units of its radius."""
  x = math.sqrt(c) * x
  return 2 * x / (1 + _distances.square_norm(x))


def _depth(square, c):
  """Distance to the origin of points of the Klein model, given |k|^2."""
  # Rounding must not take a point out of the ball.
  inside = np.nextafter(1.0, 0.0)
  return np.arctanh(np.sqrt(np.clip(square, 0, inside))) / math.sqrt(c)


def _lca_depth(klein, c, start, stop):
  """See `linkage_tree`; geodesics are straight in the Klein model.

  Args:
    klein: `[n, d]`.
    c: curvature.
    start: see `_between`.
    stop: see `_between`.
  """
  x, y = klein[start:stop], klein[start:]
  square = _distances.square_norm(klein)[:, 0]
  a, b = square[start:stop, None], square[start:]
  product = x @ y.T
  apart = a + b - 2 * product
  # x + t (y - x) is nearest the origin.
  t = np.clip((a - product) / np.where(apart > 0, apart, 1), 0, 1)
  nearest = a - 2 * t * (a - product) + t**2 * apart
  deepest = _depth(square.max(), c)
  return deepest - np.minimum(_depth(nearest, c), deepest)


def _lca_proxy(to_proxies, start, stop):
  """See `linkage_tree`.

  Args:
    to_proxies: `[n, P]`.
    start: see `_between`.
    stop: see `_between`.
  """
  n, num_proxies = to_proxies.shape
  far = np.zeros((stop - start, n - start))
  step = max(1, _COMPARED // num_proxies)
  for i in range(start, stop):
    for j in range(i + 1, n, step):
      both = np.maximum(to_proxies[i], to_proxies[j : j + step])
      far[i - start, j - start : j - start + step] = both.min(1)
  return far
