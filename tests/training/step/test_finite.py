"""A step that is not finite leaves the state as it was."""

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import layers
from hier_jax.training.distributed import mapping
from hier_jax.training.step import finite
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib
from tests.support import training_data

SETTINGS = {
  'loss.metric': 'multi_similarity',
  'loss.memory.size': 16,
  'loss.hier_weight': 0.0,
  'optim.ema_decay': 0.9,
}


class Network(nn.Module):
  """Takes numbers for images, and keeps running statistics."""

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.Dense(8, name='backbone')(x.astype(jnp.float32).mean((1, 2)))
    axis = mapping.AXIS if train else None
    x = nn.BatchNorm(not train, axis_name=axis, name='head_norm')(x)
    return layers.BallHead(16, name='head')(x)


@pytest.fixture(scope='module')
def run():
  """(step on 4 devices, a function that makes its first state)."""
  config = training_data.config(**SETTINGS)
  config.optim.freeze = ('head_norm',)
  optimizer = training_data.optimizer(config)
  step = mapping.map_step(
    step_lib.make_train_step(config, Network(), optimizer)
  )
  return step, lambda: state_lib.create(config, Network(), optimizer, 16)


def batches(count):
  rng = np.random.default_rng(0)
  return [
    {
      'image': rng.normal(size=(16, 1, 1, 3)).astype(np.float32),
      'label': np.arange(8).repeat(2).astype(np.int32),
    }
    for _ in range(count)
  ]


@pytest.mark.parametrize('value', [np.nan, np.inf, 1e30])
def test_such_a_step_leaves_all_but_its_number(run, value):
  step, create = run
  good, bad, after = batches(3)
  # The last row, of the last device.
  bad['image'][-1] = value
  state, metrics = step(create(), good)
  assert metrics['skipped'] == 0
  before = jax.device_get(state)
  state, metrics = step(state, bad)
  assert metrics['skipped'] == 1
  want = before.replace(step=2, skipped=1)
  chex.assert_trees_all_equal(jax.device_get(state), want)
  state, metrics = step(state, after)
  assert metrics['skipped'] == 1
  assert int(state.step) == 3
  changed = jax.tree.map(
    lambda a, b: np.any(a != b), before.params, jax.device_get(state.params)
  )
  assert any(jax.tree.leaves(changed))
  chex.assert_tree_all_finite(jax.device_get(state))


def test_an_update_that_overflows_is_not_made():
  old = {'a': jnp.ones(3), 'n': jnp.zeros((), jnp.int32)}
  new = {'a': jnp.array([1.0, jnp.inf, 0.0]), 'n': jnp.ones((), jnp.int32)}
  kept, good = finite.if_finite(new, old, jnp.zeros(()))
  assert not good
  chex.assert_trees_all_equal(kept, old)
  new['a'] = jnp.zeros(3)
  kept, good = finite.if_finite(new, old, jnp.zeros(()))
  assert good
  chex.assert_trees_all_equal(kept, new)
  assert not finite.if_finite(new, old, jnp.full((), jnp.nan))[1]


@pytest.mark.parametrize(
  ('values', 'want'), [((1e30, 1e30), True), ((np.inf, -np.inf), False)]
)
def test_infinities_that_cancel_are_found_and_large_numbers_allowed(
  values, want
):
  new = {'a': jnp.array(values, jnp.float32)}
  assert bool(finite.if_finite(new, {'a': jnp.zeros(2)})[1]) == want


@pytest.mark.optimized
def test_no_array_of_flags_is_made():
  """A kernel each, for three arrays of each shape that parameters have."""
  tree = {name: jnp.ones((512, 512)) for name in 'abc'}
  program = jax.jit(finite.if_finite).lower(tree, tree).compile()
  lines = program.as_text().splitlines()
  checks = [line for line in lines if ' is-finite(' in line]
  assert checks
  assert not any('512' in line for line in checks)
