"""What the page of `explore` shows, as plain JSON.

Everything that has to be exact is computed here, in D dimensions: neighbors,
distances, radii, the tree. The page only moves what it is given.
"""

import base64
import math
from typing import Any

import numpy as np

from hier_jax.evaluation import _checks, _distances
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.retrieval import _spaces, rankings
from hier_jax.viz import _hierarchy, _layout, _neighbors, _thumbnails

__all__ = ['build']

VERSION = 1
_NOTE = 'Neighbors and distances in the panel are those of the embeddings.'


def build(
  collection: Collection,
  *,
  k: int = 12,
  tree: str = 'auto',
  progress: bool = False,
) -> dict[str, Any]:
  """Computes a scene.

  Nodes are numbered as in `evaluation.Tree`: the n items first, then the inner
  nodes of the tree. Arrays are little-endian bytes in base64; each key says
  what it holds in src/scene.ts.

  Args:
    collection: what to show.
    k: nearest neighbors of each item.
    tree: 'proxies', 'linkage', or 'auto' for proxies where there are any.
    progress: whether to show bars on stderr, after some seconds.

  Returns:
    A dict that JSON can hold.

  Raises:
    UserError: an unknown `tree`, or proxies asked for where there are none.
  """
  k = _checks.positive_int('k', k)
  x = np.asarray(collection.embeddings)
  levels = _hierarchy.levels(collection)
  made = _hierarchy.hierarchy(collection, tree)
  index, far = _neighbors.nearest(x, k, c=collection.c, progress=progress)
  names, shares = _hierarchy.names(made, levels)
  flat, note = _layout.of_points(made, collection.c)
  scene = {
    'version': VERSION,
    'title': collection.title,
    'info': {str(key): str(value) for key, value in collection.info.items()},
    'metrics': _finite(rankings.distinct(collection.metrics)),
    'distance': _described(collection.c),
    'count': len(x),
    'ids': list(collection.ids),
    'labels': _encoded(collection.labels, 'i4'),
    'levels': [
      {'name': name, 'names': list(texts), 'codes': _encoded(codes, 'i4')}
      for name, (texts, codes) in zip(
        _hierarchy.level_names(collection), levels, strict=True
      )
    ],
    'tree': {
      'note': made.note,
      'parent': _encoded(made.parent, 'i4'),
      'order': _encoded(made.order, 'i4'),
      'proxy': _encoded(made.proxy[len(x) :], 'i4'),
      'names': names,
      'shares': _encoded(shares, 'f4'),
      'typical': _encoded(_hierarchy.representatives(made, collection.c), 'i4'),
      'lengths': _encoded(_lengths(made, collection.c), 'f4'),
    },
    'layouts': [
      {
        'name': 'Tree',
        'note': 'Each image lies where its place in the tree puts it.',
        'points': _encoded(_layout.of_tree(made), 'f4'),
      },
      {
        'name': 'Embedding',
        'note': f'{note} {_NOTE}'.strip(),
        'points': _encoded(flat, 'f4'),
      },
    ],
    'neighbors': {
      'k': index.shape[1],
      'index': _encoded(index, 'i4'),
      'distance': _encoded(far, 'f4'),
    },
    'radius': _encoded(_radius(made.points, collection.c), 'f4'),
    'correct': _encoded(_correct(collection.labels, index), 'u1'),
    'atlas': None,
  }
  if collection.image is not None and len(x):
    scene['atlas'] = _thumbnails.atlas(
      collection.image, made.order.tolist(), progress=progress
    )
  return scene


def _lengths(tree, c):
  """Distance of each item to the point of its parent `[n]`, or None."""
  n = len(tree.order)
  above = tree.points[tree.parent[:n]]
  if not n or not np.isfinite(above).all():
    return None
  distance, c = _spaces.resolve(None, c)
  return _distances.paired(tree.points[:n], above, distance, c)


def _radius(points, c):
  """Distances to the origin `[nodes]`, NaN where unknown; None for cosine."""
  if c is None or not len(points):
    return None
  distance, c = _spaces.resolve(None, c)
  return _distances.paired(points, np.zeros_like(points), distance, c)


def _correct(labels, index):
  """1 where the nearest neighbor has the same class, 2 where another."""
  if labels is None or not index.shape[1]:
    return None
  labels = np.asarray(labels)
  return np.where(labels == labels[index[:, 0]], 1, 2)


def _described(c):
  distance, c = _spaces.resolve(None, c)
  name = f'{distance[0].upper()}{distance[1:]} distance'
  return f'{name}, c = {c:g}' if c else name


def _finite(metrics):
  """Numbers that JSON has."""
  return {
    str(key): float(value)
    for key, value in metrics.items()
    if isinstance(value, int | float) and math.isfinite(value)
  }


def _encoded(array, kind):
  """An array's bytes in base64; None for None."""
  if array is None:
    return None
  return base64.b64encode(
    np.ascontiguousarray(array, f'<{kind}').tobytes()
  ).decode()
