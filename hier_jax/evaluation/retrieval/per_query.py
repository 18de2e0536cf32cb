"""Exact ranks of the positives of each query, and what follows from them.

Everything works on plain arrays. Memory is O(block x tile) beside copies of the
embeddings in float32, and in float64 if queries need it: no array of queries x
gallery is ever made. All metrics follow from the ranks of a query's positives:
see `_ranking`, and `_exact` for what float32 leaves open.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import NamedTuple

import jax
import numpy as np
import tqdm
from jaxtyping import Float, Shaped
from numpy.typing import ArrayLike

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation.retrieval import _layout, _outcomes, _spaces
from hier_jax.evaluation.retrieval._passes import Passes
from hier_jax.evaluation.retrieval.lift import Lift

PRECISION = 'precision@'
# Key of a mean -> the attribute of `PerQuery` that it is the mean of.
MEANS = {
  'map@r': 'ap',
  'r_precision': 'r_precision',
  'mrr': 'reciprocal_rank',
  'map': 'full_ap',
}


class PerQuery(NamedTuple):
  """Results of each query, in the order of the queries, as NumPy arrays.

  Values are 0 if the gallery holds no positive; `values` has NaN there. `ap`,
  `r_precision`, `full_ap` and `precision` are None if only the best positive
  was asked for.

  Attributes:
    rank: `[n]` float64, rank of the best positive from 1.
    num_positives: `[n]` int32, the number R of positives in the gallery.
    reciprocal_rank: `[n]` float64, 1 / rank.
    recall: `[n, K]` float64, whether the rank is K or better, for every K of
      `recall_at`; with ties 'expected', the probability of that.
    tied: `[n]` bool, whether any of these depends on the order of what ties.
    unresolved: `[n]` bool, whether any of these is only a bound, because
      float32 could not tell items apart and float64 would have taken too long.
    ap: `[n]` float32, AP@R = 1/R sum_{k <= R} precision@k rel(k).
    r_precision: `[n]` float32, the share of positives among the first R.
    full_ap: `[n]` float32, 1/R sum_k precision@k rel(k) of the whole ranking.
    precision: `[n, P]` float32, the share of positives among the first k, for
      every k of `precision_at`.
    recall_at: the K of `recall`.
    precision_at: the k of `precision`.
    num_repeated: number of queries for which bfloat16 was not enough; None if
      it was not asked for.
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
    """The values of single queries whose means `retrieval_metrics` reports.

    Pass these to `bootstrap_ci` and `paired_test`: both leave out NaN, so their
    mean is the one that `retrieval_metrics` reports.

    Returns:
      Key of `retrieval_metrics` -> float64 `[n]`: 'recall@K' and 'precision@K'
      of every K asked for, 'mrr' and, unless only the best positives were
      ranked, 'map@r', 'r_precision' and 'map'. NaN if the gallery holds no
      positive and the query so does not count.
    """
    columns = dict(zip(recall_keys(self.recall_at), self.recall.T, strict=True))
    if self.precision is not None:
      keys = (f'{PRECISION}{k}' for k in self.precision_at)
      columns |= dict(zip(keys, self.precision.T, strict=True))
    for key, name in MEANS.items():
      if (column := getattr(self, name)) is not None:
        columns[key] = column
    counts = self.num_positives > 0
    return {
      key: np.where(counts, column.astype(np.float64), np.nan)
      for key, column in columns.items()
    }


