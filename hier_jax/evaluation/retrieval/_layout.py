"""Queries and gallery sorted by class."""

from typing import NamedTuple

import numpy as np


class Layout(NamedTuple):
  """Places of queries and gallery by class, the smallest class first.

  Attributes:
    queries: `[n]`, the query at each place.
    gallery: `[m]`, the gallery row at each place.
    runs: `[3, n]` int32, for the query at each place: the place of the first
      gallery row of its class, the place after the last one, and the place of
      the gallery row that is the query, m where there is none.
  """

  queries: np.ndarray
  gallery: np.ndarray
  runs: np.ndarray

  @property
  def num_positives(self) -> np.ndarray:
    """`[n]` int32, R of the query at each place."""
    start, stop, own = self.runs
    return stop - start - (own < len(self.gallery))

  def at(self, places: np.ndarray) -> 'Layout':
    """The queries at these places alone."""
    return Layout(self.queries[places], self.gallery, self.runs[:, places])


def by_class(
  codes: np.ndarray, gallery_codes: np.ndarray, own: np.ndarray
) -> Layout:
  """Sorts by class, so that neighbors have about as many positives.

  Args:
    codes: classes of the queries `[n]`, integers from 0.
    gallery_codes: `[m]`.
    own: the gallery row that is the query, or -1 `[n]`.

  Raises:
    ValueError: for more gallery rows than int32 counts.
  """
  if (m := len(gallery_codes)) > np.iinfo(np.int32).max:
    raise ValueError(f'gallery has {m:,} rows; expected fewer than 2^31')
  size = np.bincount(gallery_codes, minlength=1 + codes.max())
  order = np.argsort(size, kind='stable')
  rank = np.empty_like(order)
  rank[order] = np.arange(len(order))
  stop = np.cumsum(size[order])[rank]
  queries = np.argsort(rank[codes], kind='stable')
  gallery = np.argsort(rank[gallery_codes], kind='stable')
  # The last entry is that of own = -1.
  place = np.full(m + 1, m)
  place[gallery] = np.arange(m)
  codes = codes[queries]
  runs = (stop - size)[codes], stop[codes], place[own[queries]]
  return Layout(queries, gallery, np.array(runs, np.int32))
