"""Differences of two arms over seeds and classes, and how sure they are."""

from typing import NamedTuple

import numpy as np

__all__ = ['RESAMPLES', 'Difference', 'holm', 'paired_difference']

# Of an interval.
RESAMPLES = 10_000


class Difference(NamedTuple):
  """A mean difference.

  Attributes:
    mean: over seeds and queries.
    low: lower end of the 95 % interval.
    high: upper end.
    p_value: two-sided, of the hypothesis that there is none.
  """

  mean: float
  low: float
  high: float
  p_value: float


def paired_difference(
  first: np.ndarray,
  second: np.ndarray,
  counts: np.ndarray,
  *,
  resamples: int = RESAMPLES,
  seed: int = 0,
) -> Difference:
  """The second arm less the first, with a bootstrap over seeds and classes.

  Each resample draws as many seeds and as many classes as there are, both with
  replacement; a class is a cluster that weighs as many queries as it has. The
  interval is the percentile bootstrap's. p is twice the share of resamples on
  the other side of 0, at least 2 / (resamples + 1).

  Args:
    first: means of the classes' queries `[seeds, classes]`; NaN where those of
      a class do not count.
    second: means of the other arm, of the same seeds and classes.
    counts: queries of each class `[classes]`.
    resamples: how many.
    seed: of the resamples.

  Returns:
    A `Difference`.

  Raises:
    ValueError: shapes that do not go together.

  References:
    Davison and Hinkley, Bootstrap Methods and their Application, 1997, section
    3.8.

  Example:
    >>> import numpy as np
    >>> from experiments.study import intervals
    >>> zero, one = np.zeros((2, 3)), np.ones((2, 3))
    >>> found = intervals.paired_difference(zero, one, np.ones(3))
    >>> found.mean, found.low, found.high
    (1.0, 1.0, 1.0)
  """
  if first.shape != second.shape or first.shape[1:] != counts.shape:
    raise ValueError(
      f'means have shapes {first.shape} and {second.shape} and counts'
      f' {counts.shape}; expected [seeds, classes] twice and [classes]'
    )
  kept = ~np.isnan(first + second).any(0)
  weight = np.asarray(counts, float)[kept]
  sums = (second - first)[:, kept] * weight
  seeds, classes = sums.shape
  rng = np.random.default_rng(seed)
  of_seed = rng.multinomial(seeds, np.full(seeds, 1 / seeds), resamples)
  of_class = rng.multinomial(classes, np.full(classes, 1 / classes), resamples)
  total = np.sum(of_seed * (of_class @ sums.T), 1)
  drawn = total / (seeds * (of_class @ weight))
  low, high = np.quantile(drawn, [0.025, 0.975])
  beyond = 1 + min(np.sum(drawn <= 0), np.sum(drawn >= 0))
  p_value = min(1.0, 2 * float(beyond) / (resamples + 1))
  mean = float(sums.sum() / (seeds * weight.sum()))
  return Difference(mean, float(low), float(high), p_value)


def holm(p_values: np.ndarray) -> np.ndarray:
  """Adjusted p values `[tests]`.

  The k-th smallest of m is multiplied by m - k + 1, and is at least as large as
  the one before.

  References:
    Holm, A Simple Sequentially Rejective Multiple Test Procedure, Scandinavian
    Journal of Statistics 6, 1979.

  Example:
    >>> import numpy as np
    >>> from experiments.study import intervals
    >>> intervals.holm(np.array([0.03, 0.01])).tolist()
    [0.03, 0.02]
  """
  order = np.argsort(p_values, kind='stable')
  factor = len(order) - np.arange(len(order))
  raised = np.minimum(np.maximum.accumulate(factor * p_values[order]), 1)
  adjusted = np.empty(len(order))
  adjusted[order] = raised
  return adjusted
