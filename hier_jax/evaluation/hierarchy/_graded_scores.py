"""H-AP, ASI, NDCG and AP of ranks, see `graded.graded_per_query`."""

from collections.abc import Sequence

import numpy as np

from hier_jax.evaluation.hierarchy._kin_ranks import Kin


def scores_of_kin(
  kin: Kin, depth: int, alpha: float, drop_same_class: bool
) -> tuple[np.ndarray, ...]:
  """The attributes of `GradedPerQuery`, in order, of some queries.

  Args:
    kin: of b queries, R each.
    depth: L.
    alpha: exponent of H-AP's relevance.
    drop_same_class: see `graded_per_query`.
  """
  levels, ranks = kin
  if not levels.shape[1]:
    return _of_none(len(levels), depth)
  at = _at(levels, depth)
  upto = np.cumsum(at, axis=-1)
  count = upto[:, :, -1]
  pairs, gain = _sums(at, upto, ranks)
  by_level: Sequence[np.ndarray] = _by_level(at, ranks, pairs, gain)
  others = _of_other_classes(at, upto, ranks)
  if drop_same_class:
    by_level = [
      np.concatenate([x, y[:, -1:]], 1)
      for x, y in zip(others, by_level, strict=True)
    ]
  rank, ap, level_ndcg, num_positives = by_level
  _, kin_ap, _, num_kin = others
  return (
    _h_ap(pairs, count, alpha),
    _asi(kin, count),
    _ndcg(gain, count),
    rank.astype(np.int32),
    ap,
    level_ndcg,
    num_positives.astype(np.int32),
    kin_ap,
    num_kin.astype(np.int32),
  )


def _of_none(num: int, depth: int) -> tuple[np.ndarray, ...]:
  """The same of queries without kin: zeros."""
  one, whole = np.zeros(num), np.zeros((num, depth), np.int32)
  all_levels, above = np.zeros((num, depth)), np.zeros((num, depth - 1))
  means = one, one, one, whole, all_levels, all_levels, whole
  return *means, above, above.astype(np.int32)


def _at(levels: np.ndarray, depth: int) -> np.ndarray:
  """`[b, l, R]`, 1 where the item is at exactly that level, else 0."""
  return (levels[:, None] == np.arange(1, depth + 1)[:, None]).astype(float)


def _of_other_classes(
  at: np.ndarray, upto: np.ndarray, ranks: np.ndarray
) -> tuple[np.ndarray, ...]:
  """`_by_level` at all levels but the last, without the items of that one."""
  if at.shape[1] == 1:
    return (np.zeros((len(at), 0)),) * 4
  # What stands ahead of the first other item has rank 0 and is no item here.
  kept = np.maximum(ranks - upto[:, -1], 1)
  at = at[:, :-1]
  return _by_level(at, kept, *_sums(at, upto[:, :-1], kept))


def _sums(
  at: np.ndarray, upto: np.ndarray, ranks: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """What AP, H-AP and DCG are made of.

  Args:
    at: `[b, l, R]`, 1 where the item is at exactly that level, else 0.
    upto: `[b, l, R]`, the sum of `at` as far as that item.
    ranks: `[b, R]`, the items' ranks.

  Returns:
    Sums over the items at level i: `[b, l, l]` of the items at level j as far
    as that one / its rank, and `[b, l]` of 1 / log2(1 + its rank).
  """
  share = at / ranks[:, None]
  pairs = share @ upto.transpose(0, 2, 1)
  discount = 1 / np.log2(1 + ranks)
  return pairs, (at @ discount[..., None])[..., 0]


def _by_level(
  at: np.ndarray, ranks: np.ndarray, pairs: np.ndarray, gain: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
  """Best rank, AP, NDCG and number of items at each level, `[b, l]` each."""
  first = np.take_along_axis(ranks, at.argmax(-1), 1)
  first = np.where(at.any(-1), first, np.inf)
  best = np.minimum.accumulate(first[:, ::-1], 1)[:, ::-1]
  num = _or_finer(at.sum(-1)).astype(int)
  hits = np.diagonal(_or_finer(_or_finer(pairs, 1), 2), axis1=1, axis2=2)
  ndcg = _ratio(_or_finer(gain), _ideal(at.shape[-1])[num])
  return np.where(num > 0, best, 0), _ratio(hits, num), ndcg, num


def _h_ap(pairs: np.ndarray, count: np.ndarray, alpha: float) -> np.ndarray:
  depth = count.shape[1]
  relevance = (np.arange(1, depth + 1) / depth) ** alpha
  relevance = _ratio(np.broadcast_to(relevance, count.shape), count)
  shared = np.minimum(relevance[:, :, None], relevance[:, None])
  total = np.sum(relevance * count, 1)
  return _ratio(np.sum(shared * pairs, (1, 2)), total)


def _asi(kin: Kin, count: np.ndarray) -> np.ndarray:
  num = kin.ranks.shape[1]
  ranks = np.arange(1.0, 1 + num)
  # Levels of the first R items of the whole ranking; those beyond share a last
  # place, which is left out.
  first = np.zeros((len(count), num + 1), np.uint8)
  np.put_along_axis(first, np.minimum(kin.ranks - 1, num), kin.levels, 1)
  upto = np.cumsum(_at(first[:, :num], count.shape[1]), axis=-1)
  finer = _or_finer(count) - count
  found = np.zeros((len(count), num))
  for level, held in enumerate(count.T[:, :, None]):
    ideal = np.clip(ranks - finer[:, level, None], 0, held)
    found += np.minimum(upto[:, level], ideal)
  return np.mean(found / ranks, 1)


def _ndcg(gain: np.ndarray, count: np.ndarray) -> np.ndarray:
  gains = 2.0 ** np.arange(1, count.shape[1] + 1) - 1
  num = _or_finer(count).astype(int)
  ideal = _ideal(int(num.max()))[num]
  ideal[:, :-1] -= ideal[:, 1:].copy()
  return _ratio(gain @ gains, ideal @ gains)


def _ideal(most: int) -> np.ndarray:
  """DCG of 0 .. `most` items of gain 1 at the first ranks."""
  discount = 1 / np.log2(np.arange(2.0, 2 + most))
  return np.concatenate([[0], np.cumsum(discount)])


def _or_finer(x: np.ndarray, axis: int = 1) -> np.ndarray:
  """Sums over a level and all finer ones, of sums over each."""
  return np.flip(np.cumsum(np.flip(x, axis), axis), axis)


def _ratio(x: np.ndarray, y: np.ndarray) -> np.ndarray:
  return np.where(y > 0, x / np.where(y > 0, y, 1), 0)
