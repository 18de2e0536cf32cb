"""Batches on their way to devices, and functions mapped over these."""

import os
import subprocess
import sys

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from experiments.benchmarks.scaling import collectives
from hier_jax import models
from hier_jax.training.distributed import mapping
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib
from tests.support import training_data

AXIS = mapping.AXIS


def host_batches(log, n=5):
  for i in range(n):
    log.append(i)
    yield {'image': np.full((8, 3), i, np.uint8), 'label': np.arange(8)}


@pytest.mark.parametrize('depth', [1, 2, 9])
def test_prefetched_batches_come_in_order_and_spread(depth):
  made = []
  batches = mapping.prefetch(host_batches(made), depth=depth)
  first = next(batches)
  # One is handed out, and the others wait.
  assert len(made) == min(depth, 5)
  for i, batch in enumerate([first, *batches]):
    assert isinstance(batch['image'], jax.Array)
    assert batch['image'].shape == (4, 2, 3)
    assert len(batch['image'].sharding.device_set) == 4
    np.testing.assert_array_equal(batch['image'], i)
    np.testing.assert_array_equal(batch['label'].reshape(-1), np.arange(8))
  assert i == 4


def test_rows_that_devices_cannot_share_are_named():
  with pytest.raises(ValueError, match=r'^6 rows .* among 4 devices'):
    mapping.spread({'image': np.zeros((6, 3))})
  assert mapping.spread(np.zeros((0, 3))).shape == (4, 0, 3)


@pytest.mark.parametrize('by', mapping.MAPS)
@pytest.mark.parametrize('devices', [1, 4])
def test_a_step_takes_prefetched_batches_as_those_of_the_host(devices, by):
  devices = jax.local_devices()[:devices]
  step = mapping.map_step(
    lambda state, batch: (
      state + 1,
      lax.psum(batch['image'].astype(int).sum(), AXIS),
    ),
    devices=devices,
    by=by,
  )
  placed = mapping.prefetch(host_batches([]), devices=devices)
  for ours, theirs in zip(placed, host_batches([]), strict=True):
    (_, a), (_, b) = (step(np.zeros(()), batch) for batch in (ours, theirs))
    assert a == b == theirs['image'].sum()


def small_step(state, batch):
  """Gathers, sums and tells devices apart, as a train step does."""

  def loss_of(w):
    z = jnp.tanh(batch['image'] @ w) + lax.axis_index(AXIS)
    gathered = lax.all_gather(z, AXIS, tiled=True)
    return lax.pmean(jnp.mean(jnp.exp(-((z @ gathered.T) ** 2))), AXIS)

  loss, grad = jax.value_and_grad(loss_of)(state['w'])
  grad = lax.pmean(grad, AXIS)
  new = {'w': state['w'] - grad, 'step': state['step'] + 1}
  return new, {'loss': loss, 'norm': jnp.sqrt(jnp.sum(grad**2))}


def small_state():
  w = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
  return {'w': w, 'step': np.zeros((), np.int32)}


def small_batch(seed):
  rng = np.random.default_rng(seed)
  return {'image': rng.normal(size=(8, 3)).astype(np.float32)}


