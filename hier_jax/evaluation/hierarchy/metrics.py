"""How well embeddings hold a taxonomy: every metric of it under one call.

`graded` has the metrics of retrieval, `agreement` those of a tree; here are
those of the geometry, and `hierarchy_metrics`, which gathers all of them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from hier_jax.errors import UserError
from hier_jax.evaluation import checks, distances
from hier_jax.evaluation import taxonomy as taxonomy_lib
from hier_jax.evaluation.hierarchy import agreement, graded
from hier_jax.evaluation.retrieval.metrics import RECALL_AT
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree import dendrogram

# Pairs whose coordinates are held at a time.
_PAIRS_AT_ONCE = 8192


class RadiusDepth(NamedTuple):
  """Rank correlations of the distance from the origin and the depth.

  Attributes:
    items: over items, with the depth of their class; NaN where all classes lie
      equally deep, and for cosine, which knows no radius.
    nodes: over the nodes of the taxonomy that have items, with the radius of
      their centroid.
    shuffled: `nodes` where the items' labels are shuffled, a mean over some
      shuffles. Centroids of many unlike items lie near the centre whatever the
      taxonomy, so it is far above 0: compare `nodes` with it.
  """

  items: float
  nodes: float
  shuffled: float


class CentroidTree(NamedTuple):
  """Average linkage of class centroids.

  Attributes:
    classes: names of the classes, the tree's items `[n]`, in the taxonomy's
      order.
    parent: int64 `[2n - 1]`, see `dendrogram`.
    height: `[2n - 1]`, distance at which each node was joined; 0 for classes.
  """

  classes: list[str]
  parent: np.ndarray
  height: np.ndarray


def hierarchy_metrics(
  embeddings,
  labels,
  taxonomy: Taxonomy,
  *,
  recall_at: Sequence[int] = RECALL_AT,
  metric: str | None = None,
  c: float = 0.0,
  tree=None,
  max_pairs: int = 200_000,
  max_classes: int = 5_000,
  seed: int = 0,
  **ranking,
) -> dict[str, float | int]:
  """All metrics of how embeddings hold a taxonomy.

  Args:
    embeddings: queries `[n, d]`, any floating dtype.
    labels: classes of the queries `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree, L levels.
    recall_at: the K of Recall@K.
    metric: 'cosine', 'euclidean', 'hyperbolic' for points of the Poincare ball
      or 'lorentz' for points of the hyperboloid, time first; None is hyperbolic
      where c > 0, else cosine.
    c: c > 0 for points of curvature -c; 0 for vectors.
    tree: a tree over the queries to look at too, see `dendrogram.laid_out`.
    max_pairs: pairs that are correlated: all, or that many at random.
    max_classes: classes in the centroid tree: all, or that many at random.
    seed: of all that is random.
    **ranking: `gallery`, `gallery_labels`, `alpha`, `drop_same_class`, `ties`,
      `block` and `progress` of `graded_per_query`. A gallery is ranked only:
      all but the first two groups of keys look at the queries.

  Returns:
    'h_ap', 'asi', 'ndcg': means over the queries with an item of level 1;
    '<level>/recall@K', '<level>/map', '<level>/ndcg' of every level: means over
    the queries with a positive there, '<level>/num_without_positive' the others
    (with `drop_same_class` those without kin of another class);
    'distance_spearman', see `distance_correlation`;
    'radius_depth', 'radius_depth_shuffled' and 'radius_depth_items', see
    `radius_depth`;
    '<level>/nearest_centroid' of every level but the last: share of the classes
    with kin at that level whose nearest class centroid is of it;
    'centroid_tree/<key>', and 'tree/<key>' where a tree is given, the keys of
    `tree_metrics`;
    'num_queries'. A metric that is not defined, as with one class, is NaN.

  Raises:
    UserError: bad arguments, see `graded_per_query`, and a tree that is none.
  """
  recall_at = [checks.positive_int('K of recall_at', k) for k in recall_at]
  space: dict[str, Any] = {'metric': metric, 'c': c}
  names = taxonomy_lib.expect(taxonomy).level_names
  result = graded.graded_per_query(
    embeddings, labels, taxonomy, **space, **ranking
  )
  if not result.num_positives.any():
    raise UserError(
      f'none of the {len(result.h_ap)} queries has an item in the gallery that '
      f'shares its {names[0]}; expected some: check the labels'
    )
  values = graded.query_values(result, names, recall_at)
  metrics: dict[str, float | int] = {k: _mean(v) for k, v in values.items()}
  for level, name in enumerate(names):
    without = result.num_positives[:, level] == 0
    metrics[f'{name}/num_without_positive'] = int(without.sum())
  data = (embeddings, labels, taxonomy)
  metrics['distance_spearman'] = distance_correlation(
    *data, **space, max_pairs=max_pairs, seed=seed
  )
  radii = radius_depth(*data, **space, seed=seed)
  metrics['radius_depth'] = radii.nodes
  metrics['radius_depth_shuffled'] = radii.shuffled
  metrics['radius_depth_items'] = radii.items
  metrics |= _centroid_metrics(data, space, max_pairs, max_classes, seed)
  if tree is not None:
    found = tree_metrics(tree, labels, taxonomy, max_pairs=max_pairs, seed=seed)
    metrics |= {f'tree/{key}': value for key, value in found.items()}
  return {**metrics, 'num_queries': len(result.h_ap)}


def tree_metrics(
  tree,
  labels,
  taxonomy: Taxonomy,
  *,
  node_depth=None,
  max_pairs: int = 200_000,
  seed: int = 0,
) -> dict[str, float]:
  """Metrics of a tree over items with classes in a taxonomy.

  Args:
    tree: see `dendrogram.laid_out`.
    labels: classes of the items `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.
    node_depth: `[num_nodes]`, see `agreement.lca_agreement`.
    max_pairs: pairs that are correlated: all, or that many at random.
    seed: of all that is random.

  Returns:
    '<level>/purity', the dendrogram purity of every level, NaN where no two
    items share a node of it; 'lca_spearman', 'lca_kendall', 'lca_triplets' and
    'lca_tied' of `agreement.lca_agreement`; 'dasgupta', the cost of
    `agreement.taxonomic_cost`.

  Raises:
    UserError: not a tree, labels missing or unknown.
  """
  codes = taxonomy_lib.expect(taxonomy).codes(labels)
  tree = dendrogram.laid_out(tree, len(codes))
  purity = []
  for nodes in taxonomy.path.T[:, codes]:
    purity.append(float('nan'))
    if len(np.unique(nodes)) < len(nodes):
      purity[-1] = agreement.dendrogram_purity(tree, nodes, seed=seed).value
  lca = agreement.lca_agreement(
    tree,
    labels,
    taxonomy,
    node_depth=node_depth,
    max_pairs=max_pairs,
    seed=seed,
  )
  cost = agreement.taxonomic_cost(tree, labels, taxonomy)
  keys = _tree_keys(taxonomy.level_names)
  return dict(zip(keys, [*purity, *lca, cost], strict=True))


def distance_correlation(
  embeddings,
  labels,
  taxonomy: Taxonomy,
  *,
  metric: str | None = None,
  c: float = 0.0,
  max_pairs: int = 200_000,
  seed: int = 0,
) -> float:
  """Spearman's correlation of distances of items and of their classes.

  The latter are edges on the way between them in the taxonomy.

  Args:
    embeddings: `[n, d]`, any floating dtype.
    labels: classes `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.
    metric: see `hierarchy_metrics`.
    c: likewise.
    max_pairs: all pairs of items, or that many at random.
    seed: of the draw.

  Returns:
    -1 to 1; NaN where one of the distances is the same for all pairs.

  Raises:
    UserError: see `graded_per_query`.
  """
  x, codes, metric, c = _checked(embeddings, labels, taxonomy, metric, c)
  rng = np.random.default_rng(seed)
  i, j = agreement.pairs(len(x), max_pairs, rng)
  far = [
    distances.paired(x[i[part]], x[j[part]], metric, c)
    for part in (
      slice(k, k + _PAIRS_AT_ONCE) for k in range(0, len(i), _PAIRS_AT_ONCE)
    )
  ]
  known = taxonomy.distance(codes[i], codes[j])
  return agreement.spearman(np.concatenate([[], *far]), known)


def radius_depth(
  embeddings,
  labels,
  taxonomy: Taxonomy,
  *,
  metric: str | None = None,
  c: float = 0.0,
  num_shuffles: int = 10,
  seed: int = 0,
) -> RadiusDepth:
  """Whether what lies deeper in the taxonomy lies farther from the origin.

  Centroids are those of `distances.centroids`, for cosine of the rows at length
  1.

  Args:
    embeddings: `[n, d]`, any floating dtype.
    labels: classes `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.
    metric: see `hierarchy_metrics`.
    c: likewise.
    num_shuffles: how often the labels are shuffled.
    seed: of the shuffles.

  Raises:
    UserError: see `graded_per_query`.
  """
  x, codes, metric, c = _checked(embeddings, labels, taxonomy, metric, c)
  rng = np.random.default_rng(seed)
  items = float('nan')
  if metric != 'cosine':
    norms = distances.square_norm(x)[:, 0]
    items = agreement.spearman(norms, taxonomy.depth[codes])

  def of_nodes(codes):
    radii, depths = [], []
    for level, nodes in enumerate(taxonomy.path.T):
      # A class that lies higher was a node of its own level already.
      there = taxonomy.depth[codes] > level
      found, group = np.unique(nodes[codes[there]], return_inverse=True)
      centre = distances.centroids(x[there], group, len(found), metric, c)
      radii.append(distances.square_norm(centre)[:, 0])
      depths.append(np.full(len(found), level))
    return agreement.spearman(np.concatenate(radii), np.concatenate(depths))

  shuffled = [of_nodes(rng.permutation(codes)) for _ in range(num_shuffles)]
  return RadiusDepth(items, of_nodes(codes), _mean(np.array(shuffled)))


def centroid_tree(
  embeddings,
  labels,
  taxonomy: Taxonomy,
  *,
  metric: str | None = None,
  c: float = 0.0,
) -> CentroidTree:
  """The tree that the embeddings themselves suggest.

  Average linkage by the distance of class centroids; its memory is that of
  their distances, `8 C^2` bytes.

  Args:
    embeddings: `[n, d]`, any floating dtype.
    labels: classes `[n]`, two or more, see `Taxonomy.codes`.
    taxonomy: where the labels are names.
    metric: see `hierarchy_metrics`.
    c: likewise.

  Raises:
    UserError: see `graded_per_query`; fewer than two classes.
  """
  x, codes, metric, c = _checked(embeddings, labels, taxonomy, metric, c)
  found, group = np.unique(codes, return_inverse=True)
  if len(found) < 2:
    raise UserError('`labels` holds one class; expected two or more for a tree')
  centres = distances.centroids(x, group, len(found), metric, c)
  return _linked(centres, [taxonomy.classes[i] for i in found], metric, c)


def _tree_keys(level_names: Sequence[str]) -> list[str]:
  """Keys of the result of `tree_metrics`, in order."""
  lca = agreement.LcaAgreement._fields
  return [
    *(f'{name}/purity' for name in level_names),
    *(f'lca_{name}' for name in lca),
    'dasgupta',
  ]


def _centroid_metrics(data, space, max_pairs, max_classes, seed):
  """Metrics of the class centroids: the nearest of each, and their tree."""
  embeddings, labels, taxonomy = data
  x, codes, metric, c = _checked(embeddings, labels, taxonomy, **space)
  found, group = np.unique(codes, return_inverse=True)
  if len(found) > max_classes:
    rng = np.random.default_rng(seed)
    kept = np.isin(codes, rng.choice(found, max_classes, replace=False))
    x, codes = x[kept], codes[kept]
    found, group = np.unique(codes, return_inverse=True)
  levels = taxonomy.level_names
  if len(found) < 2:
    keys = [f'{name}/nearest_centroid' for name in levels[:-1]]
    keys += [f'centroid_tree/{key}' for key in _tree_keys(levels)]
    return dict.fromkeys(keys, float('nan'))
  names = [taxonomy.classes[i] for i in found]
  centres = distances.centroids(x, group, len(found), metric, c)
  near = graded.graded_per_query(centres, names, taxonomy, metric=metric, c=c)
  metrics = {}
  for level, name in enumerate(levels[:-1]):
    hits = near.rank[near.num_positives[:, level] > 0, level] == 1
    metrics[f'{name}/nearest_centroid'] = _mean(hits.astype(float))
  tree = _linked(centres, names, metric, c)
  of_tree = tree_metrics(
    tree.parent,
    names,
    taxonomy,
    node_depth=-tree.height,
    max_pairs=max_pairs,
    seed=seed,
  )
  return metrics | {f'centroid_tree/{k}': v for k, v in of_tree.items()}


def _linked(centres, names, metric, c) -> CentroidTree:
  far = distances.Gallery(centres, metric, c).distances(centres)
  np.fill_diagonal(far, 0)
  # The two halves may differ in the last bit; unchecked, the upper one counts.
  linkage = hierarchy.linkage(squareform(far, checks=False), 'average')
  height = np.concatenate([np.zeros(len(names)), linkage[:, 2]])
  return CentroidTree(names, dendrogram.parents_of_linkage(linkage), height)


def _checked(embeddings, labels, taxonomy, metric, c):
  """The points in float64, their classes, which distance is theirs, and c."""
  taxonomy_lib.expect(taxonomy)
  c = checks.curvature('c', c)
  x, metric = graded.located('embeddings', embeddings, metric, c)
  labels = checks.class_labels('labels', labels, len(x))
  return x, taxonomy.codes(labels), metric, c


def _mean(values: np.ndarray) -> float:
  """Mean of what is not NaN; NaN where nothing is left."""
  kept = values[~np.isnan(values)]
  return float(kept.mean()) if len(kept) else float('nan')
