"""Retrieval metrics of embeddings: means of `per_query`, under their names."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import numpy as np
from jaxtyping import Float, Shaped
from numpy.typing import ArrayLike

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation.retrieval import _spaces
from hier_jax.evaluation.retrieval._outcomes import Wanted
from hier_jax.evaluation.retrieval.per_query import (
  MEANS,
  PRECISION,
  PerQuery,
  per_query,
  recall_keys,
)

RECALL_AT = (1, 2, 4, 8)


def metric_keys(
  recall_at: Sequence[int] = RECALL_AT, metrics: Sequence[str] = ('map@r',)
) -> list[str]:
  """Keys of the means in the result of `retrieval_metrics`, in order."""
  return [*recall_keys(recall_at), *metrics]


def retrieval_metrics(
  embeddings: Float[ArrayLike, 'n d'],
  labels: Shaped[ArrayLike, ' n'],
  *,
  recall_at: Sequence[int] = RECALL_AT,
  metrics: Sequence[str] = ('map@r',),
  gallery: Float[ArrayLike, 'm d'] | None = None,
  gallery_labels: Shaped[ArrayLike, ' m'] | None = None,
  c: float | None = None,
  distance: str | None = None,
  ties: str = 'pessimistic',
  block: int | None = None,
  tile: int | None = None,
  product: str = 'float32',
  devices: Sequence[jax.Device] | None = None,
  progress: bool = False,
) -> dict[str, float | int | str]:
  """Recall@K and other means over the queries that have a positive.

  Recall@K is the share of queries whose best positive ranks K or better;
  MAP@R is the mean of AP@R.

  Args:
    embeddings: queries `[n, d]`, any floating dtype.
    labels: classes of the queries `[n]`: numbers, text, bytes or bools.
    recall_at: the values of K to report Recall@K for.
    metrics: any of 'map@r', 'r_precision', 'mrr', 'map' (of the whole ranking)
      and 'precision@K' for any K. If 'mrr' is the only one, or there are none,
      only the best positives are ranked, which is faster.
    gallery: items to rank `[m, d]`; None for the queries, each left out of
      its own ranking.
    gallery_labels: classes of the gallery `[m]`, given exactly where `gallery`
      is.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      (or the hyperboloid) of curvature -c.
    distance: 'cosine', 'euclidean', 'hyperbolic' for points of the ball or
      'lorentz' for points of the hyperboloid; None for the one that c says,
      which is never 'lorentz'.
    ties: how equal distances rank: 'pessimistic' puts negatives first,
      'optimistic' positives; 'expected' is the mean over all orders of what
      ties; for 'mean' see `per_query`.
    block: number of queries scored at a time; None for what suits the device.
    tile: number of gallery rows scored at a time, rounded up to a power of two;
      None for what suits the device.
    product: 'float32'; or 'bfloat16' to multiply in bfloat16 first, with the
      same result.
    devices: devices that the gallery is spread over; None for all local
      devices.
    progress: whether to show a bar on stderr, after some seconds.

  Returns:
    'recall@K' for every K and the metrics, float64 means in [0, 1];
    'num_queries'; 'num_without_positive', the number of queries without a
    positive in the gallery, which the means leave out; 'num_tied' and
    'num_unresolved', the numbers of queries of which a metric depends on the
    order of ties or is only bounded (see `PerQuery`); 'distance' and 'ties', by
    which items were ranked; with `product='bfloat16'` 'num_repeated'.

  Raises:
    UserError: bad arguments (see `per_query`), a K that is not a positive
      integer, an unknown distance, or no query that has a positive.

  Example:
    The third item finds the `b` first, and the `b` has no positive.

    >>> from hier_jax import evaluation
    >>> x, labels = [[0.0], [1.0], [10.0], [11.0]], ['a', 'a', 'a', 'b']
    >>> found = evaluation.retrieval_metrics(x, labels, c=0, recall_at=[1])
    >>> print(f"{found['recall@1']:.3f} {found['map@r']:.3f}")
    0.667 0.750
    >>> found['num_without_positive']
    1
  """
  metrics = _listed(metrics)
  want = wanted(recall_at, metrics, ties)
  result = per_query(
    embeddings,
    labels,
    recall_at=want.recall_at,
    precision_at=want.precision_at,
    best_only=want.best_only,
    attributes=want.names,
    gallery=gallery,
    gallery_labels=gallery_labels,
    c=c,
    distance=distance,
    ties=ties,
    block=block,
    tile=tile,
    product=product,
    devices=devices,
    progress=progress,
  )
  return means(result, metrics, distance=distance, c=c, ties=ties)


def wanted(
  recall_at: Sequence[int], metrics: Sequence[str], ties: str
) -> Wanted:
  """What `retrieval_metrics` has to know of each query.

  Raises:
    UserError: see `retrieval_metrics`.
  """
  attributes = {MEANS[name] for name in metrics if name in MEANS}
  return Wanted(
    ties,
    _checks.positive_ints('recall_at', recall_at),
    _precision_at(metrics),
    set(metrics) <= {'mrr'} and ties != 'expected',
    attributes | {'recall', 'precision'},
  )


def means(
  result: PerQuery,
  metrics: Sequence[str],
  *,
  distance: str | None,
  c: float | None,
  ties: str,
) -> dict[str, float | int | str]:
  """What `retrieval_metrics` returns, of the results of its queries.

  Raises:
    UserError: no query has a positive.
  """
  answerable = result.num_positives > 0
  if not answerable.any():
    raise UserError(
      f'none of the {len(answerable)} queries has a positive in the gallery; '
      'expected classes of two items or more: check the labels'
    )
  values = result.values()
  found: dict[str, float | int | str] = {
    key: float(np.mean(values[key][answerable]))
    for key in metric_keys(result.recall_at, metrics)
  }
  found |= {
    'num_queries': len(answerable),
    'num_without_positive': int(np.sum(~answerable)),
    'num_tied': int(np.sum(result.tied)),
    'num_unresolved': int(np.sum(result.unresolved)),
    'distance': _spaces.described(distance, c),
    'ties': ties,
  }
  if result.num_repeated is not None:
    found['num_repeated'] = result.num_repeated
  return found


def _listed(metrics) -> list[str]:
  """The names, which may come from an iterator.

  Raises:
    UserError: they are no list.
  """
  try:
    return list(metrics)
  except TypeError:
    raise UserError(
      f'`metrics` is {metrics!r}; expected a list of names'
    ) from None


def _precision_at(metrics) -> list[int]:
  """The K of the metrics 'precision@K'.

  Raises:
    UserError: an unknown metric.
  """
  ks = []
  for name in metrics:
    k = str(name).removeprefix(PRECISION)
    if name not in MEANS and (
      k == str(name) or not k.isdecimal() or int(k) < 1
    ):
      raise UserError(
        f'`metrics` has {name!r}; expected any of {list(MEANS)} and '
        "'precision@K' with K of 1 or more"
      )
    if k != name:
      ks.append(int(k))
  return ks