@pytest.mark.parametrize('devices', [1, 2, 4])
def test_both_maps_take_the_same_steps(devices):
  devices, found = jax.local_devices()[:devices], []
  for by in mapping.MAPS:
    step = mapping.map_step(small_step, devices=devices, by=by)
    embed = mapping.map_embed(
      lambda w, x: x @ w + lax.axis_index(AXIS), devices=devices, by=by
    )
    state, metrics = small_state(), []
    for i in range(4):
      state, made = step(state, small_batch(i))
      metrics.append(jax.device_get(made))
    rows = embed(state['w'], small_batch(0)['image'])
    found.append(jax.device_get((state, metrics, rows)))
  # Two programs: some roundings of sums of 3 and 8 terms, four times.
  chex.assert_trees_all_close(*found, rtol=1e-5, atol=1e-6)
  (state, _, rows), _ = found
  assert state['step'] == 4
  np.testing.assert_allclose(
    rows,
    small_batch(0)['image'] @ state['w']
    + np.arange(len(devices)).repeat(8 // len(devices))[:, None],
    rtol=1e-5,
    atol=1e-6,
  )


@pytest.mark.parametrize('by', mapping.MAPS)
def test_a_step_is_compiled_once_for_any_place_of_its_first_state(by):
  traced = []

  def step(state, batch):
    traced.append(1)
    return small_step(state, batch)

  step = mapping.map_step(step, by=by)
  for state in (small_state(), jax.tree.map(jnp.asarray, small_state())):
    for i in range(3):
      state, _ = step(state, small_batch(i))
  assert len(traced) == 1


@pytest.mark.parametrize('by', mapping.MAPS)
def test_a_step_writes_the_new_state_over_the_old(by):
  state = {**small_state(), 'more': np.zeros((100, 7), np.float32)}

  def step(state, batch):
    new, metrics = small_step(state, batch)
    return {**new, 'more': state['more'] + 1}, metrics

  compiled = mapping.compile_step(step, state, small_batch(0), by=by)
  size = sum(leaf.nbytes for leaf in state.values())
  assert compiled.memory_analysis().alias_size_in_bytes == size
  mapped = mapping.map_step(step, by=by)
  old, _ = mapped(state, small_batch(0))
  mapped(old, small_batch(1))
  assert all(leaf.is_deleted() for leaf in old.values())


# Two programs: their roundings, of the largest entry of an array.
EIGHT = """
import jax
import numpy as np
from hier_jax.training.distributed import mapping
from tests.support import process_child
jax.config.update('jax_num_cpu_devices', 8)

made = process_child.vit()

def run(by):
  state, step, embed = made
  step = mapping.map_step(step, by=by)
  found = []
  for i in range(3):
    state, metrics = step(state, process_child.batch(i))
    found.append(metrics)
  embed = mapping.map_embed(embed, by=by)
  rows = embed(state.eval_variables, process_child.batch(0)['image'])
  return jax.device_get((found, state, rows))

def near(a, b):
  a, b = (np.asarray(x, np.float64) for x in (a, b))
  scale = max(np.abs(b).max(), 1e-3)
  np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * scale)

jax.tree.map(near, *map(run, mapping.MAPS))
print('equal')
"""


@pytest.mark.slow
def test_train_steps_of_both_maps_are_equal_on_8_devices():
  env = {**os.environ, 'NPROC': '64'}
  done = subprocess.run(
    [sys.executable, '-c', EIGHT], env=env, capture_output=True, text=True
  )
  assert done.stdout.strip() == 'equal', done.stderr[-2000:]


def communicated(batch=16, dim=16, proxies=24, triplets=5, k=6):
  """Kind -> bytes of a train step on 4 devices; and those of its gradient."""
  config = training_data.config(
    **{
      'model.embedding_dim': dim,
      'loss.num_proxies': proxies,
      'loss.hier.k': k,
      'loss.hier.triplets_per_anchor': triplets,
    }
  )
  model = models.create(**config.model.to_dict(), axis_name=AXIS)
  optimizer = training_data.optimizer(config)
  state = jax.eval_shape(
    lambda: state_lib.create(config, model, optimizer, num_classes=16)
  )
  shape = jax.ShapeDtypeStruct
  lowered = mapping.lower_step(
    step_lib.make_train_step(config, model, optimizer),
    state,
    {
      'image': shape((batch, 8, 8, 3), jnp.uint8),
      'label': shape((batch,), jnp.int32),
    },
  )
  found = {}
  for one in collectives.parse(lowered.as_text('hlo'), 4):
    found[one.kind] = found.get(one.kind, 0) + one.payload
  return found, 4 * sum(leaf.size for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize(
  'changed',
  [{}, {'batch': 32, 'dim': 24, 'proxies': 48, 'triplets': 10, 'k': 4}],
  ids=['first', 'all_changed'],
)
def test_a_step_sends_embeddings_neighbors_and_gradients(changed):
  sizes = {'batch': 16, 'dim': 16, 'proxies': 24, 'triplets': 5, 'k': 6}
  sizes |= changed
  B, D, P, k = (sizes[name] for name in ('batch', 'dim', 'proxies', 'k'))
  found, gradients = communicated(**sizes)
  # Embeddings, labels, and the lists of k neighbors of images and proxies.
  assert found['all-gather'] == 4 * (B * D + B + (B + P) * k)
  # The gradient by the gathered embeddings.
  assert found['reduce-scatter'] == 4 * B * D
  # Besides a few numbers for each image, proxy and class, and scalars.
  few = 4 * (8 * (B + P + 16) + 64)
  assert gradients <= found['all-reduce'] <= gradients + few
  assert set(found) == {'all-gather', 'reduce-scatter', 'all-reduce'}


def test_a_compiled_step_sends_what_it_says():
  program = mapping.compile_step(small_step, small_state(), small_batch(0))
  found = collectives.parse(program.as_text(), 4)
  payloads = lambda kind: [one.payload for one in found if one.kind == kind]
  assert payloads('all-gather') == payloads('reduce-scatter') == [4 * 8 * 5]
