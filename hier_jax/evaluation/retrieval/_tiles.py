"""Counts of what is ahead of a block of queries' positives, tile by tile.

A tile of the gallery is multiplied with the block, every positive's score is a
threshold, and what scores ahead of it is counted. The gallery lies sorted by
class: a query's positives stand in one run of rows, in a tile or two that are
multiplied once more to find the thresholds, and all other tiles count without a
mask. Over several devices each has a share of the tiles; the counts add up.

Scores come with a bound of what they are off by, so that counts do too.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from hier_jax.evaluation.retrieval._counters import Comparison, LookUp, Scores

AXIS = 'gallery'
# Positives beyond which each score is looked up among the thresholds: from
# there on that is cheaper than a comparison with each.
MANY = 256


class Tiles(NamedTuple):
  """The gallery by class, in tiles of as many rows, NaN at the end.

  Attributes:
    rows: `[T, tile, d]` float32, or bfloat16 where narrow.
    radius: `[T]` float32; a product of a query q that fits the rows' dtype and
      a row of the tile is off by |q| times this at most.
    length: `[T]` float32, of the longest row in the tile.
    narrow: the same in bfloat16, or None for no use of it.
  """

  rows: jax.Array
  radius: jax.Array
  length: jax.Array
  narrow: 'Tiles | None' = None


@functools.partial(jax.jit, static_argnames=('slots', 'mesh'))
def count_ahead(tiles, queries, runs, most, *, slots, mesh):
  """Negatives ahead of the positives of a block of queries.

  Args:
    tiles: `Tiles`, spread over the mesh.
    queries: `[b, d]` float32.
    runs: of `Layout`, `[3, b]` int32.
    most: the largest R of the block, int32.
    slots: J, at least `most`; 0 for the best positive only.
    mesh: of the one axis `AXIS`.

  Returns:
    `[2, max(1, J), b]` int32: negatives that are ahead for sure, and that may
    be ahead or equal; in no order along J, but filled from its beginning.
  """
  spec = PartitionSpec()
  return jax.shard_map(
    functools.partial(_count_share, slots=slots),
    mesh=mesh,
    in_specs=(PartitionSpec(AXIS), spec, spec, spec),
    out_specs=spec,
    check_vma=False,
  )(tiles, queries, runs, most)


def _count_share(tiles, queries, runs, most, *, slots):
  """`count_ahead` of one device's tiles; the counts are of all devices."""
  block = Block(tiles, queries, *_own_places(tiles, runs))
  low, high = _thresholds(block, slots)
  counter: LookUp | Comparison
  if slots > MANY:
    counter = LookUp(jnp.sort(low, 0), jnp.sort(high, 0))
  else:
    counter = Comparison(low, high, most if slots else 1)
  first, last = block.class_tiles()
  num = len(tiles.rows)

  def other_tile(k, counts):
    scores = block.scores((last + k) % num, tiles.narrow or tiles)
    return counter.add(counts, scores)

  def class_tile(i, counts):
    scores = block.scores(i, tiles)
    others = jnp.where(block.in_class(i), -jnp.inf, scores.value)
    return counter.add(counts, scores._replace(value=others))

  counts = lax.fori_loop(0, num - (last - first), other_tile, counter.begin())
  counts = lax.fori_loop(first, last, class_tile, counts)
  return counter.finish(lax.psum(counts, AXIS))


def _own_places(tiles: Tiles, runs: jax.Array) -> jax.Array:
  """start, stop and own `[b, 1]` from the device's first row."""
  num, size = tiles.rows.shape[:2]
  return runs[:, :, None] - lax.axis_index(AXIS) * num * size


class Block(NamedTuple):
  """Queries and the tiles of one device.

  Attributes:
    tiles: `Tiles`.
    queries: `[b, d]`.
    start: `[b, 1]`, first row of each query's class.
    stop: `[b, 1]`, the row after the last one.
    own: `[b, 1]`, the row that is the query; past the end where there is none.
  """

  tiles: Tiles
  queries: jax.Array
  start: jax.Array
  stop: jax.Array
  own: jax.Array

  def class_tiles(self) -> tuple[jax.Array, jax.Array]:
    """First and last + 1 of the tiles with rows of the queries' classes."""
    num, size = self.tiles.rows.shape[:2]
    first = jnp.clip(self.start.min() // size, 0, num)
    return first, jnp.clip(-(-self.stop.max() // size), first, num)

  def scores(self, i: jax.Array, tiles: Tiles) -> Scores:
    """`Scores` of tile i of the tiles."""
    rows, queries = tiles.rows[i], self.queries
    norm = functools.partial(jnp.linalg.norm, axis=1)
    error = norm(queries) * tiles.radius[i]
    if rows.dtype != queries.dtype:
      # A mere conversion there and back may be optimized away.
      queries = lax.reduce_precision(queries, 8, 7)
      error += norm(self.queries - queries) * tiles.length[i]
    value = jnp.matmul(
      queries.astype(rows.dtype),
      rows.T,
      precision=lax.Precision.HIGHEST,
      preferred_element_type=jnp.float32,
    )
    return Scores(value, 1.001 * error)

  def _row(self, i: jax.Array) -> jax.Array:
    """The row at each column of tile i, `[1, tile]`."""
    size = self.tiles.rows.shape[1]
    return i * size + jnp.arange(size, dtype=jnp.int32)[None]

  def in_class(self, i: jax.Array) -> jax.Array:
    """Which rows of tile i are of the query's class, `[b, tile]`."""
    row = self._row(i)
    return (self.start <= row) & (row < self.stop)

  def best_positive(self, i, found):
    """The best score so far, both ends `[b, 1]`, of those in tile i as well."""
    other = self.in_class(i) & (self._row(i) != self.own)
    scores = self.scores(i, self.tiles)
    values = jnp.where(other, scores.value, -jnp.inf)
    best = scores._replace(value=jnp.max(values, 1, keepdims=True))
    return tuple(map(jnp.maximum, found, (best.low, best.high)))

  def positives(self, i, found):
    """Positives' scores, both ends `[b, J]`, those in tile i filled in."""
    place = jnp.arange(found[0].shape[1], dtype=jnp.int32)
    row = self.start + place[None]
    row += row >= self.own
    size = self.tiles.rows.shape[1]
    column = row - i * size
    here = (row < self.stop) & (column >= 0) & (column < size)
    column = jnp.clip(column, 0, size - 1)
    scores = self.scores(i, self.tiles)
    values = jnp.take_along_axis(scores.value, column, 1)
    mine = scores._replace(value=values)
    low, high = found
    return jnp.where(here, mine.low, low), jnp.where(here, mine.high, high)


def _thresholds(block: Block, slots: int) -> tuple[jax.Array, ...]:
  """Both ends `[J, b]` of the positives' scores; of the best where J is 0.

  Inf, of which nothing is ahead, where a query has fewer.
  """
  none = jnp.full((len(block.queries), max(1, slots)), -jnp.inf, jnp.float32)
  find = block.positives if slots else block.best_positive
  first, last = block.class_tiles()
  found = lax.fori_loop(first, last, find, (none, none))
  found = (lax.pmax(ends, AXIS).T for ends in found)
  return tuple(jnp.where(jnp.isneginf(ends), jnp.inf, ends) for ends in found)
