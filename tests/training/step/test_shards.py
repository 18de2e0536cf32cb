"""Class proxies that are spread over devices: steps, norms and checkpoints."""

import functools
import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import models
from hier_jax.training.distributed import mapping
from hier_jax.training.run.checkpoint import Checkpoints
from hier_jax.training.step import optim
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib
from hier_jax.training.step.shards import Shards, norm
from tests.support import training_data, vectors

# They do not divide among 4 or 8 devices.
CLASSES = 18
# Below the gradient's.
LIMIT = 0.05


def engine(devices, shards):
  """The mapped step of a clipped and averaged run, and its first state."""
  config = training_data.config(
    **{
      'loss.metric': 'cos_face',
      'loss.hier_weight': 0.0,
      'optim.clip_norm': LIMIT,
      'optim.ema_decay': 0.5,
    }
  )
  model = models.create(**config.model.to_dict(), axis_name=mapping.AXIS)
  spread = functools.partial(norm, axis_name=mapping.AXIS)
  optimizer = optim.optimizer(
    config.optim,
    batch_size=16,
    steps_per_epoch=3,
    epochs=4,
    norm=None if shards is None else spread,
  )
  create = lambda: state_lib.create(config, model, optimizer, CLASSES)
  specs = None
  if shards is not None:
    specs = shards.specs(jax.eval_shape(create))
  step = mapping.map_step(
    step_lib.make_train_step(
      config, model, optimizer, None if shards is None else CLASSES
    ),
    devices=jax.local_devices()[:devices],
    by='shard_map',
    specs=specs,
  )
  return step, create


def batch(seed):
  rng = np.random.default_rng(seed)
  return {
    'image': rng.integers(0, 256, (16, 8, 8, 3)).astype(np.uint8),
    'label': rng.permutation(CLASSES)[:8].repeat(2).astype(np.int32),
  }


def steps(step, state, seeds):
  logs = []
  for seed in seeds:
    state, metrics = step(state, batch(seed))
    logs.append(jax.device_get(metrics))
  return state, logs


@functools.cache
def wanted():
  """Four steps of one device that has all proxies."""
  step, create = engine(1, None)
  state, logs = steps(step, create(), range(4))
  return jax.device_get(state), logs


def near(got, want):
  # Of two programs, the second with moments in its denominators.
  if np.any(want):
    vectors.assert_near(got, want, 1e-5)


def check_steps(devices):
  """Steps, then those of half as many devices that go on from there."""
  shards = Shards(CLASSES, devices)
  step, create = engine(devices, shards)
  state, logs = steps(step, shards.pad(create()), range(2))
  share = -(-CLASSES // devices)
  for tree in (state.params, state.ema):
    proxies = tree['loss']['class_proxies']
    assert proxies.shape == (share * devices, 16)
    assert proxies.addressable_shards[0].data.shape == (share, 16)
    # What fills up stays nothing.
    assert not np.any(np.asarray(proxies)[CLASSES:])
  fewer = Shards(CLASSES, max(devices // 2, 1))
  step, _ = engine(fewer.devices, fewer)
  # As a checkpoint holds it.
  stored = jax.device_get(shards.crop(state))
  assert stored.params['loss']['class_proxies'].shape == (CLASSES, 16)
  state, more = steps(step, fewer.pad(stored), range(2, 4))
  want, want_logs = wanted()
  jax.tree.map(near, jax.device_get(fewer.crop(state)), want)
  for got, log in zip(logs + more, want_logs, strict=True):
    assert got.keys() == log.keys()
    for name, value in log.items():
      np.testing.assert_allclose(got[name], value, rtol=1e-5, err_msg=name)
    assert got['grad_norm'] > LIMIT


@pytest.mark.slow
@pytest.mark.parametrize('devices', [1, 2, 4])
def test_steps_are_those_of_one_device_with_all_proxies(devices):
  check_steps(devices)


@pytest.mark.slow
def test_steps_of_eight_devices():
  code = (
    'import jax\n'
    "jax.config.update('jax_num_cpu_devices', 8)\n"
    'from tests.training.step import test_shards\n'
    'test_shards.check_steps(8)\n'
    "print('equal')\n"
  )
  done = subprocess.run(
    [sys.executable, '-c', code],
    env=os.environ | {'NPROC': '64'},
    capture_output=True,
    text=True,
  )
  assert done.stdout.strip() == 'equal', done.stderr[-2000:]


def test_a_state_is_made_where_its_shares_lie_and_as_ever():
  config = training_data.config(**{'loss.hier_weight': 0.0})
  model = models.create(**config.model.to_dict())
  made = training_data.optimizer(config)
  shards = Shards(CLASSES, 4)
  whole = state_lib.create(config, model, made, CLASSES)
  spread = state_lib.create(config, model, made, CLASSES, shards)
  chex.assert_trees_all_equal(
    jax.device_get(shards.crop(spread)), jax.device_get(whole)
  )
  found = jax.tree.leaves_with_path(spread)
  parts = [
    a for path, a in found if getattr(path[-1], 'key', None) == 'class_proxies'
  ]
  # The proxies and their two moments.
  assert len(parts) == 3
  for a in parts:
    assert [s.data.shape for s in a.addressable_shards] == [(5, 16)] * 4


def test_checkpoints_move_between_numbers_of_devices(tmp_path):
  rng = np.random.default_rng(0)
  drawn = lambda *shape: rng.normal(size=shape).astype(np.float32)
  whole = {'class_proxies': drawn(CLASSES, 3), 'other': jnp.array(drawn(5))}
  shapes = jax.eval_shape(lambda: jax.tree.map(jnp.asarray, whole))
  state, before = whole, None
  for step, devices in enumerate((4, 2, 1, 4)):
    shards = Shards(CLASSES, devices)
    mesh = jax.make_mesh(
      (devices,),
      (mapping.AXIS,),
      axis_types=(jax.sharding.AxisType.Auto,),
      devices=jax.devices()[:devices],
    )
    placed = jax.tree.map(
      lambda a, spec, mesh=mesh: jax.device_put(
        a, jax.sharding.NamedSharding(mesh, spec)
      ),
      shards.pad(state),
      shards.specs(state),
    )
    with Checkpoints(tmp_path, keep=9) as checkpoints:
      checkpoints.save(step + 1, shards.crop(placed))
    with Checkpoints(tmp_path) as checkpoints:
      state = checkpoints.restore(shapes)
    chex.assert_trees_all_equal(jax.device_get(state), jax.device_get(whole))
    assert before is None or state is not before
    before = state


def test_a_share_counts_once_in_a_norm():
  grads = {'loss': {'class_proxies': jnp.arange(8.0)}, 'w': jnp.full(3, 2.0)}
  spread = {'loss': {'class_proxies': jnp.arange(8.0).reshape(4, 2)}}
  axes = {'loss': {'class_proxies': 0}, 'w': None}
  found = jax.vmap(
    functools.partial(norm, axis_name='i'), in_axes=(axes,), axis_name='i'
  )(spread | {'w': grads['w']})
  np.testing.assert_allclose(found, np.full(4, np.sqrt(140 + 12)), rtol=1e-6)


def test_parts_of_a_state_need_shard_map():
  with pytest.raises(ValueError, match="by is 'pmap'"):
    mapping.map_step(lambda *a: a, specs={'w': mapping.SPLIT})
