"""Negatives ahead of every positive, for blocks of queries.

The j-th best positive of a query ranks j + the negatives ahead of it, so that
no scores are kept, sorted or merged.
"""

from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from hier_jax.evaluation.retrieval import counters, tiles
from hier_jax.evaluation.retrieval.layout import Layout

# XLA's CPU product of a single row runs another kernel, in which identical
# gallery rows can get scores that differ in the last bit and no longer tie.
_MIN_BLOCK = 8
_MIN_TILE = 64


class Ranker:
  """A gallery on the devices, and how to rank it.

  Attributes:
    num_repeated: queries that bfloat16 could not tell all ranks of, and that
      went through in float32 after that; None where it was not tried.
  """

  def __init__(
    self,
    gallery: np.ndarray,
    layout: Layout,
    *,
    ties: str,
    best_only: bool,
    block: int,
    tile: int,
    narrow: bool,
    devices: Sequence[jax.Device] | None,
  ):
    """Puts the gallery on the devices.

    Args:
      gallery: `[m, d]` float32, whose products with the queries rank it.
      layout: of queries and gallery.
      ties: a key of `counters.AHEAD`.
      best_only: whether the best positive is enough.
      block: queries at a time.
      tile: gallery rows at a time, taken up to a power of two.
      narrow: whether to try in bfloat16 first.
      devices: what the gallery is spread over; None for all local ones.
    """
    self.num_repeated: int | None = None
    self._layout, self._ties = layout, ties
    self._best_only, self._block = best_only, max(_MIN_BLOCK, block)
    self._mesh = Mesh(np.array(devices or jax.local_devices()), (tiles.AXIS,))
    rows = _in_tiles(gallery, layout.gallery, tile, self._mesh.size)
    self._padding = np.int32(rows.shape[0] * rows.shape[1] - len(gallery))
    self._tiles = tiles.Tiles(self._spread(rows))
    self._narrow = self._narrowed(rows) if narrow else None

  def negatives_ahead(
    self, queries: np.ndarray
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Ranks the gallery for all queries, some at a time.

    Args:
      queries: `[n, d]` float32.

    Yields:
      places `[b]` of the layout, and counts `[s, b, J]` int32 of the s
      comparisons of the tie policy. The j-th in a row is of the j-th best
      positive of the query; those from R on mean nothing.
    """
    places, compared = np.arange(len(queries)), len(counters.AHEAD[self._ties])
    if self._narrow is not None:
      repeat = []
      for some, counts in self._blocks(queries, places, self._narrow):
        unsure = counts[compared:].any((0, 2))
        repeat.append(some[unsure])
        yield self._ordered(some[~unsure], counts[:compared, ~unsure])
      places = np.concatenate(repeat)
      self.num_repeated = len(places)
    for some, counts in self._blocks(queries, places, self._tiles):
      yield self._ordered(some, counts)

  def _blocks(self, queries, places, gallery):
    """Counts of `tiles.count_ahead` `[s, b, J]` at places, some at a time."""
    block = min(self._block, max(_MIN_BLOCK, len(queries)))
    pending = None
    for first in range(0, len(places), block):
      some = places[first : first + block]
      counts = self._dispatch(queries, some, block, gallery)
      # The devices work on this block while the host takes the one before.
      if pending is not None:
        yield _on_host(*pending)
      pending = some, counts
    if pending is not None:
      yield _on_host(*pending)

  def _dispatch(self, queries, places, block, gallery):
    layout = self._layout
    most = int(layout.num_positives[places].max())
    # The last query stands in for those that a last block lacks.
    rows = np.pad(places, (0, block - len(places)), 'edge')
    return tiles.count_ahead(
      gallery,
      queries[layout.queries[rows]],
      layout.runs[:, rows],
      np.int32(most),
      self._padding,
      slots=0 if self._best_only else _slots(most),
      ties=self._ties,
      mesh=self._mesh,
    )

  def _ordered(self, places, counts):
    """The better a positive, the fewer negatives are ahead of it."""
    if self._best_only:
      return places, counts
    r = self._layout.num_positives[places]
    filled = np.arange(counts.shape[2]) < r[:, None]
    return places, np.sort(np.where(filled, counts, np.iinfo(np.int32).max))

  def _spread(self, rows):
    sharding = NamedSharding(self._mesh, PartitionSpec(tiles.AXIS))
    return jax.make_array_from_callback(rows.shape, sharding, rows.__getitem__)

  def _narrowed(self, rows):
    """The gallery in bfloat16 beside that in float32."""
    narrow = rows.astype(jnp.bfloat16)
    norms = lambda x: np.linalg.norm(x, axis=2).max(1)
    lost = norms(rows - narrow.astype(np.float32))
    parts = map(self._spread, (narrow, norms(rows), lost))
    return self._tiles._replace(narrow=tiles.Narrow(*parts))


def _on_host(places, counts):
  """Counts `[s, J, b]` of a block as `[s, b, J]` of its places."""
  return places, np.moveaxis(np.asarray(counts), 1, 2)[:, : len(places)]


def _slots(most: int) -> int:
  """Places for so many positives, of few sizes: each is one more program."""
  slots = 16
  while slots < most:
    slots *= 4
  return slots


def _in_tiles(gallery, order, tile, devices):
  """`[T, tile, d]` in this order, zeros at the end, T a multiple of devices."""
  m, d = gallery.shape
  size = _MIN_TILE
  while size < min(tile, -(-m // devices)):
    size *= 2
  num = -(-m // (size * devices)) * devices
  rows = np.zeros((num * size, d), np.float32)
  np.take(gallery, order, axis=0, out=rows[:m], mode='clip')
  return rows.reshape(num, size, d)
