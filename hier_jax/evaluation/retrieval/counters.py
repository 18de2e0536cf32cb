"""Counts of the scores of a tile that are ahead of thresholds.

Both classes count the same: `begin` makes what to add to, `add` adds a tile,
and `finish` makes counts `[s, J, b]` int32 of it for s comparisons, J
thresholds and b queries.
"""

import functools
import operator
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

# When a negative is ahead of a positive, by tie policy.
AHEAD = {
  'pessimistic': (operator.ge,),
  'optimistic': (operator.gt,),
  'mean': (operator.ge, operator.gt),
}
# Columns of the parts of a tile that are compared and added in one loop. Fewer
# would be summed within that loop, which then is not shared out among cores.
_COLUMNS = 128


class Comparison(NamedTuple):
  """Compares a tile with one threshold after another.

  Attributes:
    thresholds: `[J, b]`.
    most: how many of the J to count.
    ahead: the s comparisons.
    narrow: whether there is one more row of counts, of what bfloat16 leaves
      open.
  """

  thresholds: jax.Array
  most: jax.Array | int
  ahead: tuple
  narrow: bool

  def begin(self):
    """Zeros `[s, J, b]`, or `[s + 1, J, b]`."""
    rows = len(self.ahead) + self.narrow
    return jnp.zeros((rows, *self.thresholds.shape), jnp.int32)

  def _add(self, counts, count):
    """Adds count(threshold `[b]`), a list of `[b]`, for each threshold."""

    def one(j, counts):
      more = jnp.stack(count(self.thresholds[j]))
      return counts.at[: len(more), j].add(more)

    return lax.fori_loop(0, self.most, one, counts)

  def add(self, counts, scores):
    """Adds scores `[b, tile]`."""
    return self._add(
      counts, lambda t: [_count(scores, t, is_ahead) for is_ahead in self.ahead]
    )

  def add_narrow(self, counts, scores, error):
    """Adds scores that are off by `error` `[b]` at most."""

    def count(threshold):
      sure = _count(scores, threshold + error, operator.gt)
      possible = _count(scores, threshold - error, operator.ge)
      return [sure] * len(self.ahead) + [possible - sure]

    return self._add(counts, count)

  def finish(self, counts, padding):
    """Takes so many rows of zeros off."""
    padded = _padded(self.thresholds, self.ahead, padding)
    return counts.at[: len(self.ahead)].add(-padded)


class LookUp(NamedTuple):
  """Looks each score up among the thresholds.

  How many thresholds a score is ahead of is the bin that it falls into.

  Attributes:
    thresholds: `[J, b]`, ascending along J.
    ahead: the s comparisons.
  """

  thresholds: jax.Array
  ahead: tuple

  def begin(self):
    """Zeros `[s, b, J + 1]`."""
    num, block = self.thresholds.shape
    return jnp.zeros((len(self.ahead), block, num + 1), jnp.int32)

  def add(self, counts, scores):
    """Adds scores `[b, tile]`."""
    sides = {operator.gt: 'left', operator.ge: 'right'}

    def one(bins, thresholds, scores, side):
      return bins.at[jnp.searchsorted(thresholds, scores, side=side)].add(1)

    rows = []
    for bins, is_ahead in zip(counts, self.ahead, strict=True):
      of_query = functools.partial(one, side=sides[is_ahead])
      rows.append(jax.vmap(of_query)(bins, self.thresholds.T, scores))
    return jnp.stack(rows)

  def finish(self, counts, padding):
    """Takes so many rows of zeros off."""
    above = lax.cumsum(counts, 2, reverse=True)[:, :, 1:]
    padded = _padded(self.thresholds, self.ahead, padding)
    return jnp.moveaxis(above, 1, 2) - padded


def _count(scores, threshold, is_ahead):
  """Scores of each row `[b, tile]` ahead of its threshold `[b]`."""
  # As sums of whole parts of the tile: XLA makes one loop of them, where it
  # would write a reduction's terms to memory first.
  parts = max(1, scores.shape[1] // _COLUMNS)
  ahead = [
    is_ahead(part, threshold[:, None]).astype(jnp.int32)
    for part in jnp.split(scores, parts, axis=1)
  ]
  return jnp.sum(functools.reduce(operator.add, ahead), 1, dtype=jnp.int32)


def _padded(thresholds, ahead, padding):
  """`[s, J, b]`, counts of the rows of zeros: they score exactly 0."""
  return jnp.stack([padding * is_ahead(0, thresholds) for is_ahead in ahead])
