"""Ranking in bfloat16, float32 and float64, each for what is left open."""

from collections.abc import Iterable
from typing import Any

import numpy as np

from hier_jax.evaluation.retrieval import _exact, _ranking, _tiles
from hier_jax.evaluation.retrieval._layout import Layout
from hier_jax.evaluation.retrieval._outcomes import Wanted
from hier_jax.evaluation.retrieval.lift import Lift

# Products of two numbers that float64 may take, or a quarter of all: seconds.
_MOST_EXACT = 1 << 37


class Passes:
  """Queries on their way through one precision after another.

  Attributes:
    found: attribute of `PerQuery` -> its values, of all queries after `run`.
    num_repeated: see `PerQuery`.
  """

  def __init__(
    self,
    queries: np.ndarray,
    gallery: np.ndarray,
    places: Layout,
    lift: Lift,
    wanted: Wanted,
  ):
    """Starts with queries `[n, d]` and a gallery `[m, d]` that were checked."""
    self._queries, self._gallery = queries, gallery
    self._layout, self._lift, self._wanted = places, lift, wanted
    self.found = {'num_positives': np.zeros(len(queries), np.int32)}
    self.found['num_positives'][places.queries] = places.num_positives
    self.num_repeated: int | None = None

  def run(self, bar, block, tile, narrow, devices):
    """Ranks all queries."""
    ranker = _ranking.Ranker(
      self._lift,
      self._gallery,
      self._layout,
      best_only=self._wanted.best_only,
      block=block,
      tile=tile,
      narrow=narrow,
      devices=devices,
    )
    left, late = np.arange(len(self._queries)), np.arange(0)
    if ranker.on_cpu and not self._wanted.best_only:
      # A CPU sorts scores sooner than XLA has it look them up.
      large = self._layout.num_positives > _tiles.MANY
      left, late = left[~large], left[large]
    for in_narrow in [True, False] if narrow else [False]:
      found = ranker.negatives_ahead(self._queries, left, narrow=in_narrow)
      left = self._take(found, bar)
      if in_narrow:
        self.num_repeated = len(left)
    unresolved = left[self._affordable() :]
    self._settle(np.concatenate([late, left[: self._affordable()]]), bar)
    self._mark('unresolved', unresolved)
    bar.update(bar.total - bar.n)

  def _settle(self, places, bar):
    """Ranks queries in float64: what is open after that are ties."""
    found: Iterable[Any] = ()
    if len(places):
      order = self._layout.gallery
      gallery = _exact.Gallery(self._lift, self._gallery[order])
      found = _exact.negatives_ahead(
        gallery, self._queries, self._layout, places
      )
    self._mark('tied', self._take(found, bar))

  def _affordable(self):
    """How many queries float64 may take."""
    products = self._gallery.size
    return max(_MOST_EXACT // products, len(self._queries) // 4)

  def _take(self, found, bar):
    """Keeps what counts say; returns the places that they leave open."""
    left = [np.arange(0)]
    for some, counts in found:
      values, hangs = self._wanted.of(counts, self._layout.num_positives[some])
      for name, rows in values.items():
        if name not in self.found:
          shape = len(self._queries), *rows.shape[1:]
          self.found[name] = np.zeros(shape, rows.dtype)
        self.found[name][self._layout.queries[some]] = rows
      left.append(some[hangs])
      bar.update(int(np.sum(~hangs)))
    return np.concatenate(left)

  def _mark(self, name, places):
    marks = np.zeros(len(self._queries), bool)
    marks[self._layout.queries[places]] = True
    self.found[name] = marks
