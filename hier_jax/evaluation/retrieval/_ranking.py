"""Negatives ahead of every positive, for blocks of queries.

The j-th best positive of a query ranks j + the negatives ahead of it, so that
no scores are kept, sorted or merged.
"""

import os
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hier_jax.evaluation.retrieval import _counters, _tiles
from hier_jax.evaluation.retrieval._layout import Layout
from hier_jax.evaluation.retrieval.lift import Lift

_MIN_BLOCK = 8
_MIN_TILE = 64
# Queries and gallery rows at a time: what keeps a device busy while the host
# launches what is next. On CPU see `_cpu_sizes`.
_SIZES = 8192, 32768
# Queries at a time on CPU, and bytes of a core's own cache where the system
# does not tell.
_CPU_BLOCK, _CACHE = 512, 1 << 20
# Unit roundoff.
_FLOAT32 = 2.0**-24


class Ranker:
  """A gallery on the devices, and how to rank it."""

  def __init__(
    self,
    lift: Lift,
    gallery: np.ndarray,
    layout: Layout,
    *,
    best_only: bool,
    block: int | None,
    tile: int | None,
    narrow: bool,
    devices: Sequence[jax.Device] | None,
  ):
    """Puts the gallery on the devices.

    Args:
      lift: makes rows whose products rank it.
      gallery: `[m, d]`.
      layout: of queries and gallery.
      best_only: whether the best positive is enough.
      block: queries at a time; None for what suits the devices.
      tile: gallery rows at a time, taken up to a power of two; None likewise.
      narrow: whether to be able to multiply in bfloat16.
      devices: what the gallery is spread over; None for all local ones.
    """
    self._lift, self._layout = lift, layout
    self._mesh = Mesh(np.array(devices or jax.local_devices()), (_tiles.AXIS,))
    sizes = _cpu_sizes() if self.on_cpu else _SIZES
    block, tile = block or sizes[0], tile or sizes[1]
    self._best_only, self._block = best_only, max(_MIN_BLOCK, block)
    rows = lift.gallery(gallery)
    in_tiles = lambda x: _in_tiles(x, layout.gallery, tile, self._mesh.size)
    error = in_tiles(lift.gallery_error(gallery)[:, None])[..., 0]
    rows = in_tiles(rows)
    self._tiles = self._put(rows, rows, error)
    self._narrow = self._tiles
    if narrow:
      cut = rows.astype(jnp.bfloat16)
      self._narrow = self._tiles._replace(narrow=self._put(cut, rows, error))

  @property
  def on_cpu(self) -> bool:
    """Whether the devices are CPUs."""
    return self._platform == 'cpu'

  @property
  def _platform(self) -> str:
    return self._mesh.devices.flat[0].platform

  def negatives_ahead(
    self, queries: np.ndarray, places: np.ndarray, *, narrow: bool = False
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ranks the gallery for queries, some at a time.

    Args:
      queries: `[n, d]`.
      places: which of them, by their place in the layout.
      narrow: whether to multiply in bfloat16.

    Yields:
      some of the places `[b]`, and counts `[2, b, J]` int32: negatives that are
      ahead for sure, and that may be ahead or equal. The j-th in a row is of
      the j-th best positive of the query; those from R on mean nothing.
    """
    gallery = self._narrow if narrow else self._tiles
    block = min(self._block, max(_MIN_BLOCK, len(queries)))
    pending = None
    for first in range(0, len(places), block):
      some = places[first : first + block]
      counts = self._dispatch(queries, some, block, gallery)
      # The devices work on this block while the host takes the one before.
      if pending is not None:
        yield self._ordered(*pending)
      pending = some, counts
    if pending is not None:
      yield self._ordered(*pending)

  def _dispatch(self, queries, places, block, gallery):
    layout = self._layout
    most = int(layout.num_positives[places].max())
    # The last query stands in for those that a last block lacks.
    rows = np.pad(places, (0, block - len(places)), 'edge')
    return _tiles.count_ahead(
      gallery,
      self._lift.queries(queries[layout.queries[rows]]),
      layout.runs[:, rows],
      np.int32(most),
      slots=0 if self._best_only else _slots(most),
      mesh=self._mesh,
    )

  def _ordered(self, places, counts):
    """Counts `[2, J, b]` of a block as `[2, b, J]` of its places, in order.

    The better a positive, the fewer negatives are ahead of it.
    """
    counts = np.moveaxis(np.asarray(counts), 1, 2)[:, : len(places)]
    if self._best_only:
      return places, counts
    r = self._layout.num_positives[places]
    filled = np.arange(counts.shape[2]) < r[:, None]
    return places, np.sort(np.where(filled, counts, np.iinfo(np.int32).max))

  def _put(
    self, cut: np.ndarray, rows: np.ndarray, error: np.ndarray
  ) -> _tiles.Tiles:
    """`Tiles` of rows `[T, tile, d]` as a precision has them.

    x.y - x'.y' = (x - x').y + x'.(y - y'). Besides, a sum of d products rounds
    in float32, in whatever order.
    """
    length = _norm(rows)
    rounding = self._lift.query_error() + (rows.shape[2] + 8) * _FLOAT32
    # Tile by tile, for a copy of all rows may not fit.
    lost = [
      _norm(x - y.astype(x.dtype)) for x, y in zip(rows, cut, strict=True)
    ]
    lost = np.stack(lost) + _FLOAT32 * length + error
    # `fmax` knows no NaN; a tile of nothing else may have any radius.
    most = lambda x: np.fmax.reduce(1.02 * x, 1, initial=0).astype(np.float32)
    radius = most(rounding * length + lost)
    radius += 4 * rows.shape[2] * np.finfo(np.float32).tiny
    lengths = most(length)
    return _tiles.Tiles(
      self._spread(cut), self._spread(radius), self._spread(lengths)
    )

  def _spread(self, rows: np.ndarray) -> jax.Array:
    sharding = NamedSharding(self._mesh, PartitionSpec(_tiles.AXIS))
    return jax.make_array_from_callback(rows.shape, sharding, rows.__getitem__)


def _cpu_sizes() -> tuple[int, int]:
  """Queries and gallery rows whose scores stay in the cores' own caches.

  The cores share a tile, and read its scores once for each positive. On an EPYC
  tiles of 16 MB, which stay in the cache of all cores only, took 1.7 times as
  long in all.
  """
  scores = cores() * _core_cache() // np.dtype(np.float32).itemsize
  tile = max(_MIN_TILE, scores // _CPU_BLOCK)
  return _CPU_BLOCK, 1 << (tile.bit_length() - 1)


def cores() -> int:
  """The cores that this process may use."""
  affinity = getattr(os, 'sched_getaffinity', None)
  return len(affinity(0)) if affinity else os.cpu_count() or 1


def _core_cache() -> int:
  """Bytes of a core's second-level cache."""
  try:
    found = os.sysconf('SC_LEVEL2_CACHE_SIZE')
  except (AttributeError, OSError, ValueError):
    # Linux alone tells.
    return _CACHE
  return found if found > 0 else _CACHE


def _norm(x: np.ndarray) -> np.ndarray:
  """`[..., d]` float32 -> `[...]` float64, whose squares do not overflow."""
  return np.sqrt(np.einsum('...d,...d->...', x, x, dtype=np.float64))


def _slots(most: int) -> int:
  """Places for `most` positives, of few sizes: each is one more program."""
  slots = 16
  while slots < most:
    slots *= 4
  return slots


def _in_tiles(
  gallery: np.ndarray, order: np.ndarray, tile: int, devices: int
) -> np.ndarray:
  """`[T, tile, d]` in this order, NaN at the end, T a multiple of devices."""
  m, d = gallery.shape
  size, tile = _MIN_TILE, min(tile, _counters.LARGEST)
  while size < min(tile, -(-m // devices)):
    size *= 2
  num = -(-m // (size * devices)) * devices
  rows = np.full((num * size, d), np.nan, np.float32)
  np.take(gallery, order, axis=0, out=rows[:m], mode='clip')
  return rows.reshape(num, size, d)
