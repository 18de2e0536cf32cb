"""A whole run in small: its devices, its interruptions, its complaints."""

import gc
import json
import os
import re
import resource
import signal

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import models
from hier_jax.errors import UserError
from hier_jax.models.weights import pretrained
from hier_jax.training.distributed import mapping
from hier_jax.training.logs import progress
from hier_jax.training.logs import records as records_lib
from hier_jax.training.run import inputs, loop
from hier_jax.training.run.checkpoint import Checkpoints
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib
from tests.support import training_data, whole_runs

pytestmark = pytest.mark.usefixtures('colors', 'programs')
# A state of all that it can hold, and a validation split.
EVERYTHING = {
  'model.backbone': 'resnet_test',
  'loss.metric': 'multi_similarity',
  'loss.memory.size': 32,
  'optim.ema_decay': 0.5,
  'eval.hold_out': 4,
  'eval.every_epochs': 1,
  'data.batch_size': 12,
}


def losses_on(devices, backbone, steps=8):
  """Losses of the first steps on so many devices."""
  config = training_data.config(**{'model.backbone': backbone})
  model = models.create(**config.model.to_dict(), axis_name=mapping.AXIS)
  optimizer = training_data.optimizer(config)
  state = state_lib.create(config, model, optimizer, num_classes=16)
  step = mapping.map_step(
    step_lib.make_train_step(config, model, optimizer),
    devices=jax.local_devices()[:devices] if devices < 4 else None,
  )
  rng = np.random.default_rng(0)
  found = []
  for _ in range(steps):
    batch = {
      'image': rng.integers(0, 256, (16, 8, 8, 3)).astype(np.uint8),
      'label': rng.permutation(16)[:8].repeat(2).astype(np.int32),
    }
    state, metrics = step(state, batch)
    found.append(float(metrics['loss']))
  return np.array(found)


@pytest.mark.slow
@pytest.mark.parametrize('backbone', ['vit_test_patch4', 'resnet_test'])
def test_losses_do_not_depend_on_the_number_of_devices(backbone):
  one, four = losses_on(1, backbone), losses_on(4, backbone)
  np.testing.assert_allclose(four, one, rtol=1e-5)


def final_state(workdir, config):
  model = models.create(**config.model.to_dict(), axis_name=mapping.AXIS)
  optimizer = training_data.optimizer(config)
  state = state_lib.create(config, model, optimizer, num_classes=16)
  with Checkpoints(workdir / 'checkpoints', keep=2) as checkpoints:
    return checkpoints.latest_step, checkpoints.restore(state)


def assert_same_run(a, b, config):
  for name in ('metrics.jsonl', 'results.json', 'config.json'):
    assert (a / name).read_bytes() == (b / name).read_bytes(), name
  (step_a, state_a), (step_b, state_b) = (
    final_state(workdir, config) for workdir in (a, b)
  )
  assert step_a == step_b == 12
  same = jax.tree.map(lambda x, y: bool(jnp.all(x == y)), state_a, state_b)
  assert all(jax.tree.leaves(same))


@pytest.mark.slow
def test_interrupted_run_ends_bitwise_as_the_uninterrupted(
  tmp_path, monkeypatch
):
  config = training_data.config(**EVERYTHING)
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  loop.train(config, whole)

  write = records_lib.MetricsLog.write

  def at_step(step, signal):
    def writing(self, record):
      write(self, record)
      if record['step'] == step:
        os.kill(os.getpid(), signal)

    return writing

  with monkeypatch.context() as patch:
    patch.setattr(records_lib.MetricsLog, 'write', at_step(8, signal.SIGINT))
    with pytest.raises(KeyboardInterrupt):
      loop.train(config, cut)
  with monkeypatch.context() as patch:
    # A step's record is written while the next runs, and that one is the last.
    patch.setattr(records_lib.MetricsLog, 'write', at_step(7, signal.SIGTERM))
    assert loop.train(config, cut) is None
  assert final_state(cut, config)[0] == 8
  assert not (cut / 'results.json').exists()
  assert (cut / 'metrics.jsonl').read_bytes() != (
    whole / 'metrics.jsonl'
  ).read_bytes()
  # Validations of one batch at 9 and 12, three of the last, then the best.
  assert whole_runs.terminated(monkeypatch, config, cut, 2 + 3 + 2) is None
  assert not (cut / 'results.json').exists()
  loop.train(config, cut)
  assert_same_run(whole, cut, config)
  loop.train(config, cut)  # a finished run only prints its table again
  assert_same_run(whole, cut, config)


