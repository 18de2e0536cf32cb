"""Rank correlations, and the pairs of items that they are taken over."""

import numpy as np
from scipy import stats

from hier_jax.evaluation import _checks


def pairs(
  num: int, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """All pairs i < j of 0 .. num - 1, or `most` of them at random.

  Args:
    num: number of items.
    most: `max_pairs` of the caller.
    rng: for the draw.

  Raises:
    UserError: `most` is no integer of 1 or more.
  """
  most = _checks.positive_int('max_pairs', most)
  if num * (num - 1) // 2 <= most:
    return np.triu_indices(num, 1)
  i, j = rng.integers(num, size=most), rng.integers(num - 1, size=most)
  j = np.where(j >= i, j + 1, j)
  return np.minimum(i, j), np.maximum(i, j)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
  """Rank correlation of `[n]` and `[n]`; NaN where either is constant."""
  if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
    return float('nan')
  return float(stats.spearmanr(x, y).statistic)


def kendall(x: np.ndarray, y: np.ndarray) -> float:
  """Kendall's tau-b of `[n]` and `[n]`; NaN where it is not defined."""
  if len(x) < 2:
    return float('nan')
  return float(stats.kendalltau(x, y).statistic)
