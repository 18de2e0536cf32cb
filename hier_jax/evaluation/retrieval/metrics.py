"""Exact retrieval figures of embeddings: Recall@K, MAP@R and their kin.

Works on plain arrays. Memory is O(block x tile) beside the embeddings: no array
of queries x gallery is ever made. All figures come from the ranks of a query's
positives: see `ranking`.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from hier_jax.errors import UserError
from hier_jax.evaluation import checks
from hier_jax.evaluation.retrieval import counters, layout, ranking, spaces
from hier_jax.evaluation.retrieval.lift import lift

__all__ = [
  'RECALL_AT',
  'PerQuery',
  'metric_keys',
  'per_query',
  'retrieval_metrics',
]

RECALL_AT = (1, 2, 4, 8)
_PRECISION = 'precision@'
# Figure -> the attribute of `PerQuery` that it is the mean of.
_MEANS = {
  'map@r': 'ap',
  'r_precision': 'r_precision',
  'mrr': 'reciprocal_rank',
  'map': 'full_ap',
}


class PerQuery(NamedTuple):
  """Results of each query, in the order of the queries, as NumPy arrays.

  All are 0 where the gallery holds no positive. The last four arrays are None
  where only the best positive was asked for.

  Attributes:
    rank: `[n]` int32, rank of the best positive from 1; float64 where ties are
      'mean'.
    num_positives: `[n]` int32, R: the positives that the gallery holds.
    ap: `[n]` float32, AP@R = 1/R sum_{k <= R} precision@k rel(k).
    r_precision: `[n]` float32, the share of positives among the first R.
    full_ap: `[n]` float32, 1/R sum_k precision@k rel(k) of the whole ranking.
    precision: `[n, P]` float32, the share of positives among the first k, for
      every k of `precision_at`.
    num_repeated: queries that bfloat16 was not enough for; None where it was
      not asked for.
  """

  rank: np.ndarray
  num_positives: np.ndarray
  ap: np.ndarray | None = None
  r_precision: np.ndarray | None = None
  full_ap: np.ndarray | None = None
  precision: np.ndarray | None = None
  num_repeated: int | None = None

  @property
  def reciprocal_rank(self) -> np.ndarray:
    """`[n]` float64, 1 / rank; 0 where the gallery holds no positive."""
    return (self.rank > 0) / np.maximum(self.rank, 1)


def metric_keys(
  recall_at: Sequence[int] = RECALL_AT, figures: Sequence[str] = ('map@r',)
) -> list[str]:
  """Keys of the means in the result of `retrieval_metrics`, in order."""
  return [*(f'recall@{k}' for k in recall_at), *figures]


def retrieval_metrics(
  embeddings,
  labels,
  *,
  recall_at: Sequence[int] = RECALL_AT,
  figures: Sequence[str] = ('map@r',),
  **options,
) -> dict[str, float | int]:
  """Recall@K and other means over the queries that have a positive.

  Recall@K is the share of queries whose best positive ranks K or better;
  MAP@R is the mean of AP@R.

  Args:
    embeddings: queries `[n, d]`, any floating dtype.
    labels: classes of the queries `[n]`, any dtype that sorts.
    recall_at: the K of Recall@K.
    figures: any of 'map@r', 'r_precision', 'mrr', 'map' (of the whole ranking)
      and 'precision@K' for any K. With none but 'mrr' only the best positives
      are ranked, which is faster.
    **options: of `per_query`, but `precision_at` and `best_only`.

  Returns:
    'recall@K' for every K and the figures, float64 means in [0, 1];
    'num_queries'; 'num_without_positive', how many of these have no positive in
    the gallery and are left out of the means; with `product='bfloat16'`
    'num_repeated'.

  Raises:
    UserError: bad arguments (see `per_query`), a K that is not a positive
      integer, an unknown figure, or no query that has a positive.
  """
  recall_at = [checks.positive_int('K of recall_at', k) for k in recall_at]
  precision_at = _precision_at(figures)
  result = per_query(
    embeddings,
    labels,
    precision_at=precision_at,
    best_only=set(figures) <= {'mrr'},
    **options,
  )
  answerable = result.num_positives > 0
  if not answerable.any():
    raise UserError(
      f'none of the {len(answerable)} queries has a positive in the gallery; '
      'expected classes of two items or more: check the labels'
    )
  values = {f'recall@{k}': result.rank <= k for k in recall_at}
  values |= {
    name: getattr(result, attribute)
    for name, attribute in _MEANS.items()
    if name in figures
  }
  if result.precision is not None:
    for k, column in zip(precision_at, result.precision.T, strict=True):
      values[f'{_PRECISION}{k}'] = column
  means = {
    key: float(np.mean(values[key][answerable], dtype=np.float64))
    for key in metric_keys(recall_at, figures)
  }
  means |= {
    'num_queries': len(answerable),
    'num_without_positive': int(np.sum(~answerable)),
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
  c: float = 0.0,
  metric: str | None = None,
  ties: str = 'pessimistic',
  precision_at: Sequence[int] = (),
  best_only: bool = False,
  block: int = 1024,
  tile: int = 4096,
  product: str = 'float32',
  devices=None,
) -> PerQuery:
  """Rank of the best positive and precisions of every query.

  Args:
    embeddings: queries `[n, d]`, any floating dtype.
    labels: classes of the queries `[n]`, any dtype that sorts.
    gallery: `[m, d]`; None means the queries, each of which is then left out
      of its own ranking (by index). Nothing is left out of a given gallery.
    gallery_labels: `[m]`, given exactly where `gallery` is.
    c: c > 0 for points of curvature -c; 0 for vectors.
    metric: 'cosine' similarity (a zero row has similarity 0 to all),
      'euclidean' distance, 'hyperbolic' distance of points of the Poincare ball
      of radius 1 / sqrt(c), or 'lorentz' for points of the hyperboloid, time
      first. None is hyperbolic where c > 0, else cosine.
    ties: where a positive and a negative score the same in float32,
      'pessimistic' ranks the negative first, 'optimistic' the positive; 'mean'
      is half way between these two ranks. Identical gallery rows always tie.
    precision_at: the k of `PerQuery.precision`.
    best_only: whether the rank of the best positive is enough; every other one
      costs a tenth of the matrix product or less.
    block: queries scored at a time.
    tile: gallery rows scored at a time, taken up to a power of two.
    product: 'bfloat16' multiplies in it and bounds the error: a query whose
      ranks that leaves open goes through in float32 after all. The result is
      the same to the bit; what pays depends on the device and on how far
      positives and negatives are apart.
    devices: what the gallery is spread over; all local devices by default. With
      those of several processes (`jax.devices()`) every process makes the same
      call and has the whole result.

  Raises:
    UserError: rows with NaN or Inf, points outside the ball or off the
      hyperboloid, wrong shapes, unequal dimensions, labels missing or of
      another length than their rows, nothing to rank, options out of range.

  References:
    Musgrave et al., A Metric Learning Reality Check, arXiv 2003.08505.
  """
  _check_option('ties', ties, counters.AHEAD)
  _check_option('product', product, ('float32', 'bfloat16'))
  block = checks.positive_int('block', block)
  tile = checks.positive_int('tile', tile)
  precision_at = [
    checks.positive_int('k of precision_at', k) for k in precision_at
  ]
  c = checks.curvature('c', c)
  metric = spaces.resolve(metric, c)
  queries = spaces.points('embeddings', embeddings, metric, c)
  labels = _labels('labels', labels, queries)
  gallery, gallery_labels, own = _gallery(
    queries, labels, gallery, gallery_labels, metric, c
  )
  codes, gallery_codes = _class_codes(labels, gallery_labels)
  places = layout.by_class(codes, gallery_codes, own)
  queries, lifted = lift(queries, gallery, c=c, metric=metric)
  ranker = ranking.Ranker(
    lifted,
    places,
    ties=ties,
    best_only=best_only,
    block=block,
    tile=tile,
    narrow=product == 'bfloat16',
    devices=devices,
  )
  del lifted  # The ranker has a copy of its own.
  result: dict[str, np.ndarray] = {}
  for some, ahead in ranker.negatives_ahead(queries):
    r = places.num_positives[some]
    found = _figures(ahead, r, precision_at, best_only)
    for name, values in found.items():
      if name not in result:
        shape = len(queries), *values.shape[1:]
        result[name] = np.zeros(shape, values.dtype)
      result[name][places.queries[some]] = values
  return PerQuery(**result, num_repeated=ranker.num_repeated)


def _figures(ahead, r, precision_at, best_only) -> dict[str, np.ndarray]:
  """Attributes of `PerQuery` from the negatives ahead of each positive.

  Args:
    ahead: `[s, b, J]` of `ranking.Ranker`, J = 1 where only the best positive
      is asked for.
    r: R `[b]`.
    precision_at: the k of the precisions.
    best_only: whether only the best positive is asked for.
  """
  j = np.arange(1, 1 + ahead.shape[2])
  ranks = j + (ahead[0] if len(ahead) == 1 else ahead.mean(0))
  rank = np.where(r > 0, ranks[:, 0], 0)
  found = {'num_positives': r.astype(np.int32)}
  found['rank'] = rank.astype(np.int32 if len(ahead) == 1 else np.float64)
  if best_only:
    return found
  among_all = j <= r[:, None]
  precision = np.where(among_all, j / ranks, 0)
  among_r = among_all & (ranks <= r[:, None])
  hits = [np.sum(among_all & (ranks <= k), 1) / k for k in precision_at]
  r = np.maximum(r, 1)
  shares = {
    'ap': np.sum(np.where(among_r, precision, 0), 1) / r,
    'r_precision': np.sum(among_r, 1) / r,
    'full_ap': np.sum(precision, 1) / r,
    'precision': np.stack([*hits, r], 1)[:, :-1],
  }
  return found | {name: x.astype(np.float32) for name, x in shares.items()}


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
  gallery_labels = _labels('gallery_labels', gallery_labels, gallery)
  return gallery, gallery_labels, np.full(len(queries), -1)


def _class_codes(labels, gallery_labels):
  """The classes of both as integers from 0, equal where the labels are."""
  both = np.concatenate([labels, gallery_labels])
  codes = np.unique(both, return_inverse=True)[1]
  return codes[: len(labels)], codes[len(labels) :]


def _labels(name, labels, rows):
  labels = checks.class_labels(name, labels, len(rows))
  checks.labelled(name, labels)
  return labels


def _check_option(name, value, options):
  if value not in options:
    raise UserError(f'`{name}` is {value!r}; expected one of {list(options)}')


def _precision_at(figures) -> list[int]:
  """The K of the figures 'precision@K'.

  Raises:
    UserError: an unknown figure.
  """
  ks = []
  for name in figures:
    k = name.removeprefix(_PRECISION)
    if name not in _MEANS and (k == name or not k.isdecimal() or int(k) < 1):
      raise UserError(
        f'`figures` has {name!r}; expected any of {list(_MEANS)} and '
        "'precision@K' with K of 1 or more"
      )
    if k != name:
      ks.append(int(k))
  return ks
