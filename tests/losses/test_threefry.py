"""The keys whose numbers compile quickly: JAX's numbers."""

import jax
import numpy as np
import pytest

from hier_jax.losses._threefry import unrolled


@pytest.mark.parametrize('make', [jax.random.key, jax.random.PRNGKey])
def test_numbers_are_those_of_jax(make):
  def draws(key):
    keys = jax.random.split(jax.random.fold_in(key, 2**31 + 5), (3, 4))
    words = jax.vmap(lambda k: jax.random.bits(k, (5,), 'uint16'))(keys[:, 0])
    normal = jax.random.normal(keys[0, 1], (7,))
    whole = jax.random.randint(keys[2, 3], (9,), 0, 11)
    return words, normal, whole

  key = make(7)
  assert unrolled(key) is not key
  got = jax.jit(lambda key: draws(unrolled(key)))(key)
  for a, b in zip(got, draws(key), strict=True):
    np.testing.assert_array_equal(a, b)


def test_keys_of_other_generators_stay():
  key = jax.random.key(0, impl='rbg')
  assert unrolled(key) is key
