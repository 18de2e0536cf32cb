"""Retrieval metrics of a gallery that is relevant by degrees.

An item is at level l of a query if both belong to the same nodes at the
taxonomy's levels 1 to l, counted from the coarsest; level L is the same class.
Memory is O(block x gallery): no array of queries x gallery is ever made. Scores
are made and ranked in float64, in several threads.
"""

import functools
import os
from collections.abc import Sequence
from concurrent import futures
from typing import NamedTuple

import numpy as np
import tqdm
from numpy.typing import ArrayLike

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation import taxonomy as taxonomy_lib
from hier_jax.evaluation.hierarchy._graded_scores import Sums, scores_of_kin
from hier_jax.evaluation.hierarchy._kin_ranks import Gallery, Queries
from hier_jax.evaluation.retrieval import _exact, _spaces
from hier_jax.evaluation.retrieval._outcomes import Wanted
from hier_jax.evaluation.retrieval.lift import Lift
from hier_jax.evaluation.retrieval.per_query import PerQuery
from hier_jax.evaluation.taxonomy import Taxonomy

TIES = ('pessimistic', 'optimistic')
# Queries at most, and scores, that are held at a time.
_MOST, _SCORES = 256, 1 << 25
# Each holds some arrays as long as the gallery.
_THREADS = min(8, os.cpu_count() or 1)


