"""Random sources for the picks of the LCA: e^Gumbel, or 1 / exponential noise.

Each is (key, first, count, size) -> `[count, size]`, the noise of the triplets
numbered from `first`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats

from hier_jax.losses import _noise


def _of_jax(draw, implementation):
  def rates(key, first, count, size):
    words = jax.random.bits(key, 4)
    words = words[: 2 if implementation == 'threefry2x32' else 4]
    key = jax.random.wrap_key_data(words, impl=implementation)
    return draw(jax.random.fold_in(key, first), (count, size))

  return rates


def _reciprocal(key, shape):
  return 1 / jax.random.exponential(key, shape)


def _gumbel(key, shape):
  return jnp.exp(jax.random.gumbel(key, shape))


def per_triplet(key, first, count, size):
  """The package's: a generator for each triplet, of a start and a step."""
  seeds = _noise.triplet_seeds([key], [first], [count], 1)[:, 0]
  return _noise.exponential_rates(seeds, size)


def one_word(key, first, count, size):
  """The same with one word for start and step: 2^32 streams that overlap."""
  seeds = _noise.triplet_seeds([key], [first], [count], 1)[:, 0, :1]
  return _noise.exponential_rates(jnp.repeat(seeds, 2, 1), size)


SOURCES = {
  'hier_jax, a generator a triplet': per_triplet,
  'the same with start = step': one_word,
  'threefry, 1 / exponential': _of_jax(_reciprocal, 'threefry2x32'),
  'threefry, e^Gumbel': _of_jax(_gumbel, 'threefry2x32'),
  'rbg, 1 / exponential': _of_jax(_reciprocal, 'rbg'),
}


def in_place(name):
  """A source as `noise.exponential_rates` takes it: (seeds, size).

  One that is not the package's draws a whole chunk from one key.
  """
  source, package = SOURCES[name], _noise.exponential_rates
  if source is per_triplet:
    return package
  if source is one_word:
    return lambda seeds, size: package(jnp.repeat(seeds[:, :1], 2, 1), size)

  def rates(seeds, size):
    key = jax.random.wrap_key_data(seeds[0], impl='threefry2x32')
    return source(key, 0, seeds.shape[0], size)

  return rates


def chance(source, size, picks, seed):
  """The p-value of a chi-square test of picks, argmax of w / E.

  Args:
    source: of `SOURCES`.
    size: number of weights w, of a range of e^2.
    picks: how many are counted, a multiple of 100.
    seed: of weights and noise.
  """
  rng = np.random.default_rng([seed, size])
  weight = np.exp(rng.uniform(-2, 0, size)).astype(np.float32)
  part = picks // 100

  @jax.jit
  def count(first):
    rates = source(jax.random.key(seed), first, part, size)
    pick = jnp.argmax(weight[None] * rates, 1)
    return jnp.zeros(size, jnp.int32).at[pick].add(1)

  counts = sum(np.asarray(count(first)) for first in range(0, picks, part))
  expected = weight / weight.sum(dtype=float) * picks
  return scipy.stats.chisquare(counts, expected).pvalue
