"""How well embeddings hold a taxonomy: all hierarchy metrics in one call."""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent import futures
from typing import Any

import numpy as np
from jaxtyping import Float, Integer, Shaped
from numpy.typing import ArrayLike
from scipy import stats

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation import taxonomy as taxonomy_lib
from hier_jax.evaluation.centroids import class_centroids
from hier_jax.evaluation.hierarchy import geometry, graded
from hier_jax.evaluation.retrieval.metrics import RECALL_AT
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.linkage import MAX_ITEMS, linkage_tree
from hier_jax.evaluation.tree.metrics import tree_keys, tree_metrics
from hier_jax.evaluation.tree.structure import Tree

# Scores that are ranked unless `max_queries` says otherwise: two minutes or so
# of two cores.
MAX_SCORES = 1 << 33


def hierarchy_metrics(
  embeddings: Float[ArrayLike, 'n d'],
  labels: Shaped[ArrayLike, ' n'],
  taxonomy: Taxonomy,
  *,
  recall_at: Sequence[int] = RECALL_AT,
  gallery: Float[ArrayLike, 'm d'] | None = None,
  gallery_labels: Shaped[ArrayLike, ' m'] | None = None,
  c: float | None = None,
  distance: str | None = None,
  tree: Tree | Integer[ArrayLike, ' nodes'] | None = None,
  alpha: float = 1.0,
  drop_same_class: bool = False,
  ties: str = 'pessimistic',
  max_pairs: int = 200_000,
  max_classes: int = 5_000,
  max_queries: int | None = None,
  block: int | None = None,
  seed: int = 0,
  progress: bool = False,
  ranked: graded.GradedPerQuery | None = None,
) -> dict[str, float | int]:
  """All metrics of how embeddings hold a taxonomy.

  Args:
    embeddings: queries `[n, d]`, any floating dtype.
    labels: classes of the queries `[n]`, strings or integers; see
      `Taxonomy.codes`.
    taxonomy: the tree of the classes, with L levels.
    recall_at: the values of K to report Recall@K for.
    gallery: items to rank `[m, d]`; None for the queries, each left out of
      its own ranking. Only the first two groups of keys use it; all others look
      at the queries alone.
    gallery_labels: classes of the gallery `[m]`, given exactly where `gallery`
      is.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      of curvature -c.
    distance: 'cosine', 'euclidean', 'hyperbolic' for points of the Poincare
      ball or 'lorentz' for points of the hyperboloid, time first; None for the
      one that c says.
    tree: a tree over the queries to measure as well, a `Tree` or the parent of
      each of its nodes; None for no such tree.
    alpha: exponent of H-AP's relevance.
    drop_same_class: whether to take items of the query's own class out of the
      ranking at all levels but the last, see `graded_per_query`.
    ties: order of items that tie: 'pessimistic' ranks items of lower level
      first, 'optimistic' items of higher level.
    max_pairs: largest number of pairs to correlate; if there are more, that
      many are drawn at random.
    max_classes: largest number of classes in the centroid tree; if there are
      more, that many are drawn at random.
    max_queries: largest number of queries that are ranked; where there are
      more, that many are drawn at random. None for as many as make `MAX_SCORES`
      scores with the gallery: all of 92,000 that are their own gallery, 8,500
      of a million.
    block: number of queries whose scores are held at a time; see
      `graded_per_query` for its memory.
    seed: seed of every random draw.
    progress: whether to show bars on stderr, after some seconds.
    ranked: what `graded_per_query` found of all queries by these options; None
      to rank them.

  Returns:
    'h_ap', 'asi', 'ndcg': means over the queries with an item of level 1;
    '<level>/recall@K', '<level>/map', '<level>/ndcg' of every level: means over
    the queries with a positive there, '<level>/num_without_positive' the number
    of the others that are ranked (with `drop_same_class` those without kin of
    another class);
    '<level>/map_other_classes' of every level but the last: '<level>/map' with
    the items of the query's own class taken out of the ranking, where they hide
    what is known of their kin;
    'distance_spearman', see `distance_correlation`;
    'radius_depth', 'radius_depth_shuffled' and 'radius_depth_items', see
    `radius_depth`;
    '<level>/nearest_centroid' of every level but the last: share of the classes
    with kin at that level whose nearest class centroid is of it;
    'centroid_tree/<key>', and 'tree/<key>' where a tree is given, the keys of
    `tree_metrics`;
    'num_queries'. A metric that is not defined, for instance with a single
    class, is NaN. Where only some queries are ranked 'num_ranked' says how
    many, and '<key>/ci95' half the width of the 95 % confidence interval of
    each of their means, for what all queries would give.

  Raises:
    UserError: bad arguments, see `graded_per_query`, and parents that make no
      tree.

  Example:
    >>> from hier_jax import evaluation
    >>> taxonomy = evaluation.Taxonomy.from_levels([['cat'], ['cat'], ['dog']])
    >>> x = [[0.0], [0.1], [1.0], [1.1], [9.0], [9.1]]
    >>> labels = [0, 0, 1, 1, 2, 2]
    >>> found = evaluation.hierarchy_metrics(x, labels, taxonomy, c=0)
    >>> print(f"{found['h_ap']:.3f} {found['level1/recall@1']:.3f}")
    1.000 1.000
  """
  recall_at = _checks.positive_ints('recall_at', recall_at)
  _checks.positive_int('max_pairs', max_pairs)
  if not 2 <= _checks.positive_int('max_classes', max_classes) <= MAX_ITEMS:
    raise UserError(
      f'`max_classes` is {max_classes}; expected 2 to {MAX_ITEMS}, of which a '
      'tree can be made'
    )
  rows = None
  if ranked is None:
    rows = _rows(embeddings, gallery, max_queries, seed)
  space: dict[str, Any] = {'distance': distance, 'c': c}
  names = taxonomy_lib.expect(taxonomy).level_names
  result = ranked or graded.graded_per_query(
    embeddings,
    labels,
    taxonomy,
    **space,
    gallery=gallery,
    gallery_labels=gallery_labels,
    alpha=alpha,
    drop_same_class=drop_same_class,
    ties=ties,
    block=block,
    rows=rows,
    progress=progress,
  )
  if not result.num_positives.any():
    drawn, remedy = '', 'check the labels'
    if rows is not None:
      drawn, remedy = ' drawn', f'draw more (`max_queries`), or {remedy}'
    raise UserError(
      f'none of the {len(result.h_ap)} queries{drawn} has an item in the '
      f'gallery that shares its {names[0]}; expected some: {remedy}'
    )
  values = result.values(names, recall_at)
  metrics: dict[str, float | int] = {
    k: geometry.known_mean(v) for k, v in values.items()
  }
  for level, name in enumerate(names):
    without = result.num_positives[:, level] == 0
    metrics[f'{name}/num_without_positive'] = int(without.sum())
  num_queries = len(np.asarray(embeddings))
  if rows is not None:
    metrics['num_ranked'] = len(rows)
    for key, value in values.items():
      metrics[f'{key}/ci95'] = _half_width(value, len(rows) / num_queries)
  data = (embeddings, labels, taxonomy)
  # Each keeps one core busy for most of its time.
  with futures.ThreadPoolExecutor() as pool:
    of_centroids = pool.submit(
      _centroid_metrics, data, space, max_pairs, max_classes, seed
    )
    of_radii = pool.submit(
      geometry.radius_depth, *data, **space, seed=seed, progress=progress
    )
    metrics['distance_spearman'] = geometry.distance_correlation(
      *data, **space, max_pairs=max_pairs, seed=seed
    )
  radii = of_radii.result()
  metrics['radius_depth'] = radii.nodes
  metrics['radius_depth_shuffled'] = radii.shuffled
  metrics['radius_depth_items'] = radii.items
  metrics |= of_centroids.result()
  if tree is not None:
    found = tree_metrics(
      tree,
      labels,
      taxonomy,
      max_pairs=max_pairs,
      seed=seed,
      progress=progress,
    )
    metrics |= {f'tree/{key}': value for key, value in found.items()}
  return {**metrics, 'num_queries': num_queries}


