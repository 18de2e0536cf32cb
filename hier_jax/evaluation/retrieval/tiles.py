"""Counts of what is ahead of a block of queries' positives, tile by tile.

A tile of the gallery is multiplied with the block, every positive's score is a
threshold, and what scores ahead of it is counted. The gallery lies sorted by
class: a query's positives stand in one run of rows, in a tile or two that are
multiplied once more to find the thresholds, and all other tiles count without a
mask. Over several devices each has a share of the tiles; the counts add up.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.sharding import PartitionSpec

from hier_jax.evaluation.retrieval.counters import AHEAD, Comparison, LookUp

AXIS = 'gallery'
# Positives beyond which each score is looked up among the thresholds: from
# there on that is cheaper than a comparison with each.
MANY = 256


class Narrow(NamedTuple):
  """Tiles in bfloat16, and what it takes to bound the error of a product.

  Attributes:
    rows: `[T, tile, d]` bfloat16.
    length: `[T]` float32, the largest norm of a float32 row in the tile.
    lost: `[T]` float32, the largest norm of what a row lost.
  """

  rows: jax.Array
  length: jax.Array
  lost: jax.Array


class Tiles(NamedTuple):
  """The gallery by class, in tiles of as many rows, zeros at the end.

  Attributes:
    rows: `[T, tile, d]` float32.
    narrow: the same in bfloat16, or None for no use of it.
  """

  rows: jax.Array
  narrow: Narrow | None = None


@functools.partial(jax.jit, static_argnames=('slots', 'ties', 'mesh'))
def count_ahead(tiles, queries, runs, most, padding, *, slots, ties, mesh):
  """Negatives ahead of the positives of a block of queries.

  Args:
    tiles: `Tiles`, spread over the mesh.
    queries: `[b, d]` float32.
    runs: of `Layout`, `[3, b]` int32.
    most: the largest R of the block, int32.
    padding: rows of zeros at the end of the gallery, int32.
    slots: J, at least `most`; 0 for the best positive only.
    ties: a key of `counters.AHEAD`.
    mesh: of the one axis `AXIS`.

  Returns:
    `[s, max(1, J), b]` int32 of the s comparisons of the tie policy, in no
    order along J, but filled from its beginning. Where bfloat16 is used (J up
    to `MANY`) one more entry along s: how many of its products are too near the
    threshold to tell.
  """
  spec = PartitionSpec()
  count = functools.partial(_count_share, slots=slots, ahead=AHEAD[ties])
  return jax.shard_map(
    count,
    mesh=mesh,
    in_specs=(PartitionSpec(AXIS), spec, spec, spec, spec),
    out_specs=spec,
    check_vma=False,
  )(tiles, queries, runs, most, padding)


def _count_share(tiles, queries, runs, most, padding, *, slots, ahead):
  """`count_ahead` of one device's tiles; the counts are of all devices."""
  block = Block(tiles, queries, *_own_places(tiles, runs))
  thresholds = _thresholds(block, slots)
  counter: LookUp | Comparison
  if slots > MANY:
    counter = LookUp(jnp.sort(thresholds, 0), ahead)
  else:
    narrow = tiles.narrow is not None
    counter = Comparison(thresholds, most if slots else 1, ahead, narrow)
  first, last = block.class_tiles()
  num = len(tiles.rows)

  def other_tile(k, counts):
    i = (last + k) % num
    if isinstance(counter, Comparison) and tiles.narrow:
      return counter.add_narrow(counts, *block.narrow_scores(tiles.narrow, i))
    return counter.add(counts, block.scores(i))

  def class_tile(i, counts):
    others = jnp.where(block.in_class(i), -jnp.inf, block.scores(i))
    return counter.add(counts, others)

  counts = lax.fori_loop(0, num - (last - first), other_tile, counter.begin())
  counts = lax.fori_loop(first, last, class_tile, counts)
  return counter.finish(lax.psum(counts, AXIS), padding)


def _own_places(tiles, runs):
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

  def class_tiles(self):
    """First and last + 1 of the tiles with rows of the queries' classes."""
    num, size = self.tiles.rows.shape[:2]
    first = jnp.clip(self.start.min() // size, 0, num)
    return first, jnp.clip(-(-self.stop.max() // size), first, num)

  def scores(self, i):
    """Of tile i, `[b, tile]`."""
    rows = self.tiles.rows[i]
    return jnp.matmul(self.queries, rows.T, precision=lax.Precision.HIGHEST)

  def narrow_scores(self, narrow, i):
    """Scores of tile i in bfloat16, and a bound `[b]` on their error.

    The error is the difference from `scores`.
    """
    # A mere conversion there and back may be optimised away.
    queries = lax.reduce_precision(self.queries, 8, 7)
    scores = jnp.matmul(
      queries.astype(jnp.bfloat16),
      narrow.rows[i].T,
      preferred_element_type=jnp.float32,
    )
    length, lost = (
      jnp.linalg.norm(x, axis=1) for x in (self.queries, self.queries - queries)
    )
    # x.y - x'.y' = (x - x').y + x'.(y - y'). Besides, sums of d products round
    # in both, and so does a threshold that the bound is added to.
    d, single = queries.shape[1], jnp.finfo(jnp.float32)
    rounding = (2 * d + 32) * single.eps / 2
    error = (lost + rounding * length) * narrow.length[i]
    error += (length + lost) * narrow.lost[i]
    return scores, 1.01 * error + 4 * d * single.tiny

  def _row(self, i):
    """The row at each column of tile i, `[1, tile]`."""
    size = self.tiles.rows.shape[1]
    return i * size + jnp.arange(size, dtype=jnp.int32)[None]

  def in_class(self, i):
    """Which rows of tile i are of the query's class, `[b, tile]`."""
    row = self._row(i)
    return (self.start <= row) & (row < self.stop)

  def best_positive(self, i, found):
    """The best score `[b, 1]` so far, of positives in tile i as well."""
    other = self.in_class(i) & (self._row(i) != self.own)
    score = jnp.where(other, self.scores(i), -jnp.inf)
    return jnp.maximum(found, jnp.max(score, 1, keepdims=True))

  def positives(self, i, found):
    """Positives' scores `[b, J]`, those in tile i filled in."""
    place = jnp.arange(found.shape[1], dtype=jnp.int32)
    row = self.start + place[None]
    row += row >= self.own
    size = self.tiles.rows.shape[1]
    column = row - i * size
    here = (row < self.stop) & (column >= 0) & (column < size)
    column = jnp.clip(column, 0, size - 1)
    return jnp.where(
      here, jnp.take_along_axis(self.scores(i), column, 1), found
    )


def _thresholds(block, slots):
  """Scores of the positives `[J, b]`, of the best one where J is 0 `[1, b]`.

  Inf, of which nothing is ahead, where a query has fewer.
  """
  shape = len(block.queries), max(1, slots)
  found = jnp.full(shape, -jnp.inf, block.queries.dtype)
  find = block.positives if slots else block.best_positive
  first, last = block.class_tiles()
  found = lax.fori_loop(first, last, find, found)
  found = lax.pmax(found, AXIS).T
  return jnp.where(jnp.isneginf(found), jnp.inf, found)