@pytest.mark.slow
def test_sigterm_stops_within_a_batch_of_an_evaluation(tmp_path, monkeypatch):
  # Three batches each: before training, after step 6, and after 12, the last.
  config = training_data.config()
  whole, cut = tmp_path / 'whole', tmp_path / 'cut'
  loop.train(config, whole)
  # What is cut is done again. Between them one looks at the first batch.
  for call, saved in ((2, None), (3 + 1 + 2, 6), (3 + 1 + 1, 12)):
    assert whole_runs.terminated(monkeypatch, config, cut, call) is None
    with Checkpoints(cut / 'checkpoints') as checkpoints:
      assert checkpoints.latest_step == saved
    assert not (cut / 'results.json').exists()
  loop.train(config, cut)
  assert_same_run(whole, cut, config)


def test_records_and_results(tmp_path, capsys, monkeypatch):
  said = []
  monkeypatch.setattr(
    progress.Progress, 'say', lambda _, text: said.append(text)
  )
  config = training_data.config()
  rows = loop.train(config, tmp_path / 'run')
  lines = (tmp_path / 'run' / 'metrics.jsonl').read_text().splitlines()
  records = [json.loads(line) for line in lines]
  train = [r for r in records if r['kind'] == 'train']
  assert [r['step'] for r in train] == list(range(1, 13))
  for record in train:
    # 0.5 is the default weight of HIER.
    total = record['metric'] + 0.5 * record['hier']
    assert record['loss'] == pytest.approx(total, rel=1e-6)
  evals = [(r['name'], r['step']) for r in records if r['kind'] == 'eval']
  assert evals == [('before training', 0), ('step 6', 6), ('step 12', 12)]
  assert list(rows) == ['before training', 'after training']
  first, second = (line for line in said if line.startswith('compil'))
  assert first == 'compiling the training step ...'
  assert re.fullmatch(r'compiled the training step in \d+\.\d s', second)
  table = capsys.readouterr().out
  assert 'after training' in table
  assert f'{100 * rows["after training"]["recall@1"]:.1f}' in table


def test_clock_asks_whether_the_devices_are_busy(tmp_path, monkeypatch):
  """What a step takes is no wait for data: it runs beside the loader."""
  ready, asked = [], []
  waiting = progress.Clock.waiting

  def told(clock, batches, busy):
    return waiting(clock, batches, lambda: asked.append(busy()) or asked[-1])

  class Metrics(dict):
    def values(self):
      return [self]

    def is_ready(self):
      return ready[-1]

  class Run(loop._Run):
    def _step(self, batch):
      ready.append(self.step % 2 == 0)
      return Metrics(super()._step(batch))

  monkeypatch.setattr(progress.Clock, 'waiting', told)
  monkeypatch.setattr(loop, '_Run', Run)
  loop.train(training_data.config(epochs=2), tmp_path / 'run')
  # Before step 1 there is none, then odd ones are ready.
  assert asked == [False, False, True, False, True, False]


def test_begins_with_pretrained_weights(tmp_path, capsys):
  path = tmp_path / 'weights.safetensors'
  config = training_data.config(epochs=1, pretrained=str(path))
  model = models.create(**config.model.to_dict())
  optimizer = training_data.optimizer(config)
  drawn = state_lib.create(config, model, optimizer, num_classes=16)
  want = jax.tree.map(lambda a: a + 0.1, drawn.params['model']['backbone'])
  pretrained.save(path, {'params': want}, architecture='vit_test_patch4')
  loaded = state_lib.read_pretrained(str(path), model, backbone='x')
  state = state_lib.with_pretrained(drawn, loaded, config.optim)
  chex.assert_trees_all_equal(state.params['model']['backbone'], want)
  chex.assert_trees_all_equal(
    state.params['model']['head'], drawn.params['model']['head']
  )
  rows = loop.train(config, tmp_path / 'run')
  assert 'pretrained weights: ' in capsys.readouterr().out
  assert loop.train(config, tmp_path / 'run') == rows
  assert 'pretrained weights: ' not in capsys.readouterr().out
  without = loop.train(training_data.config(epochs=2), tmp_path / 'without')
  assert without['before training'] != rows['before training']
  with pytest.raises(UserError, match='is no file'):
    loop.train(
      training_data.config(epochs=1, pretrained='vit_huge'), tmp_path / 'none'
    )


