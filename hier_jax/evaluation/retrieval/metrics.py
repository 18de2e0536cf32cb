"""Exact retrieval metrics of embeddings: Recall@K, MAP@R and their kin.

Works on plain arrays. Memory is O(block x tile) beside copies of the embeddings
in float32 and, where queries go through float64, in that: no array of queries x
gallery is ever made. All metrics come from the ranks of a query's positives:
see `ranking`, and `exact` for what float32 leaves open.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import NamedTuple

import numpy as np
import tqdm

from hier_jax.errors import UserError
from hier_jax.evaluation import checks
from hier_jax.evaluation.retrieval import (
  exact,
  layout,
  outcomes,
  ranking,
  spaces,
  tiles,
)
from hier_jax.evaluation.retrieval.lift import Lift

__all__ = [
  'RECALL_AT',
  'PerQuery',
  'metric_keys',
  'per_query',
  'retrieval_metrics',
]

RECALL_AT = (1, 2, 4, 8)
_PRECISION = 'precision@'
# Products of two numbers that float64 may take, or a quarter of all: seconds.
_MOST_EXACT = 1 << 37
# Metric -> the attribute of `PerQuery` that it is the mean of.
_MEANS = {
  'map@r': 'ap',
  'r_precision': 'r_precision',
  'mrr': 'reciprocal_rank',
  'map': 'full_ap',
}


class PerQuery(NamedTuple):
  """Results of each query, in the order of the queries, as NumPy arrays.

  All are 0 where the gallery holds no positive; `values` has NaN there. `ap`,
  `r_precision`, `full_ap` and `precision` are None where only the best positive
  was asked for.

  Attributes:
    rank: `[n]` float64, rank of the best positive from 1.
    num_positives: `[n]` int32, R: the positives that the gallery holds.
    reciprocal_rank: `[n]` float64, 1 / rank.
    recall: `[n, K]` float64, whether the rank is K or better, for every K of
      `recall_at`; where ties are 'expected' the probability of that.
    tied: `[n]` bool, whether any of these depends on the order of what ties.
    unresolved: `[n]` bool, whether any of these is a bound: float32 could not
      tell items apart, and float64 would have taken too long.
    ap: `[n]` float32, AP@R = 1/R sum_{k <= R} precision@k rel(k).
    r_precision: `[n]` float32, the share of positives among the first R.
    full_ap: `[n]` float32, 1/R sum_k precision@k rel(k) of the whole ranking.
    precision: `[n, P]` float32, the share of positives among the first k, for
      every k of `precision_at`.
    recall_at: the K of `recall`.
    precision_at: the k of `precision`.
    num_repeated: queries that bfloat16 was not enough for; None where it was
      not asked for.
  """

  rank: np.ndarray
  num_positives: np.ndarray
  reciprocal_rank: np.ndarray
  recall: np.ndarray
  tied: np.ndarray
  unresolved: np.ndarray
  ap: np.ndarray | None = None
  r_precision: np.ndarray | None = None
  full_ap: np.ndarray | None = None
  precision: np.ndarray | None = None
  recall_at: tuple[int, ...] = ()
  precision_at: tuple[int, ...] = ()
  num_repeated: int | None = None

  def values(self) -> dict[str, np.ndarray]:
    """What each query adds to each mean of `retrieval_metrics`.

    This is what `bootstrap_ci` and `paired_test` take: they leave out NaN, so
    that their mean is that of `retrieval_metrics`.

    Returns:
      Key of `retrieval_metrics` -> float64 `[n]`: 'recall@K' and 'precision@K'
      of every K asked for, 'mrr' and, unless only the best positives were
      ranked, 'map@r', 'r_precision' and 'map'. NaN where the gallery holds no
      positive and the query does not count.
    """
    columns = dict(
      zip(_recall_keys(self.recall_at), self.recall.T, strict=True)
    )
    if self.precision is not None:
      keys = (f'{_PRECISION}{k}' for k in self.precision_at)
      columns |= dict(zip(keys, self.precision.T, strict=True))
    for key, name in _MEANS.items():
      if (column := getattr(self, name)) is not None:
        columns[key] = column
    counts = self.num_positives > 0
    return {
      key: np.where(counts, column.astype(np.float64), np.nan)
      for key, column in columns.items()
    }


def metric_keys(
  recall_at: Sequence[int] = RECALL_AT, metrics: Sequence[str] = ('map@r',)
) -> list[str]:
  """Keys of the means in the result of `retrieval_metrics`, in order."""
  return [*_recall_keys(recall_at), *metrics]


def _recall_keys(recall_at):
  return [f'recall@{k}' for k in recall_at]


def retrieval_metrics(
  embeddings,
  labels,
  *,
  recall_at: Sequence[int] = RECALL_AT,
  metrics: Sequence[str] = ('map@r',),
  gallery=None,
  gallery_labels=None,
  c: float | None = None,
  metric: str | None = None,
  ties: str = 'pessimistic',
  block: int = 1024,
  tile: int = 4096,
  product: str = 'float32',
  devices=None,
  progress: bool = False,
) -> dict[str, float | int | str]:
  """Recall@K and other means over the queries that have a positive.

  Recall@K is the share of queries whose best positive ranks K or better;
  MAP@R is the mean of AP@R.

  Args:
    embeddings: queries `[n, d]`, any floating dtype.
    labels: classes of the queries `[n]`, see `per_query`.
    recall_at: the K of Recall@K.
    metrics: any of 'map@r', 'r_precision', 'mrr', 'map' (of the whole ranking)
      and 'precision@K' for any K. With none but 'mrr' only the best positives
      are ranked, which is faster.
    gallery: `[m, d]`; None for the queries, each left out of its own ranking.
    gallery_labels: `[m]`, given exactly where `gallery` is.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      (or the hyperboloid) of curvature -c.
    metric: 'cosine', 'euclidean', 'hyperbolic' for points of the ball or
      'lorentz' for points of the hyperboloid; None for the one that c says,
      which is never 'lorentz'.
    ties: how equal distances rank: 'pessimistic' puts negatives first,
      'optimistic' positives; 'expected' is the mean over all orders of what
      ties; for 'mean' see `per_query`.
    block: queries scored at a time.
    tile: gallery rows scored at a time, taken up to a power of two.
    product: 'float32', or 'bfloat16' to multiply in it first, with the same
      result.
    devices: what the gallery is spread over; None for all local devices.
    progress: whether to show a bar on stderr, after some seconds.

  Returns:
    'recall@K' for every K and the metrics, float64 means in [0, 1];
    'num_queries'; 'num_without_positive', how many of these have no positive in
    the gallery and are left out of the means; 'num_tied' and 'num_unresolved',
    of how many any of the metrics depends on the order of ties, or is only
    bounded (see `PerQuery`); 'distance' and 'ties', what was ranked by; with
    `product='bfloat16'` 'num_repeated'.

  Raises:
    UserError: bad arguments (see `per_query`), a K that is not a positive
      integer, an unknown metric, or no query that has a positive.
  """
  recall_at = [checks.positive_int('K of recall_at', k) for k in recall_at]
  precision_at = _precision_at(metrics)
  attributes = {_MEANS[name] for name in metrics if name in _MEANS}
  result = per_query(
    embeddings,
    labels,
    recall_at=recall_at,
    precision_at=precision_at,
    best_only=set(metrics) <= {'mrr'},
    attributes=attributes | {'recall', 'precision'},
    gallery=gallery,
    gallery_labels=gallery_labels,
    c=c,
    metric=metric,
    ties=ties,
    block=block,
    tile=tile,
    product=product,
    devices=devices,
    progress=progress,
  )
  answerable = result.num_positives > 0
  if not answerable.any():
    raise UserError(
      f'none of the {len(answerable)} queries has a positive in the gallery; '
      'expected classes of two items or more: check the labels'
    )
  values = result.values()
  means: dict[str, float | int | str] = {
    key: float(np.mean(values[key][answerable]))
    for key in metric_keys(recall_at, metrics)
  }
  means |= {
    'num_queries': len(answerable),
    'num_without_positive': int(np.sum(~answerable)),
    'num_tied': int(np.sum(result.tied)),
    'num_unresolved': int(np.sum(result.unresolved)),
    'distance': spaces.described(metric, c),
    'ties': ties,
  }
  if result.num_repeated is not None:
    means['num_repeated'] = result.num_repeated
  return means


def per_query(
  embeddings,
  labels,
  *,
  gallery=None,
  gallery_labels=None,
  c: float | None = None,
  metric: str | None = None,
  ties: str = 'pessimistic',
  recall_at: Sequence[int] = (),
  precision_at: Sequence[int] = (),
  best_only: bool = False,
  block: int = 1024,
  tile: int = 4096,
  product: str = 'float32',
  devices=None,
  progress: bool = False,
  attributes: Collection[str] = PerQuery._fields,
) -> PerQuery:
  """Rank of the best positive and precisions of every query.

  Items are ranked in float32, with a bound of its rounding, and what that
  leaves open is ranked in float64 on the host. Two items tie where float64
  cannot tell them apart: by about 1e-16 d of the largest part of their score.
  So whatever is equal in exact arithmetic ties: identical rows, integers,
  mirror images, permuted coordinates, by every metric. (Near the boundary of
  the ball, 1 - c|y|^2 of a float64 point is known to 1e-16 only: what differs
  by less ties too.) Float64 takes 2^37 products or a quarter of all, whichever
  is more; what is left then is `unresolved`, and ties.

  Args:
    embeddings: queries `[n, d]`, any floating dtype.
    labels: classes of the queries `[n]`: numbers, text, bytes or bools, and
      those of the gallery alike. They are compared exactly.
    gallery: `[m, d]`; None means the queries, each of which is then left out
      of its own ranking (by index). Nothing is left out of a given gallery.
    gallery_labels: `[m]`, given exactly where `gallery` is.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      (or the hyperboloid) of curvature -c.
    metric: 'cosine' similarity (a zero row has similarity 0 to all),
      'euclidean' distance, 'hyperbolic' distance of points of the Poincare ball
      of radius 1 / sqrt(c), or 'lorentz' for points of the hyperboloid, time
      first. None for the one that c says, which is never 'lorentz'.
    ties: where a positive and a negative tie, 'pessimistic' ranks the negative
      first and 'optimistic' the positive. 'expected' gives the mean of every
      attribute over all orders of what ties. 'mean' is half way between the
      pessimistic and the optimistic rank of each positive, and everything else
      is made of those ranks: that is no mean of anything else.
    recall_at: the K of `PerQuery.recall`.
    precision_at: the k of `PerQuery.precision`.
    best_only: whether the rank of the best positive is enough; every other one
      costs a tenth of the matrix product or less. Not where ties are
      'expected'.
    block: queries scored at a time.
    tile: gallery rows scored at a time, taken up to a power of two.
    product: 'bfloat16' multiplies in it first. The result is the same; what
      pays depends on the device and on how far positives and negatives are
      apart.
    devices: what the gallery is spread over; all local devices by default. With
      those of several processes (`jax.devices()`) every process makes the same
      call and has the whole result.
    progress: whether to show a bar on stderr, after some seconds.
    attributes: of the result, those that have to be right; ties that only
      others depend on are not resolved.

  Raises:
    UserError: rows with NaN or Inf, points outside the ball or off the
      hyperboloid, wrong shapes, unequal dimensions, labels missing or of
      another length than their rows or not comparable, nothing to rank, the
      queries as their own gallery, options out of range.

  References:
    Musgrave et al., A Metric Learning Reality Check, arXiv 2003.08505.
    McSherry and Najork, Computing Information Retrieval Performance Measures
    Efficiently in the Presence of Tied Scores, ECIR 2008 (expected).
  """
  _check_option('ties', ties, outcomes.TIES)
  _check_option('product', product, ('float32', 'bfloat16'))
  block = checks.positive_int('block', block)
  tile = checks.positive_int('tile', tile)
  wanted = outcomes.Wanted(
    ties,
    [checks.positive_int('K of recall_at', k) for k in recall_at],
    [checks.positive_int('k of precision_at', k) for k in precision_at],
    best_only and ties != 'expected',
    set(attributes),
  )
  metric, c = spaces.resolve(metric, c)
  queries = spaces.points('embeddings', embeddings, metric, c)
  labels = checks.class_labels('labels', labels, len(queries))
  gallery, gallery_labels, own = _gallery(
    queries, labels, gallery, gallery_labels, metric, c
  )
  codes, gallery_codes = checks.class_codes(labels, gallery_labels)
  if own[0] < 0:
    checks.not_same('gallery', gallery, queries)
  work = _Ranking(
    queries,
    gallery,
    layout.by_class(codes, gallery_codes, own),
    Lift.about(gallery, c=c, metric=metric),
    wanted,
  )
  with tqdm.tqdm(
    total=len(queries), desc='ranking', delay=3, disable=not progress
  ) as bar:
    work.run(bar, block, tile, product == 'bfloat16', devices)
  return work.result()


class _Ranking:
  """Queries on their way through one precision after another."""

  def __init__(self, queries, gallery, places, lift, wanted):
    self._queries, self._gallery = queries, gallery
    self._layout, self._lift, self._wanted = places, lift, wanted
    self._found = {'num_positives': np.zeros(len(queries), np.int32)}
    self._found['num_positives'][places.queries] = places.num_positives
    self._num_repeated = None

  def run(self, bar, block, tile, narrow, devices):
    """Ranks all queries."""
    ranker = ranking.Ranker(
      self._lift,
      self._gallery,
      self._layout,
      best_only=self._wanted.best_only,
      block=block,
      tile=tile,
      narrow=narrow,
      devices=devices,
    )
    left, late = np.arange(len(self._queries)), np.arange(0)
    if ranker.on_cpu and not self._wanted.best_only:
      # A CPU sorts scores sooner than XLA has it look them up.
      large = self._layout.num_positives > tiles.MANY
      left, late = left[~large], left[large]
    for in_narrow in [True, False] if narrow else [False]:
      found = ranker.negatives_ahead(self._queries, left, narrow=in_narrow)
      left = self._take(found, bar)
      if in_narrow:
        self._num_repeated = len(left)
    unresolved = left[self._affordable() :]
    self._settle(np.concatenate([late, left[: self._affordable()]]), bar)
    self._mark('unresolved', unresolved)
    bar.update(bar.total - bar.n)

  def _settle(self, places, bar):
    """Ranks queries in float64: what is open after that are ties."""
    found: Iterable = ()
    if len(places):
      order = self._layout.gallery
      gallery = exact.Gallery(self._lift, self._gallery[order])
      found = exact.negatives_ahead(
        gallery, self._queries, self._layout, places
      )
    self._mark('tied', self._take(found, bar))

  def _affordable(self):
    """How many queries float64 may take."""
    products = self._gallery.size
    return max(_MOST_EXACT // products, len(self._queries) // 4)

  def _take(self, found, bar):
    """Keeps what counts say; returns the places that they leave open."""
    left = [np.arange(0)]
    for some, counts in found:
      values, hangs = self._wanted.of(counts, self._layout.num_positives[some])
      for name, rows in values.items():
        if name not in self._found:
          shape = len(self._queries), *rows.shape[1:]
          self._found[name] = np.zeros(shape, rows.dtype)
        self._found[name][self._layout.queries[some]] = rows
      left.append(some[hangs])
      bar.update(int(np.sum(~hangs)))
    return np.concatenate(left)

  def _mark(self, name, places):
    marks = np.zeros(len(self._queries), bool)
    marks[self._layout.queries[places]] = True
    self._found[name] = marks

  def result(self):
    """`PerQuery` of all queries."""
    return PerQuery(
      **self._found,
      num_repeated=self._num_repeated,
      recall_at=tuple(self._wanted.recall_at),
      precision_at=tuple(self._wanted.precision_at),
    )


def _gallery(queries, labels, gallery, gallery_labels, metric, c):
  """The checked gallery, its labels, and each query's own row in it or -1."""
  if (gallery is None) != (gallery_labels is None):
    raise UserError(
      'only one of `gallery` and `gallery_labels` is given; pass both or none'
    )
  if gallery is None:
    if len(queries) < 2:
      raise UserError(
        '`embeddings` has 1 row and no `gallery`; expected 2 rows or more'
      )
    return queries, labels, np.arange(len(queries))
  gallery = spaces.points('gallery', gallery, metric, c)
  if gallery.shape[1] != queries.shape[1]:
    raise UserError(
      f'`gallery` has {gallery.shape[1]} dimensions and `embeddings` '
      f'{queries.shape[1]}; expected the same: embed both with one model'
    )
  gallery_labels = checks.class_labels(
    'gallery_labels', gallery_labels, len(gallery)
  )
  return gallery, gallery_labels, np.full(len(queries), -1)


def _check_option(name, value, options):
  if value not in options:
    raise UserError(f'`{name}` is {value!r}; expected one of {list(options)}')


def _precision_at(metrics) -> list[int]:
  """The K of the metrics 'precision@K'.

  Raises:
    UserError: an unknown metric.
  """
  ks = []
  for name in metrics:
    k = name.removeprefix(_PRECISION)
    if name not in _MEANS and (k == name or not k.isdecimal() or int(k) < 1):
      raise UserError(
        f'`metrics` has {name!r}; expected any of {list(_MEANS)} and '
        "'precision@K' with K of 1 or more"
      )
    if k != name:
      ks.append(int(k))
  return ks
