"""Retrieval metrics of a gallery that is relevant by degrees.

An item is at level l of a query where the taxonomy's levels 1 to l, counted
from the coarsest, are the same for both; L is the same class. Memory is
O(block x gallery): no array of queries x gallery is ever made.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation import taxonomy as taxonomy_lib
from hier_jax.evaluation.hierarchy._graded_scores import scores_of_levels
from hier_jax.evaluation.retrieval import _exact, _spaces
from hier_jax.evaluation.retrieval.lift import Lift
from hier_jax.evaluation.taxonomy import Taxonomy

TIES = ('pessimistic', 'optimistic')


class GradedPerQuery(NamedTuple):
  """Results of each query, in the order of the queries, as NumPy arrays.

  All are 0 where the gallery holds no positive: no item at level 1 for the
  first three, else no item at that level. `values` has NaN there.

  Attributes:
    h_ap: `[n]`, hierarchical AP.
    asi: `[n]`, average set intersection.
    ndcg: `[n]`, NDCG of the gains 2^level - 1.
    rank: `[n, L]` int32, rank of the best item at that level, from 1.
    ap: `[n, L]`, AP over the whole ranking of the items at that level.
    level_ndcg: `[n, L]`, NDCG where items at that level gain 1, others 0.
    num_positives: `[n, L]` int32, items that the gallery holds at that level.
    kin_ap: `[n, L - 1]`, as `ap` at all levels but the last, with the items of
      the query's own class taken out of the ranking.
    num_kin: `[n, L - 1]` int32, items of other classes at that level.
  """

  h_ap: np.ndarray
  asi: np.ndarray
  ndcg: np.ndarray
  rank: np.ndarray
  ap: np.ndarray
  level_ndcg: np.ndarray
  num_positives: np.ndarray
  kin_ap: np.ndarray
  num_kin: np.ndarray

  def values(
    self, level_names: Sequence[str], recall_at: Sequence[int]
  ) -> dict[str, np.ndarray]:
    """What each query adds to each mean of `hierarchy_metrics`.

    This is what `bootstrap_ci` and `paired_test` take.

    Args:
      level_names: names of the L levels.
      recall_at: the K of Recall@K.

    Returns:
      Key of `hierarchy_metrics` -> float64 `[n]`: 'h_ap', 'asi', 'ndcg' and
      '<level>/recall@K', '<level>/map', '<level>/ndcg', and at all levels but
      the last '<level>/map_other_classes'. NaN where the query has no positive
      and does not count.
    """

    def counted(values, level):
      return np.where(self.num_positives[:, level] > 0, values, np.nan)

    values = {
      key: counted(getattr(self, key), 0) for key in ('h_ap', 'asi', 'ndcg')
    }
    for level, name in enumerate(level_names):
      for k in recall_at:
        found = self.rank[:, level] <= k
        values[f'{name}/recall@{k}'] = counted(found, level)
      values[f'{name}/map'] = counted(self.ap[:, level], level)
      values[f'{name}/ndcg'] = counted(self.level_ndcg[:, level], level)
    kin = zip(self.kin_ap.T, self.num_kin.T, level_names[:-1], strict=True)
    for ap, num, name in kin:
      values[f'{name}/map_other_classes'] = np.where(num > 0, ap, np.nan)
    return values


def graded_per_query(
  embeddings,
  labels,
  taxonomy: Taxonomy,
  *,
  gallery=None,
  gallery_labels=None,
  distance: str | None = None,
  c: float | None = None,
  alpha: float = 1.0,
  drop_same_class: bool = False,
  ties: str = 'pessimistic',
  block: int = 64,
  progress: bool = False,
) -> GradedPerQuery:
  """Hierarchical AP, ASI and NDCG of every query, and metrics of each level.

  With the level l_k of the item at rank k, n_l items whose level is exactly l,
  R of level 1 or more, and sums over ranks k:

    H-AP = sum_k H-rank(k) / k / sum_k rel(l_k),  l_k > 0,
           rel(l) = (l / L)^alpha / n_l, rel(0) = 0,
           H-rank(k) = sum_{j <= k} min(rel(l_k), rel(l_j));
    ASI  = 1/R sum_{k <= R} 1/k sum_l min(of level l among the first k, the same
           in the ideal ranking), l > 0;
    NDCG = DCG / ideal DCG, DCG = sum_k (2^(l_k) - 1) / log2(1 + k).

  rel need not rise with the level: where 2 items are at level 3 and 1 is at
  level 2, H-AP wants the latter first (and is 1 for no ranking by level). The
  query counts among no n_l (in the HAPPIER authors' program it does, among
  those of its class). AP of level l is 1/R_l sum of the precision at the ranks
  of the R_l items of level l or more.

  Args:
    embeddings: queries `[n, d]`, any floating dtype.
    labels: classes of the queries `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.
    gallery: `[m, d]`; None means the queries, each of which is then left out
      of its own ranking (by index). Nothing is left out of a given gallery.
    gallery_labels: `[m]`, given exactly where `gallery` is.
    distance: 'cosine' (a zero row has similarity 0 to all), 'euclidean',
      'hyperbolic' for points of the Poincare ball, or 'lorentz' for points of
      the hyperboloid, time first. None for the one that c says.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      of curvature -c.
    alpha: exponent of H-AP's relevance.
    drop_same_class: whether items of the query's own class are taken out of
      the ranking at all levels but the last, where they would hide what is
      known of their kin. H-AP, ASI and `ndcg` keep them.
    ties: where items tie (see `per_query`), 'pessimistic' ranks those of lower
      level first, 'optimistic' the others.
    block: queries ranked at a time; peak memory is about
      `block * m * (L + 1) * 24` bytes beside a few copies of the embeddings.
    progress: whether to show a bar on stderr, after some seconds.

  Raises:
    UserError: rows with NaN or Inf, points outside the ball, wrong shapes,
      unequal dimensions, labels missing or unknown to the taxonomy, nothing to
      rank, bad options.

  References:
    Ramzi et al., Hierarchical Average Precision Training for Pertinent Image
    Retrieval, ECCV 2022, arXiv 2207.04873, section 3 (H-AP).
    Sun et al., Dynamic Metric Learning: Towards a Scalable Metric Space to
    Accommodate Multiple Semantic Scales, CVPR 2021, arXiv 2103.11781 (ASI).
    Jarvelin and Kekalainen, Cumulated Gain-Based Evaluation of IR Techniques,
    TOIS 2002; gains of Burges et al., Learning to Rank using Gradient Descent,
    ICML 2005 (NDCG).
  """
  if ties not in TIES:
    raise UserError(f'`ties` is {ties!r}; expected one of {list(TIES)}')
  if not 0 <= alpha < np.inf:
    raise UserError(
      f'`alpha` is {alpha}; expected a finite number of 0 or more'
    )
  block = _checks.positive_int('block', block)
  taxonomy = taxonomy_lib.expect(taxonomy)
  distance, c = _spaces.resolve(distance, c)
  x = _spaces.points('embeddings', embeddings, distance, c)
  codes = taxonomy.codes(_checks.class_labels('labels', labels, len(x)))
  if gallery is None and gallery_labels is None:
    y, gallery_codes, own = x, codes, np.arange(len(x))
  else:
    y, gallery_codes = _gallery(gallery, gallery_labels, taxonomy, distance, c)
    own = np.full(len(x), -1)
  _check_pair(x, y, own)
  ranking = _exact.Gallery(Lift.about(y, c=c, distance=distance), y)
  parts = []
  for start in tqdm.trange(
    *(0, len(x), block), desc='levels', delay=3, disable=not progress
  ):
    rows = slice(start, start + block)
    scores, length = ranking.scores(x[rows])
    levels = _ranked_levels(
      scores,
      length[:, None] * ranking.radius,
      taxonomy.common_levels(codes[rows, None], gallery_codes),
      own[rows],
      ties == 'pessimistic',
    )
    parts.append(
      scores_of_levels(levels, taxonomy.num_levels, alpha, drop_same_class)
    )
  return GradedPerQuery(*map(np.concatenate, zip(*parts, strict=True)))


def _gallery(gallery, labels, taxonomy, distance, c):
  """The checked points of a given gallery and their classes."""
  if gallery is None or labels is None:
    raise UserError(
      'only one of `gallery` and `gallery_labels` is given; pass both or none'
    )
  y = _spaces.points('gallery', gallery, distance, c)
  labels = _checks.class_labels('gallery_labels', labels, len(y))
  return y, taxonomy.codes(labels, 'gallery_labels')


def _check_pair(x, y, own):
  """Refuses queries and a gallery that do not go together."""
  if x.shape[1] != y.shape[1]:
    raise UserError(
      f'`gallery` has {y.shape[1]} dimensions and `embeddings` {x.shape[1]}; '
      'expected the same: embed both with one model'
    )
  if own[0] < 0:
    _checks.not_same('gallery', y, x)
  elif len(x) < 2:
    raise UserError(
      '`embeddings` has 1 row and no `gallery`; expected 2 rows or more'
    )


def _ranked_levels(scores, error, level, own, pessimistic):
  """Levels of the gallery from the nearest on, uint8 `[b, m]`.

  A column less where the queries stand in the gallery themselves.

  Args:
    scores: `[b, m]`, the larger the nearer.
    error: what they are off by at most, `[b, m]`.
    level: uint8 `[b, m]`.
    own: row of each query in the gallery, `[b]`; -1 where it is not there.
    pessimistic: whether the lower of two levels comes first at a tie.
  """
  queries = np.flatnonzero(own >= 0)
  scores[queries, own[queries]] = -np.inf
  order = np.argsort(-scores, axis=1)
  if len(queries):
    order = order[:, :-1]
  scores, error, level = (
    np.take_along_axis(x, order, 1) for x in (scores, error, level)
  )
  tied = scores[:, :-1] - scores[:, 1:] <= error[:, :-1] + error[:, 1:]
  rows = np.flatnonzero(tied.any(1))
  flip = np.uint8(0 if pessimistic else 255)
  # One number holds place and level: sorting it settles ties by the way.
  key = np.zeros((len(rows), level.shape[1]), np.int64)
  np.cumsum(~tied[rows], axis=1, out=key[:, 1:])
  key = (key << 8) | (level[rows] ^ flip)
  key.sort(axis=1)
  level[rows] = key.astype(np.uint8) ^ flip
  return level
