"""Metrics of each query from the negatives ahead of its positives."""

from collections.abc import Collection, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

TIES = ('pessimistic', 'optimistic', 'mean', 'expected')

Arrays = dict[str, np.ndarray]


class Wanted(NamedTuple):
  """What to make of the counts.

  Attributes:
    ties: one of `TIES`.
    recall_at: the K of `PerQuery.recall`.
    precision_at: the k of `PerQuery.precision`.
    best_only: whether the counts are of the best positive only.
    names: attributes of `PerQuery` that have to be right.
  """

  ties: str
  recall_at: Sequence[int]
  precision_at: Sequence[int]
  best_only: bool
  names: Collection[str]

  def of(self, counts: np.ndarray, r: np.ndarray) -> tuple[Arrays, np.ndarray]:
    """Attributes of `PerQuery`, and which queries hang on ties.

    Args:
      counts: negatives ahead of each positive for sure, and ahead or tied,
        `[2, b, J]`; those from R on mean nothing.
      r: R `[b]`.

    Returns:
      Attributes, and bools `[b]`: whether one of `names` depends on the order
      of what is tied.
    """
    # Every attribute falls as more is ahead, so that equal ends settle it.
    best, worst = (self._at(ahead, r) for ahead in counts)
    hangs = np.zeros(len(r), bool)
    for name in self.names:
      if name in best:
        differs = best[name] != worst[name]
        hangs |= differs.reshape(len(r), -1).any(1)
    if self.ties == 'optimistic':
      return best, hangs
    if self.ties == 'pessimistic':
      return worst, hangs
    if self.ties == 'mean':
      return self._at(counts.mean(0), r), hangs
    return self._expected(counts, r), hangs

  def _at(self, ahead: np.ndarray, r: np.ndarray) -> Arrays:
    """Attributes, given the number of negatives ahead, `[b, J]`."""
    j = np.arange(1, 1 + ahead.shape[1])
    ranks = j + ahead.astype(np.float64)
    rank = np.where(r > 0, ranks[:, 0], 0)
    found = {'rank': rank.astype(ahead.dtype)}
    found['reciprocal_rank'] = np.where(r > 0, 1 / ranks[:, 0], 0)
    found['recall'] = np.stack(
      [(r > 0) & (found['rank'] <= k) for k in [*self.recall_at, 1]], 1
    )[:, :-1].astype(np.float64)
    if self.best_only:
      return found
    filled = j <= r[:, None]
    precision = np.where(filled, j / ranks, 0)
    among_r = filled & (ranks <= r[:, None])
    hits = [np.sum(filled & (ranks <= k), 1) for k in self.precision_at]
    sums = np.sum(np.where(among_r, precision, 0), 1), np.sum(among_r, 1)
    return found | self._means(*sums, np.sum(precision, 1), hits, r)

  def _means(
    self,
    ap: np.ndarray,
    among_r: np.ndarray,
    full_ap: np.ndarray,
    hits: list[np.ndarray],
    r: np.ndarray,
  ) -> Arrays:
    """Sums over a query's positives as float32 means."""
    over = np.maximum(r, 1)
    at = [hit / k for hit, k in zip(hits, self.precision_at, strict=True)]
    means = {
      'ap': ap / over,
      'r_precision': among_r / over,
      'full_ap': full_ap / over,
      'precision': np.stack([*at, over], 1)[:, :-1],
    }
    return {name: x.astype(np.float32) for name, x in means.items()}

  def _expected(self, counts: np.ndarray, r: np.ndarray) -> Arrays:
    """Means over all orders of what is tied.

    Of a group of L tied items, p of them positives, behind a items, P of them
    positives, the i-th is a positive with probability p / L, and the precision
    there is then (P + 1 + (i - 1) (p - 1) / (L - 1)) / (a + i).
    """
    sure, possible = counts.astype(np.float64)
    j = np.arange(counts.shape[2])
    filled = j < r[:, None]
    before, group = _groups(counts, j)
    size = group + possible - sure
    ahead = sure + before
    slope = (group - 1) / np.maximum(size - 1, 1)

    def hits(k):
      """Share of each positive's places that are among the first k."""
      return np.where(filled, np.clip(k - ahead, 0, size) / size, 0)

    def precisions(k):
      """Each positive's precision where it is among the first k, else 0."""
      among = np.clip(k - ahead, 0, size)
      # sum over i of 1 / (a + i)
      sums = special.digamma(ahead + among + 1) - special.digamma(ahead + 1)
      rest = before + 1 - slope * (ahead + 1)
      return np.where(filled, (slope * among + rest * sums) / size, 0)

    r_column = r[:, None]
    found = self._means(
      precisions(r_column).sum(1),
      hits(r_column).sum(1),
      precisions(np.inf).sum(1),
      [hits(k).sum(1) for k in self.precision_at],
      r,
    )
    best = zip(sure[:, 0], possible[:, 0], group[:, 0], r, strict=True)
    rows = [_best(*row, self.recall_at) for row in best]
    rank, reciprocal, recall = map(np.array, zip(*rows, strict=True))
    return found | {
      'rank': rank,
      'reciprocal_rank': reciprocal,
      'recall': recall.reshape(len(r), len(self.recall_at)),
    }


def _groups(counts: np.ndarray, j: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Positives in groups before that of each, and in its own, `[b, J]`."""
  new = np.any(counts[:, :, 1:] != counts[:, :, :-1], 0)
  edge = np.ones((len(new), 1), bool)
  begin = np.where(np.hstack([edge, new]), j, 0)
  end = np.where(np.hstack([new, edge]), j + 1, len(j))
  before = np.maximum.accumulate(begin, 1)
  after = np.minimum.accumulate(end[:, ::-1], 1)[:, ::-1]
  return before.astype(np.float64), (after - before).astype(np.float64)


def _best(
  ahead: float, most: float, positives: float, r: int, recall_at: Sequence[int]
) -> tuple[float, float, list[float]]:
  """Expected rank, its reciprocal and recall of the best of tied positives.

  Args:
    ahead: negatives ahead for sure.
    most: negatives ahead or tied.
    positives: how many are tied with them.
    r: R.
    recall_at: the K.
  """
  if not r:
    return 0.0, 0.0, [0.0] * len(recall_at)
  tied = int(most - ahead)
  i = np.arange(tied)
  # Probability that no positive is among the first 0 .. tied of them.
  none = np.concatenate([[1], np.cumprod((tied - i) / (tied + positives - i))])
  first_at = none - np.append(none[1:], 0)
  rank = ahead + (tied + positives + 1) / (positives + 1)
  reciprocal = np.sum(first_at / (ahead + 1 + np.arange(tied + 1)))
  found = np.cumsum(first_at)
  at = [int(min(k - ahead, tied + 1)) for k in recall_at]
  return rank, reciprocal, [float(found[k - 1]) if k > 0 else 0.0 for k in at]
