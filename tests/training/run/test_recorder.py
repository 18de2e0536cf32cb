"""What a run writes of its steps, and that it waits for none."""

import numpy as np
import pytest

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.training.distributed import mapping
from hier_jax.training.logs import progress, tensorboard
from hier_jax.training.logs import records as records_lib
from hier_jax.training.run import loop
from tests.support import events, full_disk, training_data

pytestmark = pytest.mark.usefixtures('colors', 'programs')


class Watched:
  """A value that notes how many steps had begun when it was read."""

  def __init__(self, value, step, begun, read):
    self.value, self.step, self.begun, self.read = value, step, begun, read

  def is_ready(self):
    return True

  def __array__(self, *args, **kwargs):
    self.read.append((self.step, len(self.begun)))
    return np.asarray(self.value)


def test_no_step_is_waited_for_before_the_next_is_logged(tmp_path, monkeypatch):
  begun, read = [], []
  mapped = mapping.map_step

  def map_step(*args, **kwargs):
    step = mapped(*args, **kwargs)

    def watched(state, batch):
      state, metrics = step(state, batch)
      begun.append(None)
      now = len(begun)
      return state, {
        name: Watched(value, now, begun, read)
        for name, value in metrics.items()
      }

    return watched

  monkeypatch.setattr(mapping, 'map_step', map_step)
  config = training_data.config(
    log_every=3, **{'eval.every_epochs': 4, 'checkpoint.every_epochs': 4}
  )
  loop.train(config, tmp_path / 'run')
  assert {step for step, _ in read} == set(range(1, 13))
  # The last are read at the evaluation that ends the run.
  early = [(s, now) for s, now in read if now < min(s + 3, 12)]
  assert not early


def test_a_run_stopped_by_a_full_disk_goes_on(tmp_path, monkeypatch):
  config = training_data.config(epochs=2, tensorboard=True)
  workdir = tmp_path / 'run'
  write = tensorboard.TensorBoard.write

  def full_at_step_5(self, record):
    if record['step'] == 5:
      with paths.writing('tensorboard'):
        full_disk.full_disk()
    write(self, record)

  with monkeypatch.context() as patch:
    patch.setattr(tensorboard.TensorBoard, 'write', full_at_step_5)
    match = (
      r'tensorboard cannot be written \(OSError: No space .*: the checkpoint of'
      ' step 3 is intact.* the same command goes on from there'
    )
    with pytest.raises(UserError, match=match):
      loop.train(config, workdir)
  loop.train(config, workdir)
  records = {
    name: records_lib.read(workdir / name)
    for name in ('metrics.jsonl', 'timing.jsonl')
  }
  train = [r for r in records['metrics.jsonl'] if r['kind'] == 'train']
  assert [r['step'] for r in train] == list(range(1, 7))
  found = events.shown(workdir / 'tensorboard')
  losses = [(r['step'], pytest.approx(r['loss'])) for r in train]
  assert found['train/loss'] == losses
  assert [step for step, _ in found['eval/recall@1']] == [6]
  assert [step for step, _ in found['before training/recall@1']] == [0]
  timing = records['timing.jsonl']
  assert [r['step'] for r in timing] == sorted(r['step'] for r in timing)
  # The last evaluation and checkpoint have a record of their own.
  assert timing[-1]['step'] == timing[-2]['step'] == 6
  assert timing[-1]['share/evaluation'] > 0
  for record in timing:
    shares = [record[f'share/{part}'] for part in progress.PARTS]
    # Each is measured within the period, one after the other.
    assert min(shares) >= 0
    assert sum(shares) <= 1 + 1e-9
  rates = [r for r in timing if 'images_per_second' in r]
  assert len(rates) == len(timing) - 1
  assert found['share/data'] == [
    (r['step'], pytest.approx(r['share/data'], abs=1e-6)) for r in timing
  ]
