"""The study's metrics of embeddings of classes that were not trained on."""

from __future__ import annotations

import numpy as np

from hier_jax import evaluation
from hier_jax.evaluation.hierarchy import geometry, graded
from hier_jax.evaluation.tree import metrics as tree_lib

__all__ = [
  'PER_CLASS',
  'PRIMARY',
  'of_classes',
  'of_proxies',
  'of_run',
  'of_trees',
]

LEVEL = 'subgroup'
# The kin's mean average precision, images of the query's class taken out.
KIN = f'map_{LEVEL}'
PRIMARY = 'map@r', KIN
PER_CLASS = 'map@r', KIN, 'recall@1', 'r_precision'


def of_run(
  z: np.ndarray, labels: np.ndarray, subgroup: np.ndarray, c: float | None
) -> dict[str, np.ndarray]:
  """Values of each query, each item being query and gallery.

  Args:
    z: embeddings `[n, d]`.
    labels: int `[n]`, their classes.
    subgroup: int `[C]`, the node of the hierarchy of each class.
    c: curvature; None ranks by cosine.

  Returns:
    'map@r', 'recall@1', 'r_precision' and 'map_subgroup', the average precision
    of images of the query's subgroup once those of its class are taken out of
    the ranking: float64 `[n]`, NaN where a query does not count.
  """
  found = evaluation.per_query(
    z,
    labels,
    c=c,
    recall_at=(1,),
    attributes=('ap', 'r_precision', 'recall'),
  ).values()
  kin = graded.graded_per_query(
    z, labels, _taxonomy(labels, subgroup), c=c, drop_same_class=True
  )
  values = {k: found[k] for k in ('map@r', 'recall@1', 'r_precision')}
  return values | {KIN: kin.values((LEVEL, 'class'), ())[f'{LEVEL}/map']}


def of_classes(
  values: dict[str, np.ndarray], labels: np.ndarray
) -> dict[str, np.ndarray]:
  """Means of each class's queries `[classes]`, in the order of the classes."""
  codes = np.unique(labels, return_inverse=True)[1]
  means = {}
  for name in PER_CLASS:
    counts = ~np.isnan(values[name])
    total = np.bincount(codes, np.where(counts, values[name], 0))
    number = np.bincount(codes, counts)
    means[name] = np.where(number > 0, total / np.maximum(number, 1), np.nan)
  return means


def of_trees(
  z: np.ndarray, labels: np.ndarray, subgroup: np.ndarray, c: float | None
) -> dict[str, float]:
  """Metrics of the class centroids, and of the tree that they make.

  Args:
    z: embeddings `[n, d]`.
    labels: int `[n]`.
    subgroup: int `[C]`.
    c: curvature; None for cosine.

  Returns:
    'dp_subgroup' and 'lca_triplets' of average linkage, and '1nn_subgroup'.
  """
  taxonomy = _taxonomy(labels, subgroup)
  centroids, classes = evaluation.class_centroids(z, labels, c=c)
  names = [str(k) for k in classes]
  near = geometry.nearest_centroid(centroids, names, taxonomy, c=c)
  linkage = evaluation.linkage_tree(centroids, c=c)
  found = {f'1nn_{LEVEL}': near[f'{LEVEL}/nearest_centroid']}
  return found | _tree('', linkage, names, taxonomy)


def of_proxies(
  z: np.ndarray,
  labels: np.ndarray,
  subgroup: np.ndarray,
  c: float,
  ball_proxies: np.ndarray,
) -> dict[str, float]:
  """Metrics of the tree that hierarchical proxies make of class centroids.

  It has the leaves of `of_trees`, so that purities and LCA triplets compare.

  Args:
    z: embeddings `[n, d]`, points of the ball.
    labels: int `[n]`.
    subgroup: int `[C]`.
    c: curvature.
    ball_proxies: `[P, d]`, points of the ball.

  Returns:
    'proxy_dp_subgroup', 'proxy_lca_triplets' and 'proxies_used', how many are
    parents of centroids.
  """
  taxonomy = _taxonomy(labels, subgroup)
  centroids, classes = evaluation.class_centroids(z, labels, c=c)
  names = [str(k) for k in classes]
  tree = evaluation.proxy_tree(centroids, ball_proxies, c=c)
  used = len(np.unique(tree.parent[: len(names)]))
  return _tree('proxy_', tree, names, taxonomy) | {'proxies_used': float(used)}


def _tree(prefix, tree, names, taxonomy) -> dict[str, float]:
  of = tree_lib.tree_metrics(tree, names, taxonomy)
  return {
    f'{prefix}dp_{LEVEL}': of[f'{LEVEL}/purity'],
    f'{prefix}lca_triplets': of['lca_triplets'],
  }


def _taxonomy(labels, subgroup) -> evaluation.Taxonomy:
  """The hierarchy of the classes that occur."""
  classes = np.unique(labels)
  return evaluation.Taxonomy.from_levels(
    subgroup[classes][:, None],
    classes=[str(k) for k in classes],
    level_names=[LEVEL, 'class'],
  )