def some_are_ranked(embeddings, gallery=None) -> bool:
  """Whether `hierarchy_metrics` ranks only some of the queries by itself.

  Args:
    embeddings: queries `[n, d]`.
    gallery: `[m, d]`; None for the queries.

  Raises:
    UserError: wrong shapes.
  """
  num, most = _numbers(embeddings, gallery)
  return num > most


def _numbers(embeddings, gallery):
  """How many queries there are, and how many are ranked at most."""
  num, size = (
    len(_checks.matrix(name, x))
    for name, x in (
      ('embeddings', embeddings),
      ('gallery', embeddings if gallery is None else gallery),
    )
  )
  return num, max(1, MAX_SCORES // size)


def _rows(embeddings, gallery, max_queries, seed):
  """Rows of the queries to rank, ascending; None for all."""
  if max_queries is not None:
    max_queries = _checks.positive_int('max_queries', max_queries)
  num, most = _numbers(embeddings, gallery)
  most = max_queries or most
  if num <= most:
    return None
  rng = _checks.rng(seed)
  return np.sort(rng.choice(num, most, replace=False))


def _half_width(values: np.ndarray, share: float) -> float:
  """Of the 95 % interval of a mean, of that share of a finite population."""
  kept = values[~np.isnan(values)]
  if len(kept) < 2:
    return float('nan')
  error = stats.sem(kept) * math.sqrt(1 - share)
  return float(stats.norm.ppf(0.975) * error)


def _centroid_metrics(data, space, max_pairs, max_classes, seed):
  """Metrics of the class centroids: the nearest of each, and their tree."""
  embeddings, labels, taxonomy = data
  x, codes, _, c = geometry.points_and_codes(
    embeddings, labels, taxonomy, **space
  )
  found = np.unique(codes)
  if len(found) > max_classes:
    rng = _checks.rng(seed)
    kept = np.isin(codes, rng.choice(found, max_classes, replace=False))
    x, codes = x[kept], codes[kept]
  levels = taxonomy.level_names
  if len(found) < 2:
    keys = [f'{name}/nearest_centroid' for name in levels[:-1]]
    keys += [f'centroid_tree/{key}' for key in tree_keys(levels)]
    return dict.fromkeys(keys, float('nan'))
  centroids, found = class_centroids(x, codes, c=c)
  names = [taxonomy.classes[i] for i in found]
  tree = linkage_tree(centroids, c=c, names=names)
  assert tree.height is not None
  of_tree = tree_metrics(
    tree,
    names,
    taxonomy,
    node_depth=-tree.height,
    max_pairs=max_pairs,
    seed=seed,
  )
  near = geometry.nearest_centroid(centroids, names, taxonomy, c=c)
  return near | {f'centroid_tree/{k}': v for k, v in of_tree.items()}
