"""Ranks of the items that share a level with a query, by sorting few others.

The ranks of these, the query's kin, are all that graded metrics are made of.
Scores are put into cells that a multiplication finds. An item whose cell holds
no kin is counted; only the items of the other cells are sorted. Where a tenth
of the gallery is kin that takes a third of the time of sorting it all.
"""

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import numpy as np

# Cells by items: more sort less, but take longer to count.
_CELLS = 4
# Queries and their kin that one thread scores at a time, to stay in its cache.
_QUERIES, _KIN = 8, 1 << 16


class Kin(NamedTuple):
  """The kin of queries that have as many each.

  Attributes:
    levels: uint8 `[b, R]`, levels that each shares with the query, from the
      nearest item on, 1 or more.
    ranks: int64 `[b, R]`, their ranks in the whole gallery, from 1.
  """

  levels: np.ndarray
  ranks: np.ndarray


class Gallery(NamedTuple):
  """What is known of the items that are ranked.

  Attributes:
    path: int32 `[L, m]`, the taxonomy's node of each item at each level.
    radius: `[m]`; the score of a query whose row has length 1 is off by this at
      most.
    largest_radius: the largest of these.
    pessimistic: whether the lower of two levels comes first at a tie.
  """

  path: np.ndarray
  radius: np.ndarray
  largest_radius: float
  pessimistic: bool


class Queries(NamedTuple):
  """Queries, those of one node of the first level side by side.

  Attributes:
    scores: `[b, m]` of the gallery, the larger the nearer.
    length: `[b]`, of their rows.
    path: int32 `[b, L]`, the node of each at each level.
    own: `[b]`, their rows in the gallery; -1 where they are not there.
  """

  scores: np.ndarray
  length: np.ndarray
  path: np.ndarray
  own: np.ndarray

  def groups(self, num_items: Mapping[int, int]) -> Iterator['Queries']:
    """Parts for one thread at a time, each of queries of one node.

    Args:
      num_items: of the gallery, by number of their node of the first level.
    """
    top, start = self.path[:, 0], 0
    for stop in range(1, 1 + len(top)):
      most = np.clip(_KIN // max(1, num_items[top[start]]), 1, _QUERIES)
      if stop - start == most or [*top, -1][stop] != top[start]:
        yield Queries(*(x[start:stop] for x in self))
        start = stop

  def kin(self, gallery: Gallery) -> Kin:
    """The kin of the queries of a group."""
    found: list[tuple[np.ndarray, np.ndarray]] = []
    before = None
    for scores, length, path, own in zip(*self, strict=True):
      # Queries of one class stand side by side.
      if before is None or np.any(path != before):
        before, level = path, _levels(gallery.path, path)
        kin = np.flatnonzero(level > 0)
      found.append(_kin(gallery, scores, length, level, kin, own))
    return Kin(*map(np.stack, zip(*found, strict=True)))


def _levels(gallery: np.ndarray, path: np.ndarray) -> np.ndarray:
  """How many nodes of `path` `[L]` each item has, uint8 `[m]`."""
  level = np.zeros(gallery.shape[1], np.uint8)
  for nodes, node in zip(gallery, path, strict=True):
    level += nodes == node
  return level


def _kin(
  gallery: Gallery,
  scores: np.ndarray,
  length: float,
  level: np.ndarray,
  kin: np.ndarray,
  own: int | np.integer,
) -> tuple[np.ndarray, np.ndarray]:
  """A row of `Kin`, of a row of `Queries`, the items' levels and the kin."""
  near = 2 * length * gallery.largest_radius
  cells, counted, shared = _cells(scores, kin, own, near)
  shared = shared[np.argsort(-scores[shared])]
  scores, level = scores[shared], level[shared]
  if np.any(scores[:-1] - scores[1:] <= near):
    error = length * gallery.radius[shared]
    level = _settled(scores, error, level, gallery.pessimistic)
  place = np.flatnonzero(level)
  ahead = counted[-1] - counted[cells[shared[place]]]
  return level[place], 1 + place + ahead


def _cells(
  scores: np.ndarray, kin: np.ndarray, own: int | np.integer, near: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Cells of scores, and which items have to be sorted.

  Args:
    scores: `[m]`.
    kin: places of the kin among them, that of `own` too.
    own: see `Queries`.
    near: two scores tie at most where they are so near.

  Returns:
    the cell of each item `[m]`; how many items of cells without kin lie in each
    cell or below; and the places of the items in the other cells, those that
    may tie with kin among them, without that of `own`.
  """
  low = scores.min()
  num = _CELLS * len(scores)
  # Twice as near, for what rounding adds. No cell lies between two that tie.
  reach = 2 * near
  width = (scores.max() - low) / num, 2 * reach, np.finfo(float).tiny
  scale = 1 / max(width)
  cells = scores - low
  cells *= scale
  cells = cells.astype(np.intp)
  held = np.zeros(num + 1, bool)
  for end in (-reach, reach):
    place = (scores[kin] + end - low) * scale
    held[np.clip(place, 0, num).astype(np.intp)] = True
  sort = held[cells]
  if own >= 0:
    sort[own] = False
  count = np.bincount(cells, minlength=num + 1)
  count[held] = 0
  return cells, np.cumsum(count, out=count), np.flatnonzero(sort)


def _settled(
  scores: np.ndarray, error: np.ndarray, level: np.ndarray, pessimistic: bool
) -> np.ndarray:
  """The levels in order, where ties are broken by them.

  Args:
    scores: `[k]`, descending.
    error: `[k]`, what they are off by at most.
    level: uint8 `[k]`.
    pessimistic: see `Gallery`.
  """
  tied = scores[:-1] - scores[1:] <= error[:-1] + error[1:]
  flip = np.uint8(0 if pessimistic else 255)
  order = level ^ flip
  # One number holds place and level: sorting it breaks ties by the latter.
  key = np.zeros(len(level), np.int64)
  np.cumsum(~tied, out=key[1:])
  key = (key << 8) | order
  key.sort()
  return key.astype(np.uint8) ^ flip
