"""The keys of a step: repeatable, and each for one purpose."""

import jax

from hier_jax.training.step import keys


def data(*of):
  return [tuple(jax.random.key_data(key).tolist()) for key in of]


def test_keys_are_functions_of_seed_and_step():
  traced = jax.jit(lambda step: keys.split(keys.step_key(3, step)))
  assert data(*traced(5)) == data(*keys.split(keys.step_key(3, 5)))
  found = data(
    *(keys.step_key(seed, step) for seed in (3, 4) for step in (5, 6))
  )
  assert len(set(found)) == 4


def test_no_key_of_a_step_is_used_twice():
  step = keys.split(keys.step_key(0, 0))
  # HIER splits its own into three, twice.
  first = jax.random.split(step.loss, 3)
  second = jax.random.split(first[0], 3)
  found = data(step.loss, step.drop_path, *first, *second)
  assert len(set(found)) == 8
