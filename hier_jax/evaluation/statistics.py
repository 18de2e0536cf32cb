"""How certain a mean over queries is, and the difference between two runs.

Functions take one value per query, as `PerQuery.values` and
`GradedPerQuery.values` return them, and leave out NaN, which marks a query that
does not count. Queries of one class are alike, so an interval or a test that
treats them as independent is too confident; `clusters` resamples whole classes.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Real, Shaped
from numpy.typing import ArrayLike
from scipy import stats

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks

_METHODS = ('percentile', 'bca')
# Numbers that a batch of resamples holds: 32 MiB.
_BATCH = 2**22


class Interval(NamedTuple):
  """A mean and its confidence interval.

  Attributes:
    mean: over the values that count.
    low: lower end of the interval.
    high: upper end.
    num_values: number of values that count.
  """

  mean: float
  low: float
  high: float
  num_values: int


class PairedTest(NamedTuple):
  """How two runs differ on the same queries.

  Attributes:
    difference: mean of the second run minus mean of the first.
    low: lower end of its confidence interval.
    high: upper end.
    p_value: two-sided p value of the hypothesis that the runs are
      interchangeable.
    num_values: number of queries that count.
  """

  difference: float
  low: float
  high: float
  p_value: float
  num_values: int


def bootstrap_ci(
  values: Real[ArrayLike, ' n'],
  *,
  clusters: Shaped[ArrayLike, ' n'] | None = None,
  confidence: float = 0.95,
  num_resamples: int = 2_000,
  method: str = 'percentile',
  seed: int = 0,
) -> Interval:
  """The mean of values and its bootstrap confidence interval.

  With clusters, whole clusters are resampled, and the mean is over all values
  drawn.

  Args:
    values: one value a query `[n]`, such as
      `per_query(...).values()['map@r']`; NaN where the query does not count.
    clusters: the cluster of each value `[n]`, any dtype that sorts, such as the
      queries' classes; None draws each value for itself.
    confidence: confidence level of the interval, in (0, 1).
    num_resamples: number of bootstrap resamples.
    method: 'percentile' or 'bca' (bias-corrected and accelerated; its jackknife
      takes O(n^2) time).
    seed: seed of the random resamples.

  Returns:
    An `Interval`: the mean, the ends of its confidence interval, and how many
    values count.

  Raises:
    UserError: no value that counts, Inf, clusters of another length or a single
      one, bad options.

  References:
    Efron and Tibshirani, An Introduction to the Bootstrap, 1993, sections 13.3
    and 14.3.
    Davison and Hinkley, Bootstrap Methods and their Application, 1997, section
    3.8 (clusters).

  Example:
    >>> from hier_jax import evaluation
    >>> found = evaluation.bootstrap_ci([0, 1] * 50 + [float('nan')])
    >>> print(f'{found.mean:.3f}', found.num_values)
    0.500 100
    >>> 0.3 < found.low < found.mean < found.high < 0.7
    True
  """
  if method not in _METHODS:
    raise UserError(f'`method` is {method!r}; expected one of {list(_METHODS)}')
  _check_options(confidence, num_resamples)
  values = _values('values', values)
  sums, sizes = _by_cluster(values, clusters)
  low, high = _interval(sums, sizes, confidence, num_resamples, method, seed)
  counted = int(sizes.sum())
  return Interval(float(sums.sum() / counted), low, high, counted)


def paired_test(
  first: Real[ArrayLike, ' n'],
  second: Real[ArrayLike, ' n'],
  *,
  clusters: Shaped[ArrayLike, ' n'] | None = None,
  confidence: float = 0.95,
  num_resamples: int = 4_999,
  seed: int = 0,
) -> PairedTest:
  """Whether the second run is better than the first, query by query.

  The interval is the percentile bootstrap interval of the mean difference. The
  p value comes from a permutation test that swaps the runs query by query, or
  cluster by cluster: it is the share of sign flips of the differences whose
  mean is at least as far from 0. If there are few flips, all are counted, else
  a random sample.

  Args:
    first: values of the first run `[n]`, one a query; NaN where the query does
      not count.
    second: values of the second run `[n]`, for the same queries in the same
      order.
    clusters: the cluster of each query `[n]`, any dtype that sorts, such as its
      class; None takes each query for itself.
    confidence: confidence level of the interval, in (0, 1).
    num_resamples: number of bootstrap resamples, and of permutations at most.
    seed: seed of the random resamples and permutations.

  Returns:
    A `PairedTest`: the mean of the second run minus the mean of the first, its
    confidence interval, the p value, and the number of queries that count.

  Raises:
    UserError: see `bootstrap_ci`; runs of unequal length, or NaN in one run
      where the other has a value.

  References:
    Smucker, Allan and Carterette, A Comparison of Statistical Significance
    Tests for Information Retrieval Evaluation, CIKM 2007.

  Example:
    The second run wins all 8 queries: of 2^8 sign flips 2 are as extreme.

    >>> from hier_jax import evaluation
    >>> found = evaluation.paired_test([0] * 8, [1] * 8)
    >>> print(f'{found.difference:.3f} {found.p_value:.4f}')
    1.000 0.0078
  """
  _check_options(confidence, num_resamples)
  first, second = _values('first', first), _values('second', second)
  if len(first) != len(second):
    raise UserError(
      f'`first` has {len(first)} values and `second` {len(second)}; expected '
      'the same queries in the same order'
    )
  unlike = np.isnan(first) != np.isnan(second)
  if unlike.any():
    raise UserError(
      f'{unlike.sum()} of {len(first)} queries count (are no NaN) in one run '
      f'only, the first at {unlike.argmax()}; expected the same queries in both'
    )
  sums, sizes = _by_cluster(second - first, clusters)
  low, high = _interval(
    sums, sizes, confidence, num_resamples, 'percentile', seed
  )
  p_value = _sign_flip_p(sums, num_resamples, seed)
  counted = int(sizes.sum())
  return PairedTest(float(sums.sum() / counted), low, high, p_value, counted)


def wilson(
  mean: float, num_values: int, *, confidence: float = 0.95
) -> Interval:
  """A confidence interval if only a mean of values in [0, 1] is known.

  This is Wilson's interval for values of 0 and 1, such as Recall@K. Other
  values vary less around the same mean, so for them it is at least as wide as
  needed. Values are assumed to be independent.

  Args:
    mean: of the values, in [0, 1].
    num_values: how many there are.
    confidence: confidence level of the interval, in (0, 1).

  Raises:
    UserError: there are no values, or the mean is not in [0, 1].

  References:
    Wilson, Probable inference, the law of succession, and statistical
    inference, JASA 22, 1927.

  Example:
    >>> from hier_jax import evaluation
    >>> found = evaluation.wilson(0.5, 100)
    >>> print(f'{found.low:.3f} {found.high:.3f}')
    0.404 0.596
  """
  _check_options(confidence, 1)
  _checks.positive_int('num_values', num_values)
  _checks.real('mean', mean, lambda x: 0 <= x <= 1, 'that of values in [0, 1]')
  z = float(stats.norm.ppf((1 + confidence) / 2))
  share = z * z / num_values
  center = (mean + share / 2) / (1 + share)
  spread = mean * (1 - mean) / num_values + share / (4 * num_values)
  half = z * math.sqrt(spread) / (1 + share)
  low, high = max(center - half, 0.0), min(center + half, 1.0)
  return Interval(float(mean), low, high, num_values)


def _check_options(confidence: float, num_resamples: int) -> None:
  _checks.positive_int('num_resamples', num_resamples)
  _checks.confidence(confidence)


def _values(name: str, values: ArrayLike) -> np.ndarray:
  values = np.asarray(values, np.float64)
  if values.ndim != 1:
    raise UserError(f'`{name}` has shape {values.shape}; expected [queries]')
  bad = np.isinf(values)
  if bad.any():
    raise UserError(
      f'`{name}` holds Inf in {bad.sum()} of {len(bad)} rows, the first '
      f'{bad.argmax()}; expected finite values, or NaN where none counts'
    )
  return values


def _by_cluster(
  values: np.ndarray, clusters: ArrayLike | None
) -> tuple[np.ndarray, np.ndarray]:
  """Sum and number of the values that count, of each cluster that has some."""
  counts = ~np.isnan(values)
  if not counts.any():
    raise UserError(f'none of the {len(values)} values counts: all are NaN')
  if clusters is None:
    return values[counts], np.ones(counts.sum())
  clusters = _checks.class_labels('clusters', clusters, len(values))[counts]
  codes = np.unique(clusters, return_inverse=True)[1]
  sizes = np.bincount(codes)
  if len(sizes) < 2:
    raise UserError(
      '`clusters` holds one cluster; expected several to draw from'
    )
  return np.bincount(codes, values[counts]), sizes.astype(float)


def _interval(
  sums: np.ndarray,
  sizes: np.ndarray,
  confidence: float,
  num_resamples: int,
  method: str,
  seed: int,
) -> tuple[float, float]:
  """Ends of the interval of the ratio of the sums."""
  if np.ptp(sums / sizes) == 0:
    # Every resample has the same mean; BCa would divide by 0.
    return (float(sums[0] / sizes[0]),) * 2
  found = stats.bootstrap(
    (sums, sizes),
    lambda x, y, axis: np.sum(x, axis=axis) / np.sum(y, axis=axis),
    paired=True,
    vectorized=True,
    confidence_level=confidence,
    n_resamples=num_resamples,
    method='BCa' if method == 'bca' else method,
    batch=_batch(sums),
    rng=_checks.rng(seed),
  ).confidence_interval
  return float(found.low), float(found.high)


def _sign_flip_p(sums: np.ndarray, num_resamples: int, seed: int) -> float:
  """Share of the sign flips of the sums whose total is as far from 0."""
  # Nothing changes with the sign of a 0, and of Recall@K most are.
  sums = sums[sums != 0]
  if len(sums) < 2:
    return 1.0
  found = stats.permutation_test(
    (sums,),
    lambda x, axis: np.sum(x, axis=axis),
    permutation_type='samples',
    vectorized=True,
    n_resamples=num_resamples,
    batch=_batch(sums),
    rng=_checks.rng(seed),
  )
  return float(found.pvalue)


def _batch(sums: np.ndarray) -> int:
  return max(1, _BATCH // len(sums))
