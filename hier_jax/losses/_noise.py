"""The random source of the LCA picks: one small generator per triplet.

The losses need a random number for each triplet and proxy, tens of millions in
a step, and drawing them with threefry would cost more than everything that is
done with them. Threefry therefore only seeds a 32-bit generator for each
triplet: Steele, Lea and Flood's SplitMix ("Fast Splittable Pseudorandom Number
Generators", OOPSLA 2014), with its own start and odd step, and Wellons's
`lowbias32` as the mixing function. What a triplet draws depends only on its
number, not on chunks or devices. `experiments/benchmarks/loss/__main__.py`
measures it against other sources.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

__all__ = ['exponential_rates', 'rates_of', 'repeated', 'triplet_seeds']


def repeated(keys: Sequence[jax.Array], counts: Sequence[int]) -> jax.Array:
  """Each scalar or key, repeated by its count, `[sum(counts)]`.

  Not by jnp.repeat, whose running sum XLA takes half a second to fold, nor by
  looking up rows, which is a kernel of its own.
  """
  place = np.arange(sum(counts))
  found = jnp.broadcast_to(keys[-1], place.shape)
  ends = np.cumsum(counts)[:-1]
  for key, end in reversed(list(zip(keys, ends, strict=False))):
    found = jnp.where(place < end, key, found)
  return found


def triplet_seeds(
  keys: Sequence[jax.Array],
  first: Sequence[ArrayLike],
  counts: Sequence[int],
  streams: int,
) -> jax.Array:
  """Seeds of the triplets of several groups, one group after the other.

  Args:
    keys: PRNG key of each group.
    first: number of the first triplet of each group.
    counts: number of triplets of each group, static.
    streams: static int, seeds of each triplet.

  Returns:
    uint32 `[sum(counts), streams, 2]`.
  """
  # At once, as a kernel for each group takes twice as long to compile.
  ends = np.cumsum(counts, dtype=np.int32)
  before = [
    jnp.int32(n) - (end - count)
    for n, end, count in zip(first, ends, counts, strict=True)
  ]
  number = jnp.arange(ends[-1], dtype=jnp.int32) + repeated(before, counts)

  def draw(key: jax.Array, n: jax.Array) -> jax.Array:
    return jax.random.bits(jax.random.fold_in(key, n), (streams, 2), jnp.uint32)

  return jax.vmap(draw)(repeated(keys, counts), number)


def _mix(x: jax.Array) -> jax.Array:
  """A bijection of 32 bits without visible structure."""
  x ^= x >> 16
  x *= jnp.uint32(0x7FEB352D)
  x ^= x >> 15
  x *= jnp.uint32(0x846CA68B)
  return x ^ (x >> 16)


def exponential_rates(seeds: jax.Array, size: int) -> jax.Array:
  """Reciprocals 1 / E of independent standard exponential E.

  They are e^g of standard Gumbel noise g: argmax of w / E picks p with
  probability w_p / sum(w).

  Args:
    seeds: uint32 `[t, 2]`.
    size: static int.

  Returns:
    float32 `[t, size]`, at most 2^24.
  """
  place = lax.broadcasted_iota(jnp.uint32, (seeds.shape[0], size), 1)
  return rates_of(seeds[:, :1], seeds[:, 1:], place)


def rates_of(start: jax.Array, step: jax.Array, place: jax.Array) -> jax.Array:
  """The rates at places uint32 of the generator of a seed; broadcasts."""
  # One word for both start and step would fail a chi-square test.
  bits = _mix(start + (step | 1) * place)
  # 23 bits and a half: neither 0 nor 1.
  uniform = ((bits >> 9).astype(jnp.float32) + 0.5) * 2.0**-23
  return -1 / jnp.log(uniform)