def per_query(
  embeddings: Float[ArrayLike, 'n d'],
  labels: Shaped[ArrayLike, ' n'],
  *,
  gallery: Float[ArrayLike, 'm d'] | None = None,
  gallery_labels: Shaped[ArrayLike, ' m'] | None = None,
  c: float | None = None,
  distance: str | None = None,
  ties: str = 'pessimistic',
  recall_at: Sequence[int] = (),
  precision_at: Sequence[int] = (),
  best_only: bool = False,
  block: int | None = None,
  tile: int | None = None,
  product: str = 'float32',
  devices: Sequence[jax.Device] | None = None,
  progress: bool = False,
  attributes: Collection[str] = PerQuery._fields,
) -> PerQuery:
  """Rank of the best positive and precisions of every query.

  Items are ranked in float32 with a bound on its rounding errors; what this
  leaves open is ranked in float64 on the host. Two items tie if float64 cannot
  tell them apart, that is, within about 1e-16 d of the largest part of their
  score. Whatever is equal in exact arithmetic therefore ties, by every
  distance: identical rows, integers, mirror images, permuted coordinates. (Near
  the boundary of the ball, 1 - c|y|^2 of a float64 point is known only to
  1e-16; smaller differences tie too.) Float64 takes at most 2^37 products or a
  quarter of all, whichever is more; what remains then is `unresolved` and ties.

  Args:
    embeddings: queries `[n, d]`, any floating dtype.
    labels: classes of the queries `[n]`: numbers, text, bytes or bools, the
      same kind as in the gallery. They are compared exactly.
    gallery: items to rank `[m, d]`; None means the queries, each of
      which is then left out of its own ranking (by index). Nothing is left out
      of a given gallery.
    gallery_labels: classes of the gallery `[m]`, given exactly where `gallery`
      is.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      (or the hyperboloid) of curvature -c.
    distance: 'cosine' similarity (a zero row has similarity 0 to all),
      'euclidean' distance, 'hyperbolic' distance of points of the Poincare ball
      of radius 1 / sqrt(c), or 'lorentz' for points of the hyperboloid, time
      first. None for the one that c says, which is never 'lorentz'.
    ties: where a positive and a negative tie, 'pessimistic' ranks the negative
      first and 'optimistic' the positive. 'expected' gives the mean of every
      attribute over all orders of what ties. 'mean' ranks each positive half
      way between its pessimistic and its optimistic rank and computes
      everything else from these ranks, so other metrics are not means.
    recall_at: the values of K to fill `PerQuery.recall` for.
    precision_at: the values of k to fill `PerQuery.precision` for.
    best_only: whether to rank only the best positive; every other one costs a
      tenth of the matrix product or less. Not allowed with ties 'expected'.
    block: number of queries scored at a time; None for what suits the device.
    tile: number of gallery rows scored at a time, rounded up to a power of two;
      None for what suits the device.
    product: 'bfloat16' multiplies in bfloat16 first. The result is the same;
      whether it is faster depends on the device and on how far apart positives
      and negatives are.
    devices: devices that the gallery is spread over; all local devices by
      default. With devices of several processes (`jax.devices()`), every
      process makes the same call and gets the whole result.
    progress: whether to show a bar on stderr, after some seconds.
    attributes: names of the attributes of the result that must be exact; ties
      that matter only to others are not resolved.

  Returns:
    A `PerQuery` of arrays in the order of the queries.

  Raises:
    UserError: rows with NaN or Inf, points outside the ball or off the
      hyperboloid, wrong shapes, unequal dimensions, labels missing or of
      another length than their rows or not comparable, nothing to rank, the
      queries as their own gallery, options out of range.

  References:
    Musgrave et al., A Metric Learning Reality Check, arXiv 2003.08505.
    McSherry and Najork, Computing Information Retrieval Performance Measures
    Efficiently in the Presence of Tied Scores, ECIR 2008 (expected).

  Example:
    The third item finds the `b` first, and the `b` has no positive.

    >>> from hier_jax import evaluation
    >>> x, labels = [[0.0], [1.0], [10.0], [11.0]], ['a', 'a', 'a', 'b']
    >>> found = evaluation.per_query(x, labels, c=0)
    >>> found.rank.astype(int).tolist(), found.num_positives.tolist()
    ([1, 1, 2, 0], [2, 2, 2, 0])
  """
  _check_option('ties', ties, _outcomes.TIES)
  _check_option('product', product, ('float32', 'bfloat16'))
  if block is not None:
    block = _checks.positive_int('block', block)
  if tile is not None:
    tile = _checks.positive_int('tile', tile)
  wanted = _outcomes.Wanted(
    ties,
    _checks.positive_ints('recall_at', recall_at),
    [_checks.positive_int('k of precision_at', k) for k in precision_at],
    best_only and ties != 'expected',
    set(attributes),
  )
  distance, c = _spaces.resolve(distance, c)
  queries = _spaces.points('embeddings', embeddings, distance, c)
  labels = _checks.class_labels('labels', labels, len(queries))
  gallery, gallery_labels, own = _gallery(
    queries, labels, gallery, gallery_labels, distance, c
  )
  codes, gallery_codes = _checks.class_codes(labels, gallery_labels)
  if own[0] < 0:
    _checks.not_same('gallery', gallery, queries)
  work = Passes(
    queries,
    gallery,
    _layout.by_class(codes, gallery_codes, own),
    Lift.about(gallery, c=c, distance=distance),
    wanted,
  )
  with tqdm.tqdm(
    total=len(queries), desc='ranking', delay=3, disable=not progress
  ) as bar:
    work.run(bar, block, tile, product == 'bfloat16', devices)
  return PerQuery(
    **work.found,
    recall_at=tuple(wanted.recall_at),
    precision_at=tuple(wanted.precision_at),
    num_repeated=work.num_repeated,
  )


def recall_keys(recall_at: Sequence[int]) -> list[str]:
  """Keys of Recall@K."""
  return [f'recall@{k}' for k in recall_at]


def _gallery(
  queries, labels, gallery, gallery_labels, distance, c
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
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
  gallery = _spaces.points('gallery', gallery, distance, c)
  if gallery.shape[1] != queries.shape[1]:
    raise UserError(
      f'`gallery` has {gallery.shape[1]} dimensions and `embeddings` '
      f'{queries.shape[1]}; expected the same: embed both with one model'
    )
  gallery_labels = _checks.class_labels(
    'gallery_labels', gallery_labels, len(gallery)
  )
  return gallery, gallery_labels, np.full(len(queries), -1)


def _check_option(name, value, options):
  if value not in options:
    raise UserError(f'`{name}` is {value!r}; expected one of {list(options)}')
