"""Whether distances, radii and centroids of embeddings follow a taxonomy."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from hier_jax.evaluation import _checks, _correlation, _distances
from hier_jax.evaluation import centroids as centroids_lib
from hier_jax.evaluation import taxonomy as taxonomy_lib
from hier_jax.evaluation.hierarchy import graded
from hier_jax.evaluation.retrieval import _spaces
from hier_jax.evaluation.taxonomy import Taxonomy

# Pairs whose coordinates are held at a time.
_PAIRS_AT_ONCE = 8192
# Far within the numbers whose squares are float64.
_SQUARES = 2.0**400


class RadiusDepth(NamedTuple):
  """Rank correlations of the distance from the origin and the depth.

  Attributes:
    items: over items, with the depth of their class; NaN if all classes lie
      equally deep, and for cosine, which has no radius.
    nodes: over the nodes of the taxonomy that have items, with the radius of
      their centroid.
    shuffled: `nodes` with the items' labels shuffled, as a mean over several
      shuffles. Centroids of many unlike items lie near the center whatever the
      taxonomy is, so this is far above 0: compare `nodes` with it.
  """

  items: float
  nodes: float
  shuffled: float


def distance_correlation(
  embeddings,
  labels,
  taxonomy: Taxonomy,
  *,
  distance: str | None = None,
  c: float | None = None,
  max_pairs: int = 200_000,
  seed: int = 0,
) -> float:
  """Spearman's correlation of distances of items and of their classes.

  The distance of two classes is the number of edges between them in the
  taxonomy.

  Args:
    embeddings: `[n, d]`, any floating dtype.
    labels: classes `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.
    distance: see `hierarchy_metrics`.
    c: see `hierarchy_metrics`.
    max_pairs: largest number of pairs; if there are more, that many are drawn
      at random.
    seed: of the draw.

  Returns:
    -1 to 1; NaN where one of the distances is the same for all pairs.

  Raises:
    UserError: see `graded_per_query`.
  """
  x, codes, by, c = points_and_codes(embeddings, labels, taxonomy, distance, c)
  rng = _checks.rng(seed)
  i, j = _correlation.pairs(len(x), max_pairs, rng)
  far = [
    _distances.paired(x[some].astype(float), x[others].astype(float), by, c)
    for some, others in (
      (i[k : k + _PAIRS_AT_ONCE], j[k : k + _PAIRS_AT_ONCE])
      for k in range(0, len(i), _PAIRS_AT_ONCE)
    )
  ]
  known = taxonomy.distance(codes[i], codes[j])
  return _correlation.spearman(np.concatenate([[], *far]), known)


def radius_depth(
  embeddings,
  labels,
  taxonomy: Taxonomy,
  *,
  distance: str | None = None,
  c: float | None = None,
  num_shuffles: int = 10,
  seed: int = 0,
  progress: bool = False,
) -> RadiusDepth:
  """Whether items deeper in the taxonomy lie farther from the origin.

  Centroids are those of `class_centroids`.

  Args:
    embeddings: `[n, d]`, any floating dtype.
    labels: classes `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.
    distance: see `hierarchy_metrics`.
    c: see `hierarchy_metrics`.
    num_shuffles: how often the labels are shuffled.
    seed: of the shuffles.
    progress: whether to show a bar on stderr, after some seconds.

  Raises:
    UserError: see `graded_per_query`.
  """
  x, codes, distance, c = points_and_codes(
    embeddings, labels, taxonomy, distance, c
  )
  _checks.positive_int('num_shuffles', num_shuffles)
  rng = _checks.rng(seed)
  items = float('nan')
  if distance != 'cosine':
    parts = _spaces.parts(x)
    norms = np.concatenate([_distances.square_norm(part) for part in parts])
    norms = norms[:, 0]
    items = _correlation.spearman(norms, taxonomy.depth[codes])

  def of_nodes(codes):
    radii, depths = [], []
    for level, nodes in enumerate(taxonomy.path.T):
      # A class that lies higher was a node of its own level already.
      there = taxonomy.depth[codes] > level
      if not there.any():
        continue
      rows = x if there.all() else x[there]
      node = np.unique(nodes[codes[there]], return_inverse=True)[1]
      found = centroids_lib.of_codes(rows, node, c)
      radii.append(_distances.square_norm(found)[:, 0])
      depths.append(np.full(len(found), level))
    return _correlation.spearman(np.concatenate(radii), np.concatenate(depths))

  shuffled = [
    of_nodes(rng.permutation(codes))
    for _ in tqdm.tqdm(
      range(num_shuffles), desc='shuffles', delay=3, disable=not progress
    )
  ]
  return RadiusDepth(items, of_nodes(codes), known_mean(np.array(shuffled)))


def nearest_centroid(
  centroids, classes: Sequence[str], taxonomy: Taxonomy, *, c: float | None
) -> dict[str, float]:
  """Whether the nearest other centroid of each class belongs to its kin.

  Args:
    centroids: `[C, d]` of `class_centroids`.
    classes: names of the classes `[C]`, two or more.
    taxonomy: the classes' tree.
    c: curvature, see `hierarchy_metrics`.

  Returns:
    '<level>/nearest_centroid' of every level but the last: of the classes with
    kin at that level, the share whose nearest class centroid belongs to kin;
    NaN if no class has kin.

  Raises:
    UserError: see `graded_per_query`.
  """
  near = graded.graded_per_query(centroids, classes, taxonomy, c=c)
  found = {}
  for level, name in enumerate(taxonomy.level_names[:-1]):
    hits = near.rank[near.num_positives[:, level] > 0, level] == 1
    found[f'{name}/nearest_centroid'] = known_mean(hits.astype(float))
  return found


def points_and_codes(embeddings, labels, taxonomy: Taxonomy, distance, c):
  """The points, their classes, which distance is theirs, and c.

  Points of the hyperboloid become points of the ball, in float64. Euclidean
  points whose squares overflow or vanish are scaled, which changes no rank of
  their distances. All others stay as they are.
  """
  taxonomy_lib.expect(taxonomy)
  distance, c = _spaces.resolve(distance, c)
  x = _spaces.points('embeddings', embeddings, distance, c)
  if distance == 'lorentz':
    x, distance = _distances.to_ball(x, distance, c)
  if distance == 'euclidean':
    scale = _spaces.to_unit(x)
    if not 1 / _SQUARES < scale < _SQUARES:
      x = scale * x.astype(np.float64)
  labels = _checks.class_labels('labels', labels, len(x))
  return x, taxonomy.codes(labels), distance, c


def known_mean(values: np.ndarray) -> float:
  """Mean of what is not NaN; NaN where nothing is left."""
  kept = values[~np.isnan(values)]
  return float(kept.mean()) if len(kept) else float('nan')