@pytest.mark.slow
def test_a_run_becomes_as_long_as_one_that_was_meant_to_be(tmp_path):
  short, long = (
    training_data.config(epochs=epochs, **EVERYTHING) for epochs in (2, 4)
  )
  loop.train(short, tmp_path / 'cut')
  rows = loop.train(long, tmp_path / 'cut')
  assert rows == loop.train(long, tmp_path / 'whole')
  # The checksum of the last state's arrays.
  last = [
    json.loads((path / 'checkpoints/12/_CHECKPOINT_METADATA').read_text())
    for path in (tmp_path / 'cut', tmp_path / 'whole')
  ]
  assert last[0]['custom_metadata'] == last[1]['custom_metadata']


def test_without_hier_there_are_no_hierarchical_proxies():
  config = training_data.config(**{'loss.hier_weight': 0.0})
  model = models.create(**config.model.to_dict(), axis_name=mapping.AXIS)
  optimizer = training_data.optimizer(config)
  state = state_lib.create(config, model, optimizer, num_classes=16)
  assert list(state.params['loss']) == ['class_proxies']
  step = step_lib.make_train_step(config, model, optimizer)
  batch = inputs.batch_shapes(16, 8)
  _, metrics = mapping.lower_step(step, state, batch).out_info
  assert 'metric' in metrics
  assert not any('hier' in name for name in metrics)


def test_another_runs_workdir_is_refused_and_untouched(tmp_path):
  workdir = tmp_path / 'run'
  loop.train(training_data.config(epochs=1), workdir)
  before = {p: p.stat().st_mtime_ns for p in sorted(workdir.rglob('*'))}
  with pytest.raises(UserError, match=r'optim.lr is 0.01 there and 0.02 here'):
    loop.train(training_data.config(epochs=1, **{'optim.lr': 0.02}), workdir)
  assert {p: p.stat().st_mtime_ns for p in sorted(workdir.rglob('*'))} == before


def test_a_folder_of_other_things_is_refused(tmp_path):
  (tmp_path / 'thesis.tex').write_text('dear')
  with pytest.raises(UserError, match=r'not empty and holds no config.json'):
    loop.train(training_data.config(), tmp_path)
  assert [p.name for p in tmp_path.iterdir()] == ['thesis.tex']


def test_unreadable_image_is_named(tmp_path, colors):
  colors['train'].source[5]['image'] = b'not an image'
  with pytest.raises(UserError, match='image 5 of colors:train'):
    loop.train(training_data.config(), tmp_path / 'run')


def test_broken_checkpoint_is_named(tmp_path):
  config = training_data.config(epochs=1)
  loop.train(config, tmp_path / 'run')
  folder = tmp_path / 'run' / 'checkpoints' / '3'
  assert folder.is_dir()
  for path in (folder / 'state').rglob('*'):
    if path.is_file():
      path.write_bytes(b'')
  with pytest.raises(UserError, match=r'checkpoint 3 in .* cannot be restored'):
    loop.train(config, tmp_path / 'run')


def test_a_run_killed_before_its_first_checkpoint_begins_anew(
  tmp_path, monkeypatch
):
  config = training_data.config(epochs=1)
  loop.train(config, tmp_path / 'whole')
  with monkeypatch.context() as patch:
    patch.setattr(loop._Run, '_batches', lambda self: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      loop.train(config, tmp_path / 'cut')
  loop.train(config, tmp_path / 'cut')
  whole, cut = (tmp_path / w / 'metrics.jsonl' for w in ('whole', 'cut'))
  assert whole.read_bytes() == cut.read_bytes()


def test_a_checkpoint_that_fails_beside_the_steps_stops_the_run(
  tmp_path, monkeypatch
):
  """From the second save on files may grow to 4 kB only."""
  config = training_data.config(epochs=2)
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  save = Checkpoints.save

  def save_on_a_full_disk(self, step, state, score):
    if step == 6:
      assert self.latest_step == 3  # it waits for what is being written
      resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limit[1]))
    save(self, step, state, score)

  monkeypatch.setattr(Checkpoints, 'save', save_on_a_full_disk)
  match = (
    'checkpoints cannot be written .*File too large.*: the checkpoint of step 3'
    ' is intact'
  )
  try:
    with pytest.raises(UserError, match=match):
      loop.train(config, tmp_path / 'run')
  finally:
    resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    # Else Orbax's failed tasks tell their errors whenever they are collected:
    # Python 3.11 crashes where that is while it parses a module.
    gc.collect()
  with Checkpoints(tmp_path / 'run' / 'checkpoints') as checkpoints:
    assert checkpoints.latest_step == 3
