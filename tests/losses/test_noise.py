"""The random source of the LCA picks: what a chi-square test would see."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from hier_jax.losses import _noise

ROWS, SIZE = 4096, 512


def draws(seed=0, stream=0):
  """Exponential variates `[ROWS, SIZE]` in float64, and their seeds."""
  seeds = _noise.triplet_seeds([jax.random.key(seed)], [0], [ROWS], 2)
  rates = jax.jit(_noise.exponential_rates, static_argnums=1)(
    seeds[:, stream], SIZE
  )
  assert rates.dtype == jnp.float32
  return 1 / np.asarray(rates, np.float64)


def plausible(observed, expected=None):
  _, chance = scipy.stats.chisquare(observed, expected)
  return 1e-4 < chance < 1 - 1e-4


def test_variates_are_standard_exponential():
  uniform = np.exp(-draws())
  # As a whole, each proxy's and each triplet's.
  assert plausible(np.histogram(uniform, 1000, (0, 1))[0])
  for axis in (0, 1):
    means = uniform.mean(axis)
    spread = np.sqrt(1 / 12 / uniform.shape[axis])
    _, chance = scipy.stats.kstest((means - 0.5) / spread, 'norm')
    assert chance > 1e-4
  # The tail that decides who wins among many.
  smallest = uniform[1 - uniform < 2**-12]
  assert plausible(np.histogram(1 - smallest, 64, (0, 2**-12))[0])


def test_neighbors_are_independent():
  """Pairs along a row, across rows and across the two picks."""
  a, b = (np.exp(-draws(stream=s)) for s in (0, 1))
  pairs = {
    'proxies': (a[:, ::2], a[:, 1::2]),
    'far proxies': (a[:, :256], a[:, 256:]),
    'triplets': (a[::2], a[1::2]),
    'picks': (a, b),
    'keys': (a, np.exp(-draws(seed=1))),
  }
  for name, (x, y) in pairs.items():
    cells, _, _ = np.histogram2d(x.ravel(), y.ravel(), 32, ((0, 1), (0, 1)))
    assert plausible(cells.ravel()), name


@pytest.mark.parametrize('size', [4, 12, 64])
def test_winners_follow_their_weights(size):
  """A million picks; a start that is its own step fails at once."""
  rng = np.random.default_rng(size)
  weight = np.exp(rng.uniform(-2, 0, size)).astype(np.float32)

  @jax.jit
  def count(first):
    seeds = _noise.triplet_seeds([jax.random.key(size)], [first], [100_000], 1)
    rates = _noise.exponential_rates(seeds[:, 0], size)
    winner = jnp.argmax(weight[None] * rates, 1)
    return jnp.zeros(size, jnp.int32).at[winner].add(1)

  counts = sum(np.asarray(count(first)) for first in range(0, 10**6, 10**5))
  expected = weight.astype(float) / weight.sum(dtype=float) * 10**6
  assert plausible(counts, expected)


def test_a_triplet_draws_by_its_number():
  every = _noise.triplet_seeds([jax.random.key(3)], [0], [10], 2)
  some = _noise.triplet_seeds([jax.random.key(3)], [4], [3], 2)
  np.testing.assert_array_equal(every[4:7], some)


def test_groups_of_triplets_draw_as_each_by_itself():
  keys = [jax.random.key(n) for n in range(3)]
  first, counts = [0, 5, 2], [4, 1, 3]
  every = _noise.triplet_seeds(keys, first, counts, 2)
  each = [
    _noise.triplet_seeds([key], [start], [count], 2)
    for key, start, count in zip(keys, first, counts, strict=True)
  ]
  np.testing.assert_array_equal(every, np.concatenate(each))


def test_extremes_are_finite():
  words = jnp.uint32([0, 1, 2**31, 2**32 - 1])
  seeds = jnp.stack(jnp.meshgrid(words, words), -1).reshape(-1, 2)
  rates = _noise.exponential_rates(seeds, 4096)
  assert jnp.all(jnp.isfinite(rates))
  assert jnp.all((rates > 0) & (rates <= 2.0**24))
