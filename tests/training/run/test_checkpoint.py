"""States on disk and back, damaged ones, and those that are kept."""

import json
import pathlib

import chex
import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import tensorstore as ts

from hier_jax.errors import UserError
from hier_jax.training.distributed import mapping
from hier_jax.training.run import checkpoint
from hier_jax.training.run.checkpoint import Checkpoints


def make_state(seed=0):
  rng = np.random.default_rng(seed)
  return {
    'params': {
      'kernel': jnp.asarray(rng.normal(size=(64, 32)).astype(np.float32)),
      'half': jnp.asarray(rng.normal(size=5), jnp.bfloat16),
    },
    'batch_stats': {},
    'memory': None,
    'filled': jnp.arange(7) % 2 == 0,
    'bits': jnp.asarray(rng.integers(0, 2**32, 9).astype(np.uint32)),
    'step': jnp.asarray(seed, jnp.int32),
  }


def written(folder, steps, best=None):
  with Checkpoints(folder, keep=2) as checkpoints:
    for step in steps:
      checkpoints.save(step, make_state(step), best)
  return folder


def test_a_state_comes_back_to_the_bit(tmp_path):
  written(tmp_path / 'new' / 'checkpoints', [3, 5])
  with Checkpoints(tmp_path / 'new' / 'checkpoints') as checkpoints:
    assert checkpoints.latest_step == 5
    chex.assert_trees_all_equal(
      checkpoints.restore(make_state()), make_state(5)
    )
    found = checkpoints.restore(make_state(), 3)
    chex.assert_trees_all_equal(found, make_state(3))
    chex.assert_trees_all_equal_shapes_and_dtypes(found, make_state(3))


@pytest.mark.parametrize('by', mapping.MAPS)
def test_a_state_may_be_consumed_while_it_is_written(tmp_path, by):
  step = mapping.map_step(lambda state, batch: (state + batch.sum(), {}), by=by)
  state, _ = step(np.zeros(1_000_000, np.float32), np.ones(4, np.float32))
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    checkpoints.warm_up(state)
    checkpoints.save(1, state)
    for _ in range(5):
      state, _ = step(state, np.ones(4, np.float32))
    found = checkpoints.restore(state)
    np.testing.assert_array_equal(found, 1)
    # On other devices than those that it was written from.
    step = mapping.map_step(
      lambda state, batch: (state + batch.sum(), {}),
      devices=jax.local_devices()[2:3],
      by=by,
    )
    found, _ = step(found, np.ones(4, np.float32))
    np.testing.assert_array_equal(found, 5)


def test_a_folder_that_only_looks_like_a_step_is_named(tmp_path):
  (tmp_path / '2\u00b2').mkdir()
  with pytest.raises(UserError, match="holds '2\u00b2', which is no step"):
    checkpoint.steps_in(tmp_path)


def steps_in(folder):
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def test_the_latest_and_the_best_are_kept(tmp_path):
  written(tmp_path, [1, 2, 3, 4], best=2)
  assert steps_in(tmp_path) == [2, 3, 4]
  written(tmp_path, [5, 6, 7], best=6)
  assert steps_in(tmp_path) == [6, 7]
  written(tmp_path, [8, 9], best=6)
  assert steps_in(tmp_path) == [6, 8, 9]


def test_without_a_best_the_latest_are_kept(tmp_path):
  written(tmp_path, [1, 2, 3, 4])
  assert steps_in(tmp_path) == [3, 4]


def test_what_was_being_written_is_removed_and_never_listed(tmp_path):
  written(tmp_path, [1])
  cut = tmp_path / '2.orbax-checkpoint-tmp'
  (cut / 'state').mkdir(parents=True)
  with Checkpoints(tmp_path) as checkpoints:
    assert checkpoints.latest_step == 1
  assert cut.exists()
  with Checkpoints(tmp_path, keep=2) as checkpoints:
    assert checkpoints.latest_step == 1
    checkpoints.save(3, make_state())
  assert sorted(p.name for p in tmp_path.iterdir()) == ['1', '3']


def refusal(folder, step=None, state=None):
  state = make_state() if state is None else state
  with Checkpoints(folder) as checkpoints, pytest.raises(UserError) as caught:
    checkpoints.restore(state, step)
  return str(caught.value)


def flip(data):
  """The data with a bit of every 64th byte turned."""
  flipped = np.frombuffer(data, np.uint8).copy()
  flipped[::64] ^= 1
  return flipped.tobytes()


