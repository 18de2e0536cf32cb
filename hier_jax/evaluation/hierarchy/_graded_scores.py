"""H-AP, ASI, NDCG and AP of ranks, see `graded.graded_per_query`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import special

from hier_jax.evaluation.hierarchy._kin_ranks import Kin


class Sums(NamedTuple):
  """Sums over ranks that all queries share.

  Attributes:
    discount: `[1 + m]`, 1 / log2(1 + k) of each rank k; 0 of 0.
    ideal: `[1 + m]`, sum of `discount` as far as k.
    harmonic: `[1 + m]`, sum of 1 / k as far as k.
  """

  discount: np.ndarray
  ideal: np.ndarray
  harmonic: np.ndarray

  @classmethod
  def of(cls, num_items: int) -> Sums:
    """Sums over the ranks of a gallery of m items."""
    ranks = np.arange(1.0, 1 + num_items)
    discount = np.concatenate([[0], 1 / np.log2(1 + ranks)])
    # As accurate at its end as where it begins, which adding up is not.
    harmonic = special.digamma(np.arange(1.0, 2 + num_items)) + np.euler_gamma
    return cls(discount, np.cumsum(discount), harmonic)


class _Levels(NamedTuple):
  """Items of b queries by level, R each.

  Attributes:
    at: bool `[b, l, R]`, whether the item is at exactly that level.
    ones: the same as float64.
    upto: `[b, l, R]`, the sum of `ones` as far as that item.
    ranks: `[b, R]`.
  """

  at: np.ndarray
  ones: np.ndarray
  upto: np.ndarray
  ranks: np.ndarray

  @classmethod
  def of(cls, levels: np.ndarray, ranks: np.ndarray, depth: int) -> _Levels:
    """Of levels and ranks `[b, R]`; other levels than 1 to `depth` are none."""
    at = levels[:, None] == np.arange(1, depth + 1, dtype=np.uint8)[:, None]
    # Integers add up four times as fast as floats.
    upto = np.cumsum(at, axis=-1, dtype=np.int32).astype(float)
    return cls(at, at.astype(float), upto, ranks)

  @property
  def num_at(self) -> np.ndarray:
    """`[b, l]`, items at exactly that level."""
    return self.upto[:, :, -1]

  @property
  def num(self) -> np.ndarray:
    """`[b, l]` int64, items at that level or a finer one."""
    return _or_finer(self.num_at).astype(int)

  def without_last(self) -> _Levels:
    """Without the items of the last level; the others move up.

    What stands ahead of the first other item has rank 1 and is no item.
    """
    ranks = np.maximum(self.ranks - self.upto[:, -1], 1)
    at, ones, upto, _ = (x[:, :-1] for x in self)
    return _Levels(at, ones, upto, ranks.astype(int))

  def pairs(self) -> np.ndarray:
    """`[b, l, l]`, what AP and H-AP are made of.

    Sums over the items at level i of those at level j as far as each / its
    rank.
    """
    share = self.ones * (1 / self.ranks)[:, None]
    return share @ self.upto.transpose(0, 2, 1)

  def gain(self, sums: Sums) -> np.ndarray:
    """`[b, l]`, sums of the items' discounts, what NDCG is made of."""
    return (self.ones @ sums.discount[self.ranks][..., None])[..., 0]

  def best(self) -> np.ndarray:
    """`[b, l]` int32, rank of the best item at that level or a finer one."""
    first = np.take_along_axis(self.ranks, self.at.argmax(-1), 1)
    none = np.iinfo(np.int64).max
    first = np.where(self.num_at > 0, first, none)
    best = np.minimum.accumulate(first[:, ::-1], 1)[:, ::-1]
    return np.where(best < none, best, 0).astype(np.int32)


