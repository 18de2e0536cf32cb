"""Drawings that are the same but for size, weight or name."""

from __future__ import annotations

import collections

import numpy as np

__all__ = ['SAME', 'first_of', 'winners']

# Correlation of signatures from which on two drawings are the same.
SAME = 0.97
_BLOCK = 1024


def first_of(signatures: np.ndarray, same: float = SAME) -> np.ndarray:
  """For each drawing the first one that it repeats, itself if none.

  A drawing is compared with those alone that repeat no other, so that a chain
  of small changes ends.

  Args:
    signatures: `[n, d]`, rows of length 1, see `render.signature`.
    same: least inner product of two that are the same.

  Returns:
    int `[n]`, places of first drawings; `first[i] <= i`.

  Example:
    >>> first_of(np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])).tolist()
    [0, 1, 0]
  """
  first = np.arange(len(signatures))
  kept = np.empty(len(signatures), np.int64)
  rows = np.empty_like(signatures)
  number = 0
  for start in range(0, len(signatures), _BLOCK):
    block = signatures[start : start + _BLOCK]
    before = number
    near = block @ rows[:before].T
    within = block @ block.T
    for i in range(len(block)):
      mine = kept[before:number] - start
      likeness = np.concatenate([near[i], within[i, mine]])
      best = int(likeness.argmax()) if number else 0
      if number and likeness[best] >= same:
        first[start + i] = kept[best]
        continue
      kept[number] = start + i
      rows[number] = block[i]
      number += 1
  return first


def winners(first: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """The drawings to keep: of those that are the same, one.

  It is of the class that most of them have; where two classes tie, nobody can
  say what is drawn, and none is kept.

  Args:
    first: int `[n]` of `first_of`.
    labels: int `[n]`, the classes that the names mean.

  Returns:
    int `[k]`, places in increasing order.

  Example:
    >>> winners(np.array([0, 0, 0, 3, 3]), np.array([7, 8, 8, 7, 8])).tolist()
    [1]
  """
  groups: dict[int, list[int]] = collections.defaultdict(list)
  for place, start in enumerate(first.tolist()):
    groups[start].append(place)
  kept = []
  for places in groups.values():
    counts = collections.Counter(labels[places].tolist()).most_common(2)
    if len(counts) == 1 or counts[0][1] > counts[1][1]:
      kept.append(next(p for p in places if labels[p] == counts[0][0]))
  return np.array(sorted(kept), np.int64)
