"""Counts of the scores of a tile that are ahead of thresholds.

A score is known as an interval, and so is a threshold. Counts are pairs `[2, J,
b]` int32 for J thresholds and b queries: first the scores that are ahead for
sure, then those that may be ahead or equal. NaN is neither.

Both classes count the same: `begin` makes what to add to, `add` adds a tile,
and `finish` makes the counts of it.
"""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# Columns of the parts of a tile that are compared and added in one loop. Fewer
# would be summed within that loop, which then is not shared out among cores.
_COLUMNS = 128
# Of a count within a tile, whose rows are at most `LARGEST`.
_BITS = 16
LARGEST = 1 << (_BITS - 1)


class Scores(NamedTuple):
  """Scores of a block of queries and a tile, and what they are off by.

  Attributes:
    value: `[b, tile]`.
    error: `[b]`, a score is off by this at most.
  """

  value: jax.Array
  error: jax.Array

  @property
  def low(self) -> jax.Array:
    """`[b, tile]`, lower ends."""
    return self.value - self.error[:, None]

  @property
  def high(self) -> jax.Array:
    """`[b, tile]`, upper ends."""
    return self.value + self.error[:, None]


class Comparison(NamedTuple):
  """Compares a tile with one threshold after another.

  Attributes:
    low: lower ends of the thresholds, `[J, b]`.
    high: upper ends.
    most: how many of the J to count.
  """

  low: jax.Array
  high: jax.Array
  most: jax.Array | int

  def begin(self) -> jax.Array:
    """Zeros `[2, J, b]`."""
    return jnp.zeros((2, *self.low.shape), jnp.int32)

  def add(self, counts: jax.Array, scores: Scores) -> jax.Array:
    """Adds `Scores`."""

    def one(j: jax.Array, counts: jax.Array) -> jax.Array:
      ends = self.low[j] - scores.error, self.high[j] + scores.error
      return counts.at[:, j].add(_count(scores.value, *ends))

    return lax.fori_loop(0, self.most, one, counts)

  def finish(self, counts: jax.Array) -> jax.Array:
    """The counts as they are."""
    return counts


class LookUp(NamedTuple):
  """Looks each score up among the thresholds.

  How many thresholds a score is ahead of is the bin that it falls into.

  Attributes:
    low: lower ends of the thresholds `[J, b]`, ascending along J.
    high: upper ends, likewise.
  """

  low: jax.Array
  high: jax.Array

  def begin(self) -> jax.Array:
    """Zeros `[2, b, J + 1]`."""
    num, block = self.low.shape
    return jnp.zeros((2, block, num + 1), jnp.int32)

  def add(self, counts: jax.Array, scores: Scores) -> jax.Array:
    """Adds `Scores`."""

    def one(
      bins: jax.Array, thresholds: jax.Array, scores: jax.Array, side: str
    ) -> jax.Array:
      # NaN would be found above all others.
      scores = jnp.where(jnp.isnan(scores), -jnp.inf, scores)
      return bins.at[jnp.searchsorted(thresholds, scores, side=side)].add(1)

    sure, possible = (
      jax.vmap(functools.partial(one, side=side))(bins, thresholds.T, ends)
      for bins, side, thresholds, ends in (
        (counts[0], 'left', self.high, scores.low),
        (counts[1], 'right', self.low, scores.high),
      )
    )
    return jnp.stack([sure, possible])

  def finish(self, counts: jax.Array) -> jax.Array:
    """Sums of the bins above each threshold."""
    above = lax.cumsum(counts, 2, reverse=True)[:, :, 1:]
    return jnp.moveaxis(above, 1, 2)


def _count(values: jax.Array, low: jax.Array, high: jax.Array) -> jax.Array:
  """Counts `[2, b]` of values `[b, tile]` above `high`, and from `low` on.

  `[b]` each, low <= high. Both counts are added up in one number: one pass over
  the values takes half the time of two.
  """
  # As a sum of whole parts of the tile: on CPU XLA makes one loop of it, where
  # it would write the terms to memory first.
  cut = jax.default_backend() == 'cpu'
  num_parts = max(1, values.shape[1] // _COLUMNS) if cut else 1
  parts = jnp.split(values, num_parts, axis=1)
  one, both = jnp.uint32(1), jnp.uint32((1 << _BITS) + 1)
  ahead = [
    jnp.where(
      part > high[:, None],
      both,
      jnp.where(part >= low[:, None], one, jnp.uint32(0)),
    )
    for part in parts
  ]
  counts = jnp.sum(functools.reduce(operator.add, ahead), 1, dtype=jnp.uint32)
  sure, possible = counts >> _BITS, counts & ((1 << _BITS) - 1)
  return jnp.stack([sure, possible]).astype(jnp.int32)