def scores_of_kin(
  kin: Kin, sums: Sums, depth: int, alpha: float, drop_same_class: bool
) -> tuple[np.ndarray, ...]:
  """The attributes of `GradedPerQuery`, in order, of some queries.

  Args:
    kin: of b queries, R each.
    sums: of the gallery's ranks.
    depth: L.
    alpha: exponent of H-AP's relevance.
    drop_same_class: see `graded_per_query`.
  """
  if not kin.levels.shape[1]:
    return _of_none(len(kin.levels), depth)
  all_kin = _Levels.of(kin.levels, kin.ranks, depth)
  others = all_kin.without_last()
  pairs, gain = all_kin.pairs(), all_kin.gain(sums)
  rank, ap, num = all_kin.best(), _ap(all_kin, pairs), all_kin.num
  kin_ap, num_kin = _ap(others, others.pairs()), others.num
  level_ndcg = _level_ndcg(all_kin, gain, sums)
  if drop_same_class:
    rank[:, :-1], ap[:, :-1], num[:, :-1] = others.best(), kin_ap, num_kin
    level_ndcg[:, :-1] = _level_ndcg(others, others.gain(sums), sums)
  return (
    _h_ap(pairs, all_kin.num_at, alpha),
    _asi(all_kin, kin.levels, sums),
    _ndcg(all_kin, gain, sums),
    rank,
    ap,
    level_ndcg,
    num.astype(np.int32),
    kin_ap,
    num_kin.astype(np.int32),
  )


def _of_none(num: int, depth: int) -> tuple[np.ndarray, ...]:
  """The same of queries without kin: zeros."""
  one, whole = np.zeros(num), np.zeros((num, depth), np.int32)
  all_levels, above = np.zeros((num, depth)), np.zeros((num, depth - 1))
  means = one, one, one, whole, all_levels, all_levels, whole
  return *means, above, above.astype(np.int32)


def _ap(items: _Levels, pairs: np.ndarray) -> np.ndarray:
  """AP at each level, `[b, l]`."""
  hits = np.diagonal(_or_finer(_or_finer(pairs, 1), 2), axis1=1, axis2=2)
  return _ratio(hits, items.num)


def _level_ndcg(items: _Levels, gain: np.ndarray, sums: Sums) -> np.ndarray:
  """NDCG at each level, `[b, l]`."""
  return _ratio(_or_finer(gain), sums.ideal[items.num])


def _h_ap(pairs: np.ndarray, count: np.ndarray, alpha: float) -> np.ndarray:
  depth = count.shape[1]
  relevance = (np.arange(1, depth + 1) / depth) ** alpha
  relevance = _ratio(np.broadcast_to(relevance, count.shape), count)
  shared = np.minimum(relevance[:, :, None], relevance[:, None])
  total = np.sum(relevance * count, 1)
  return _ratio(np.sum(shared * pairs, (1, 2)), total)


def _ndcg(items: _Levels, gain: np.ndarray, sums: Sums) -> np.ndarray:
  gains = 2.0 ** np.arange(1, gain.shape[1] + 1) - 1
  ideal = sums.ideal[items.num]
  ideal[:, :-1] -= ideal[:, 1:].copy()
  return _ratio(gain @ gains, ideal @ gains)


def _asi(items: _Levels, levels: np.ndarray, sums: Sums) -> np.ndarray:
  """ASI `[b]`: an item counts from its rank on, but not beyond the ideal.

  As all items of a level are there in the end, the ideal ranking has fewer of
  it than there are among the first k only while it still has finer items.
  """
  num = levels.shape[1]
  # Items among the first R ranks alone.
  near = int(np.max(np.sum(items.ranks <= num, 1)))
  ranks, levels = items.ranks[:, :near], levels[:, :near]
  from_rank = sums.harmonic[np.minimum(ranks - 1, num)]
  found = np.sum(sums.harmonic[num] - from_rank, 1)
  finer = (_or_finer(items.num_at) - items.num_at)[:, :-1, None]
  # The last rank where an item may be beyond the ideal.
  last = items.upto[:, :-1, :near] + finer - 1
  beyond = items.at[:, :-1, :near] & (ranks[:, None] <= last)
  most = min(num, int(np.max(last, where=beyond, initial=0)))
  if most:
    places = np.arange(1.0, 1 + most)
    # Levels of the first ranks; those beyond share a place that is left out.
    first = np.zeros((len(levels), most + 1), np.uint8)
    np.put_along_axis(first, np.minimum(ranks - 1, most), levels, 1)
    above = _Levels.of(first[:, :most], places, finer.shape[1])
    excess = above.upto - np.maximum(places - finer, 0)
    found -= np.sum(np.maximum(excess, 0) / places, (1, 2))
  return found / num


def _or_finer(x: np.ndarray, axis: int = 1) -> np.ndarray:
  """Sums over a level and all finer ones, of sums over each."""
  return np.flip(np.cumsum(np.flip(x, axis), axis), axis)


def _ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return np.where(y > 0, x / np.where(y > 0, y, 1), 0)