NAMES = ['_METADATA', 'manifest.ocdbt', 'd/*', 'ocdbt.process_0/d/*']
DAMAGES = {
  'emptied': lambda data: b'',
  'cut': lambda data: data[: len(data) // 2],
  'flipped': flip,
}


@pytest.mark.parametrize('damage', DAMAGES)
@pytest.mark.parametrize('name', NAMES)
def test_damage_is_named_and_the_one_before_offered(tmp_path, name, damage):
  written(tmp_path, [1, 2])
  found = (tmp_path / '2' / 'state').glob(name)
  path = max(found, key=lambda path: path.stat().st_size)
  path.write_bytes(DAMAGES[damage](path.read_bytes()))
  message = refusal(tmp_path)
  assert message.startswith(f'checkpoint 2 in {tmp_path} cannot be restored (')
  assert message.endswith(
    f'); remove {tmp_path / "2"} to go on from the one before, of step 1'
  )
  with Checkpoints(tmp_path) as checkpoints:
    found = checkpoints.restore(make_state(), 1)
  chex.assert_trees_all_equal(found, make_state(1))


def test_changed_data_are_noticed_which_tensorstore_reads_happily(tmp_path):
  written(tmp_path, [1])
  found = (tmp_path / '1' / 'state').rglob('d/*')
  path = max(found, key=lambda path: path.stat().st_size)
  data = bytearray(path.read_bytes())
  # Amidst the 8 kB of the kernel, the larger part of the file.
  data[len(data) // 2] ^= 4
  path.write_bytes(data)
  assert refusal(tmp_path) == (
    f'checkpoint 1 in {tmp_path} cannot be restored (its arrays are not those'
    ' that were saved); there is none before it: choose another workdir'
  )


@pytest.mark.parametrize('damage', DAMAGES)
def test_a_checkpoint_without_its_checksum_is_refused(tmp_path, damage):
  written(tmp_path, [1, 2])
  path = tmp_path / '2' / '_CHECKPOINT_METADATA'
  path.write_bytes(DAMAGES[damage](path.read_bytes()))
  message = refusal(tmp_path)
  assert 'checkpoint 2' in message
  assert 'of step 1' in message


def test_a_foreign_folder_is_refused(tmp_path):
  written(tmp_path, [1])
  (tmp_path / '7').mkdir()
  (tmp_path / '7' / 'notes.txt').write_text('dear')
  message = refusal(tmp_path)
  assert 'checkpoint 7' in message
  assert 'of step 1' in message


def test_another_model_is_named_by_its_arrays(tmp_path):
  written(tmp_path, [1])
  state = make_state()
  state['params']['kernel'] = jnp.zeros((64, 8))
  state['params']['bias'] = jnp.zeros(8)
  del state['bits']
  assert (
    '(it is of another model, with 3 other arrays: params.bias missing for'
    ' (8,), params.kernel (64, 32) for (64, 8), bits (9,) for none)'
  ) in refusal(tmp_path, state=state)


def test_a_step_that_is_not_there_is_named(tmp_path):
  assert refusal(tmp_path) == (
    f'{tmp_path} holds no checkpoint; expected one of: none'
  )
  written(tmp_path, [1, 2])
  assert refusal(tmp_path, 5) == (
    f'{tmp_path} holds no checkpoint 5; expected one of: 1, 2'
  )


def test_what_fails_beside_the_steps_is_raised_by_what_comes_next(
  tmp_path, monkeypatch
):
  def full(*args, **kwargs):
    raise OSError(28, 'No space left on device')

  checkpoints = Checkpoints(tmp_path, keep=2)
  with pytest.raises(OSError, match='No space left'), checkpoints:
    monkeypatch.setattr(checkpoints._manager, 'save', full)
    checkpoints.save(1, make_state())
    with pytest.raises(OSError, match='No space left'):
      checkpoints.save(2, make_state())
    assert checkpoints.latest_step is None
    checkpoints.save(3, make_state())
  assert list(pathlib.Path(tmp_path).iterdir()) == []


def declare(folder, name, **changed):
  """Has an array of a checkpoint say something else of itself."""
  store = ts.KvStore.open(
    {'driver': 'ocdbt', 'base': f'file://{folder}/state/'}
  ).result()
  key = f'{name}/.zarray'
  store[key] = json.dumps(json.loads(store[key]) | changed)


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    (
      {'shape': [2**36], 'chunks': [2**36]},
      'it is of another model, with 1 other arrays: params.kernel'
      ' (68719476736,) for (64, 32)',
    ),
    (
      {'chunks': [2**20, 2**16]},
      'params.kernel (64, 32) has chunks of (1048576, 65536)',
    ),
  ],
)
def test_declared_sizes_are_checked_before_memory_is_taken(
  tmp_path, monkeypatch, changed, message
):
  """Of 2^36 numbers the allocation ended the process."""

  def allocated(*args, **kwargs):
    raise AssertionError

  monkeypatch.setattr(ocp.Checkpointer, 'restore', allocated)
  written(tmp_path, [1])
  declare(tmp_path / '1', 'params.kernel', **changed)
  assert f'cannot be restored ({message})' in refusal(tmp_path)