class GradedPerQuery(NamedTuple):
  """Results of each query, in the order of the queries, as NumPy arrays.

  A value is 0 if the gallery holds no positive: no item at level 1 for the
  first three, no item at that level for the others. `values` has NaN there.

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
    """The values of single queries whose means `hierarchy_metrics` reports.

    This is what `bootstrap_ci` and `paired_test` take.

    Args:
      level_names: names of the L levels.
      recall_at: the K of Recall@K.

    Returns:
      Key of `hierarchy_metrics` -> float64 `[n]`: 'h_ap', 'asi', 'ndcg' and
      '<level>/recall@K', '<level>/map', '<level>/ndcg', and at all levels but
      the last '<level>/map_other_classes'. NaN if the query has no positive and
      so does not count.
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
  block: int | None = None,
  rows: ArrayLike | None = None,
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

  rel need not rise with the level: with 2 items at level 3 and 1 item at level
  2, H-AP wants the item of level 2 first (so no ranking by level reaches 1).
  The query itself is in no n_l; in the HAPPIER authors' program it counts as an
  item of its own class. AP of level l is 1/R_l sum of the precision at the
  ranks of the R_l items of level l or more.

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
    drop_same_class: whether to take items of the query's own class out of the
      ranking at all levels but the last, where they would hide how kin are
      ranked. H-AP, ASI and `ndcg` keep them.
    ties: order of items that tie (see `per_query`): 'pessimistic' ranks items
      of lower level first, 'optimistic' items of higher level.
    block: queries whose scores are held at a time, `block * m * 8` bytes; None
      for 256, or what takes a quarter of a gigabyte where that is less. Each
      thread takes about `60 * (m + L * R)` bytes more, R being the items that
      share a level with the query; and the embeddings a copy in float64.
    rows: which queries to rank `[q]`, rows of the embeddings; None for all. The
      result has these alone, in this order.
    progress: whether to show a bar on stderr, after some seconds.

  Raises:
    UserError: rows with NaN or Inf, points outside the ball, wrong shapes,
      unequal dimensions, labels that are missing or not in the taxonomy,
      nothing to rank, bad options.

  References:
    Ramzi et al., Hierarchical Average Precision Training for Pertinent Image
    Retrieval, ECCV 2022, arXiv 2207.04873, section 3 (H-AP).
    Sun et al., Dynamic Metric Learning: Towards a Scalable Metric Space to
    Accommodate Multiple Semantic Scales, CVPR 2021, arXiv 2103.11781 (ASI).
    Jarvelin and Kekalainen, Cumulated Gain-Based Evaluation of IR Techniques,
    TOIS 2002; gains of Burges et al., Learning to Rank using Gradient Descent,
    ICML 2005 (NDCG).
  """
  return ranked(
    embeddings,
    labels,
    taxonomy,
    gallery=gallery,
    gallery_labels=gallery_labels,
    distance=distance,
    c=c,
    alpha=alpha,
    drop_same_class=drop_same_class,
    ties=ties,
    block=block,
    rows=rows,
    progress=progress,
  )[0]


def ranked(
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
  block: int | None = None,
  rows: ArrayLike | None = None,
  progress: bool = False,
  wanted: Wanted | None = None,
  threads: int = _THREADS,
) -> tuple[GradedPerQuery, PerQuery | None]:
  """`graded_per_query`, and `per_query` of the same ranking.

  Args:
    embeddings: see `graded_per_query`, as for all that is not told here.
    labels: `[n]`.
    taxonomy: the classes' tree.
    gallery: `[m, d]`.
    gallery_labels: `[m]`.
    distance: by which items are ranked.
    c: curvature.
    alpha: exponent of H-AP's relevance.
    drop_same_class: whether to take them out.
    ties: order of items that tie, of the first result.
    block: queries at a time.
    rows: which queries.
    progress: whether to show a bar.
    wanted: what the second result is to hold, by its own rule of ties.
    threads: that rank at a time, besides BLAS's own.

  Returns:
    Both results; the second is None where it is not wanted, and where two
    labels are of one class.

  Raises:
    UserError: see `graded_per_query`.
  """
  if ties not in TIES:
    raise UserError(f'`ties` is {ties!r}; expected one of {list(TIES)}')
  alpha = _checks.real(
    'alpha', alpha, lambda x: 0 <= x < np.inf, 'a finite number of 0 or more'
  )
  if block is not None:
    block = _checks.positive_int('block', block)
  taxonomy = taxonomy_lib.expect(taxonomy)
  distance, c = _spaces.resolve(distance, c)
  x = _spaces.points('embeddings', embeddings, distance, c)
  labels = _checks.class_labels('labels', labels, len(x))
  codes = taxonomy.codes(labels)
  if gallery is None and gallery_labels is None:
    y, gallery_codes, own = x, codes, np.arange(len(x))
    gallery_labels = labels
  else:
    y, gallery_labels = _gallery(gallery, gallery_labels, distance, c)
    gallery_codes = taxonomy.codes(gallery_labels, 'gallery_labels')
    own = np.full(len(x), -1)
  _check_pair(x, y, own)
  nodes = (taxonomy.path[some, -1] for some in (codes, gallery_codes))
  if not _as_many((labels, gallery_labels), nodes):
    wanted = None
  chosen = np.arange(len(x))
  if rows is not None:
    chosen = _checks.row_numbers('rows', rows, len(x))
  # Kin side by side, of the items and of the queries.
  sort = lambda codes: np.lexsort(taxonomy.path[codes].T[::-1])
  by_kin = sort(gallery_codes)
  # The last entry is for own = -1.
  place = np.full(len(y) + 1, -1)
  place[by_kin] = np.arange(len(y))
  ranking = _exact.Gallery(Lift.about(y, c=c, distance=distance), y[by_kin])
  items = Gallery(
    np.ascontiguousarray(taxonomy.path.T[:, gallery_codes[by_kin]]),
    ranking.radius,
    float(ranking.radius.max()),
    ties == 'pessimistic',
    wanted is not None,
  )
  score = functools.partial(
    scores_of_kin,
    sums=Sums.of(len(y)),
    depth=taxonomy.num_levels,
    alpha=alpha,
    drop_same_class=drop_same_class,
  )
  block = block or block_of(len(y))
  order = sort(codes[chosen])
  parts = _blocks(
    ranking, x, taxonomy.path[codes], place[own], chosen[order], block, progress
  )
  found, outcomes = _scored(items, parts, score, wanted, threads)
  # Back to the order that was asked for.
  back = np.argsort(order)
  graded = GradedPerQuery(*(column[back] for column in found))
  if wanted is None:
    return graded, None
  return graded, PerQuery(
    **{name: column[back] for name, column in outcomes.items()},
    unresolved=np.zeros(len(chosen), bool),
    recall_at=tuple(wanted.recall_at),
    precision_at=tuple(wanted.precision_at),
  )


def block_of(num_items: int) -> int:
  """How many queries are scored at a time against that many items."""
  return int(np.clip(_SCORES // num_items, 1, _MOST))


def _blocks(ranking, x, path, own, chosen, block, progress):
  """`Queries`, a block of those chosen at a time, with a bar."""
  with tqdm.tqdm(
    total=len(chosen), desc='levels', delay=3, disable=not progress
  ) as bar:
    for part, scores, length in ranking.blocks(x[chosen], block):
      rows = chosen[part]
      yield Queries(scores, length, path[rows], own[rows])
      bar.update(len(rows))


def _scored(items, blocks, score, wanted, threads):
  """The attributes of both results, of all queries in their order."""

  def of_group(group):
    kin = group.kin(items)
    outcomes = () if wanted is None else _outcomes_of(kin.ahead, wanted)
    return score(kin), outcomes

  parts: list[tuple[tuple, dict]] = []
  with futures.ThreadPoolExecutor(threads) as pool:
    for queries in blocks:
      parts += pool.map(of_group, queries.groups(items))
  graded, outcomes = zip(*parts, strict=True)
  together = {
    name: np.concatenate([part[name] for part in outcomes])
    for name in outcomes[0]
  }
  return map(np.concatenate, zip(*graded, strict=True)), together


def _outcomes_of(ahead, wanted):
  """Attributes of `PerQuery` of some queries, of their `Kin.ahead`."""
  num = np.array([found.shape[1] for found in ahead], np.int32)
  values, tied = wanted.of(_exact.padded(ahead), num)
  return values | {'num_positives': num, 'tied': tied}


def _gallery(gallery, labels, distance, c):
  """The checked points and labels of a given gallery."""
  if gallery is None or labels is None:
    raise UserError(
      'only one of `gallery` and `gallery_labels` is given; pass both or none'
    )
  y = _spaces.points('gallery', gallery, distance, c)
  return y, _checks.class_labels('gallery_labels', labels, len(y))


def _as_many(labels, nodes):
  """Whether each label has a node of its own, of queries' and gallery's."""
  num_labels, num_nodes = (
    len(np.unique(np.concatenate([*both]))) for both in (labels, nodes)
  )
  return num_labels == num_nodes


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
