"""Ranks of the items that share a level with a query, by sorting few others.

The ranks of these, the query's kin, are all that graded metrics are made of.
Scores are put into cells that a multiplication finds. An item whose cell holds
no kin is counted; only the items of the other cells are sorted. Where a tenth
of the gallery is kin that takes a third of the time of sorting it all.

What is sorted is one integer an item: its distance from the best score, in
steps far smaller than what scores are off by, and behind it its level. Where an
item may tie with one of another level, scores decide.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from hier_jax.evaluation.retrieval import _exact

# Cells by items, at least: more sort less, but take longer to count.
_CELLS = 2
# Bits of a key: the distance from the best score, and below it the level.
_FAR, _LEVEL = 54, 8
# Digits that keys are sorted by, the last first: their type, and how many bits
# of the key end with them.
_DIGITS = (np.uint8, 24), (np.uint16, 16)
# Of the query's own row: behind all others.
_LAST = np.iinfo(np.int64).max >> _LEVEL
_MOST = (1 << _FAR) - 1
# Steps that rounding moves a distance by, at most.
_ROUNDING = 16
# Queries and their kin that one thread scores at a time: more take fewer calls,
# and leave its cache.
_QUERIES, _KIN = 16, 1 << 17


class Kin(NamedTuple):
  """The kin of queries that have as many each.

  Attributes:
    levels: uint8 `[b, R]`, levels that each shares with the query, from the
      nearest item on, 1 or more.
    ranks: int64 `[b, R]`, their ranks in the whole gallery, from 1.
    ahead: for each query `[2, P]` of its P items of the last level, from the
      nearest on: items of other levels that are ahead of it for sure, and that
      are ahead or tied. Of nothing where the gallery is not `counted`.
  """

  levels: np.ndarray
  ranks: np.ndarray
  ahead: list[np.ndarray]


class Relatives(NamedTuple):
  """Where the kin of a class lie in a gallery sorted by path.

  Attributes:
    place: rows of the kin.
    level: uint8 `[R]`, levels that each shares with the class.
    same: rows of the class itself.
  """

  place: slice
  level: np.ndarray
  same: slice


class Gallery(NamedTuple):
  """What is known of the items that are ranked.

  Attributes:
    path: int32 `[L, m]`, the taxonomy's node of each item at each level; sorted
      by the first level, then by the second and so on.
    radius: `[m]`; the score of a query whose row has length 1 is off by this at
      most.
    largest_radius: the largest of these.
    pessimistic: whether the lower of two levels comes first at a tie.
    counted: whether to tell `Kin.ahead`.
  """

  path: np.ndarray
  radius: np.ndarray
  largest_radius: float
  pessimistic: bool
  counted: bool = False

  def relatives(self, path: np.ndarray) -> Relatives:
    """The kin of a class with the nodes `path` `[L]`."""
    start, stop = _run(self.path[0], int(path[0]), 0)
    level = np.ones(stop - start, np.uint8)
    first, last = start, stop
    for nodes, node in zip(self.path[1:], path[1:], strict=True):
      first, last = _run(nodes[first:last], int(node), first)
      level[first - start : last - start] += 1
    return Relatives(slice(start, stop), level, slice(first, last))

  def order(self, level: np.ndarray) -> np.ndarray:
    """What levels, or what this made of them, are compared by at a tie."""
    return level if self.pessimistic else ~level


class Queries(NamedTuple):
  """Queries, sorted by their nodes of the first level.

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

  def groups(self, gallery: Gallery) -> Iterator['Queries']:
    """Parts for one thread at a time, each of queries of one node."""
    start = 0
    for top in np.split(self.path[:, 0], _changes(self.path[:, :1])):
      first, last = _run(gallery.path[0], int(top[0]), 0)
      most = int(np.clip(_KIN // max(1, last - first), 1, _QUERIES))
      for some in range(start, start + len(top), most):
        part = slice(some, min(some + most, start + len(top)))
        yield Queries(*(x[part] for x in self))
      start += len(top)

  def kin(self, gallery: Gallery) -> Kin:
    """The kin of the queries of a group."""
    found: list[tuple[np.ndarray, ...]] = []
    start = 0
    # Queries of one class stand side by side.
    for paths in np.split(self.path, _changes(self.path)):
      relatives = gallery.relatives(paths[0])
      for i in range(start, start + len(paths)):
        row = self.scores[i], self.length[i], self.own[i]
        found.append(_kin(gallery, relatives, *row))
      start += len(paths)
    levels, ranks, ahead = zip(*found, strict=True)
    return Kin(np.stack(levels), np.stack(ranks), list(ahead))


class _Steps(NamedTuple):
  """Distances from the best score in whole steps, and cells of many steps.

  Attributes:
    best: the best score.
    size: score of a step.
    bits: a cell has `1 << bits` steps.
    reach: steps within which two may tie, fewer than a cell has.
    num_cells: that hold all scores.
  """

  best: float
  size: float
  bits: int
  reach: int
  num_cells: int

  @classmethod
  def of(cls, scores: np.ndarray, near: float) -> '_Steps':
    """Steps of scores `[m]`, two of which may tie where they are so near."""
    cells = (_CELLS * len(scores) - 1).bit_length()
    bits = _FAR - cells
    best = scores.max()
    # No cell lies between two that may tie.
    tiny = np.ldexp(np.finfo(float).tiny, _FAR)
    width = max(np.ldexp(best - scores.min(), -cells), 4 * near, tiny)
    # A little wider, or the worst score would begin one cell more.
    size = np.ldexp((1 + 2.0**-20) * width, -bits)
    reach = int(near / size) + _ROUNDING
    return cls(best, size, bits, reach, 1 << cells)

  def far(self, scores: np.ndarray, bits: int = 0) -> np.ndarray:
    """Distances in steps, or in some power of 2 of them, int64."""
    far = self.best - scores
    # A power of 2 rounds nothing: a cell is the same by either way.
    far *= 1 / np.ldexp(self.size, bits)
    return far.astype(np.int64)

  def cells(self, far: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first and the last cell that items this many steps away tie with."""
    nearest = np.maximum(far - self.reach, 0) >> self.bits
    return nearest, np.minimum(far + self.reach, _MOST) >> self.bits


def _kin(
  gallery: Gallery,
  relatives: Relatives,
  scores: np.ndarray,
  length: float,
  own: int | np.integer,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """A row of `Kin`, of a row of `Queries`."""
  place, level, same = relatives
  if len(level) <= (own >= 0):
    none = np.zeros((2, 0), np.int64)
    return none[0].astype(np.uint8), none[0], none
  steps = _Steps.of(scores, 2 * length * gallery.largest_radius)
  kin = steps.far(scores[place])
  ahead, others = _counted(steps, kin, scores, place)
  far = np.concatenate([kin, steps.far(scores[others])])
  level = np.concatenate([level, np.zeros(len(others), np.uint8)])
  if own >= 0:
    far[own - place.start], level[own - place.start] = _LAST, 0
  keys = _sorted((far << _LEVEL) | gallery.order(level))
  found, far_found = gallery.order(keys.astype(np.uint8)), keys >> _LEVEL
  tied = _may_tie(far_found, found, steps.reach)
  if tied:
    rows = np.concatenate([np.arange(place.start, place.stop), others])
    order = np.argsort(np.where(far == _LAST, np.inf, -scores[rows]))
    order = order[: len(rows) - (own >= 0)]
    far_found, rows = far[order], rows[order]
    error = length * gallery.radius[rows]
    found = _settled(scores[rows], error, level[order], gallery)
  ranked = np.flatnonzero(found > 0)
  ranks = 1 + ranked + ahead[far_found[ranked] >> steps.bits]
  found = found[ranked]
  if not gallery.counted:
    return found, ranks, np.zeros((2, 0), np.int64)
  if not tied:
    return found, ranks, _ahead(ranks[found == len(gallery.path)])
  run = np.array([same.start, same.stop, own])
  return found, ranks, _exact.counts(scores, length, run, gallery.radius)


def _ahead(ranks: np.ndarray) -> np.ndarray:
  """How many of other levels are ahead of items `[P]` of one, `[2, P]`."""
  return np.stack(2 * [ranks - np.arange(1, 1 + len(ranks))])


def _counted(
  steps: _Steps, kin: np.ndarray, scores: np.ndarray, place: slice
) -> tuple[np.ndarray, np.ndarray]:
  """Counts the items that need no sorting.

  Args:
    steps: of the scores.
    kin: distances of the kin in steps.
    scores: `[m]`.
    place: of the kin among them.

  Returns:
    how many items of cells without kin lie in each cell or nearer; and the
    places of the items in the other cells, without the kin.
  """
  cells = steps.far(scores, steps.bits)
  # Kin in a cell of their own, the last.
  cells[place] = steps.num_cells
  held = np.zeros(steps.num_cells + 1, bool)
  count = np.bincount(cells, minlength=steps.num_cells + 1)
  for ends in steps.cells(kin):
    held[ends], count[ends] = True, 0
  return np.cumsum(count, out=count), np.flatnonzero(held[cells])


def _sorted(keys: np.ndarray) -> np.ndarray:
  """Keys in order: by their first bits at once, and then the few that are left.

  NumPy sorts 16 bits by their radix, and its stable sort gains from what is
  nearly sorted. On an EPYC with AVX-512 that takes a third of the time of its
  other sort, which writes parts of vectors to memory; it needs no such
  instructions.
  """
  for kind, below in _DIGITS:
    digit = (keys >> (_FAR + _LEVEL - below)).astype(kind)
    keys = keys[np.argsort(digit, kind='stable')]
  keys.sort(kind='stable')
  return keys


def _may_tie(far: np.ndarray, level: np.ndarray, reach: int) -> bool:
  """Whether items of two levels may tie, of distances `[k]` in order."""
  first = np.flatnonzero(far[1:] - far[:-1] <= reach)
  return bool(np.any(level[first] != level[first + 1]))


def _settled(
  scores: np.ndarray, error: np.ndarray, level: np.ndarray, gallery: Gallery
) -> np.ndarray:
  """The levels in order, where ties are broken by them.

  Args:
    scores: `[k]`, descending.
    error: `[k]`, what they are off by at most.
    level: uint8 `[k]`.
    gallery: knows what comes first.
  """
  tied = scores[:-1] - scores[1:] <= error[:-1] + error[1:]
  # One number holds place and level: sorting it breaks ties by the latter.
  key = np.zeros(len(level), np.int64)
  np.cumsum(~tied, out=key[1:])
  key = (key << _LEVEL) | gallery.order(level)
  key.sort()
  return gallery.order(key.astype(np.uint8))


def _run(nodes: np.ndarray, node: int, start: int) -> tuple[int, int]:
  """Where a node begins and ends in sorted nodes that begin at `start`."""
  # Of the same type, or all nodes would be converted.
  ends = np.array([node, node + 1], nodes.dtype)
  first, last = np.searchsorted(nodes, ends)
  return start + int(first), start + int(last)


def _changes(paths: np.ndarray) -> np.ndarray:
  """Rows of `[b, l]` unlike the one before."""
  return 1 + np.flatnonzero(np.any(paths[1:] != paths[:-1], 1))
