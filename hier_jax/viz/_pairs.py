"""Pairs of items that have a class, or what lies above it, in common."""

import math

import numpy as np

# Up to this number of pairs, all are listed.
_LISTED = 2_000_000
# Draws of a sample before it is taken as it is.
_ROUNDS = 50


def pairs(
  coarse: np.ndarray,
  fine: np.ndarray | None,
  most: int,
  draw: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray, int]:
  """Pairs of two items of one coarse code and of different fine codes.

  Args:
    coarse: int `[n]`, from 0.
    fine: int `[n]`, or None: pairs are of one coarse code alone.
    most: largest number of pairs; of more, that many are drawn uniformly with
      replacement.
    draw: the source of randomness.

  Returns:
    Items `[m]` and `[m]`, the lower number first, and how many pairs there are.
    Fewer than `most` are drawn where nearly all pairs of one coarse code are
    of one fine code.

  Example:
    >>> import numpy as np
    >>> from hier_jax.viz import _pairs
    >>> codes = np.array([0, 0, 0]), np.array([0, 0, 1])
    >>> first, second, total = _pairs.pairs(*codes, 9, np.random.default_rng(0))
    >>> first.tolist(), second.tolist(), total
    ([0, 1], [2, 2], 2)
  """
  within = _count(coarse)
  total = within - (0 if fine is None else _count(_joint(coarse, fine)))
  if within <= _LISTED:
    first, second = _all(coarse)
    if fine is not None:
      other = fine[first] != fine[second]
      first, second = first[other], second[other]
    if total > most:
      chosen = draw.choice(total, most, replace=True)
      first, second = first[chosen], second[chosen]
    return first, second, total
  found: list[np.ndarray] = []
  missing = min(most, total)
  for _ in range(_ROUNDS):
    if missing <= 0:
      break
    rows = _drawn(coarse, most, draw)
    if fine is not None:
      rows = rows[:, fine[rows[0]] != fine[rows[1]]]
    found.append(rows[:, :missing])
    missing -= found[-1].shape[1]
  rows = np.concatenate(found, axis=1) if found else np.zeros((2, 0), int)
  return rows.min(0), rows.max(0), total


def _count(codes) -> int:
  """Pairs of one code."""
  return sum(math.comb(m, 2) for m in np.bincount(codes).tolist())


def _joint(coarse, fine):
  """A code of each combination of two."""
  return np.unique(coarse * (fine.max() + 1) + fine, return_inverse=True)[1]


def _all(codes):
  """All pairs of one code, the lower number first."""
  order = np.argsort(codes, kind='stable')
  found = []
  for group in np.split(order, np.flatnonzero(np.diff(codes[order])) + 1):
    first, second = np.triu_indices(len(group), 1)
    found.append(np.stack([group[first], group[second]]))
  rows = np.concatenate(found, axis=1) if len(codes) else np.zeros((2, 0), int)
  return rows[0], rows[1]


def _drawn(codes, num, draw):
  """So many pairs `[2, num]` of one code, each as likely as any other."""
  order = np.argsort(codes, kind='stable')
  size = np.bincount(codes)
  start = np.cumsum(size) - size
  weight = size * (size - 1.0)
  group = draw.choice(len(size), num, p=weight / weight.sum())
  first = draw.integers(size[group])
  # Any of the others.
  second = draw.integers(size[group] - 1)
  second += second >= first
  return order[start[group] + np.stack([first, second])]
