"""The log, the clock, TensorBoard and the progress of a run."""

import collections
import errno
import io
import json
import pathlib
import resource
import struct
import time

import pytest
from tensorboardX.proto import event_pb2

from hier_jax import paths
from hier_jax.data import datasets
from hier_jax.errors import UserError
from hier_jax.training.config import checks
from hier_jax.training.logs import progress, tensorboard
from hier_jax.training.logs import records as report
from hier_jax.training.run import loop
from hier_jax.training.run.checkpoint import Checkpoints
from tests.support import training_data


def test_log_drops_what_came_after_the_checkpoint(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  log = report.MetricsLog(path)
  for step in range(5):
    log.write({'kind': 'train', 'step': step, 'loss': 0.1 * step})
  with path.open('a') as file:
    file.write('{"kind": "train", "st')  # a write that was cut short
  log = report.MetricsLog(path, step=2)
  log.write({'kind': 'eval', 'step': 3, 'name': 'x'})
  records = [json.loads(line) for line in path.read_text().splitlines()]
  assert [r['step'] for r in records] == [0, 1, 2, 3]
  assert log.evaluations() == {'x': records[-1]}


def test_log_of_another_process_writes_nothing(tmp_path):
  log = report.MetricsLog(tmp_path / 'metrics.jsonl', enabled=False)
  log.write({'kind': 'eval', 'step': 0, 'name': 'x'})
  assert list(tmp_path.iterdir()) == []
  assert 'x' in log.evaluations()


class Terminal(io.StringIO):
  def isatty(self):
    return True


METRICS = {'loss': 2.5, 'metric': 2.0, 'hier': 1.0, 'grad_norm': 9.0}
TIMING = {'images_per_second': 120.4, 'share/data': 0.031}


def test_bar_on_a_terminal_shows_losses_rate_and_time_left():
  file = Terminal()
  bar = progress.Progress(100, file=file)
  bar.update(50, METRICS, TIMING, new_period=False)
  bar.say('hello')
  bar.close()
  text = file.getvalue()
  shown = ('50/100', 'loss=2.5', 'hier=1', 'img/s=120', 'data=3%', '<')
  for part in (*shown, 'hello\n'):
    assert part in text, part


def test_a_line_a_period_elsewhere():
  file = io.StringIO()
  bar = progress.Progress(100, file=file)
  bar.update(10, METRICS, TIMING, new_period=False)
  bar.update(50, METRICS, TIMING, new_period=True)
  bar.close()
  (line,) = file.getvalue().splitlines()
  values = 'step 50/100 loss 2.5 metric 2 hier 1 img/s 120 data 3% left '
  assert line.startswith(values)


def test_clock_splits_each_period(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(report.time, 'monotonic', lambda: now[0])

  def pass_by(seconds):
    now[0] += seconds

  def batches():
    for seconds in (1, 3):
      pass_by(seconds)
      yield seconds
    pass_by(2)  # what it takes to learn that there are no more

  clock = progress.Clock(step=4, batch_size=30)
  for seconds in clock.waiting(batches()):
    with clock.spent('step'):
      pass_by(10 * seconds)
  with clock.spent('compile'):
    pass_by(30)
  with clock.spent('evaluation'):
    pass_by(5)
  with pytest.raises(KeyError), clock.spent('checkpoint'):
    pass_by(8)
    raise KeyError
  pass_by(1)
  # 6 + 40 + 30 + 5 + 8 + 1 seconds, 43 of them not in training; 2 steps.
  assert clock.lap(6) == {
    'kind': 'timing',
    'step': 6,
    'images_per_second': 60 / 47,
    'seconds': 90.0,
    'share/data': 6 / 90,
    'share/compile': 30 / 90,
    'share/step': 40 / 90,
    'share/evaluation': 5 / 90,
    'share/checkpoint': 8 / 90,
  }
  with clock.spent('evaluation'):
    pass_by(2)
  last = clock.lap(6)
  assert 'images_per_second' not in last
  assert [last['seconds'], last['share/evaluation']] == [2.0, 1.0]


def full_disk(*args, **kwargs):
  raise OSError(errno.ENOSPC, 'No space left on device')


def test_a_full_disk_is_named_with_the_file(tmp_path, monkeypatch):
  log = report.MetricsLog(tmp_path / 'metrics.jsonl')
  monkeypatch.setattr(pathlib.Path, 'open', full_disk)
  match = (
    r'metrics.jsonl cannot be written \(OSError: No space left on device\)'
  )
  with pytest.raises(paths.WriteError, match=match):
    log.write({'kind': 'train', 'step': 1})
  with pytest.raises(paths.WriteError, match='No space left'):
    report.MetricsLog(tmp_path / 'timing.jsonl')


def events(folder):
  """Events of the files of a folder in the order of their names."""
  for path in sorted(folder.iterdir()):
    data, start = path.read_bytes(), 0
    while start < len(data):
      # A record: its length in 8 bytes, 4 of checksum, itself, 4 of checksum.
      (length,) = struct.unpack_from('<Q', data, start)
      yield event_pb2.Event.FromString(data[start + 12 : start + 12 + length])
      start += length + 16


def shown(folder):
  """Tag -> steps and values left once TensorBoard has seen all events."""
  scalars = collections.defaultdict(list)
  for event in events(folder):
    if event.session_log.status == event_pb2.SessionLog.START:
      for tag, found in scalars.items():
        scalars[tag] = [(s, v) for s, v in found if s < event.step]
    for value in event.summary.value:
      scalars[value.tag].append((event.step, value.simple_value))
  return {tag: found for tag, found in scalars.items() if found}


def test_tensorboard_shows_no_step_twice(tmp_path):
  for start, steps, loss in ((-1, range(4), 1.0), (1, range(2, 5), 2.0)):
    board = tensorboard.TensorBoard(tmp_path / 'board', step=start)
    for step in steps:
      board.write({'kind': 'train', 'step': step, 'loss': loss, 'hier/x': 0.5})
  for name, step in (('raw pixels', 0), ('step 4', 4)):
    record = {'kind': 'eval', 'name': name, 'step': step, 'num_queries': 3}
    board.write(record | {'map@r': 0.25, 'recall@1': None})
  assert shown(tmp_path / 'board') == {
    'train/loss': [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0), (4, 2.0)],
    'hier/x': [(step, 0.5) for step in range(5)],
    'raw pixels/map@r': [(0, 0.25)],
    'eval/map@r': [(4, 0.25)],
  }


def test_missing_tensorboardx_is_named_before_anything_starts(monkeypatch):
  config = training_data.config(tensorboard=True)
  checks.validate(config)
  monkeypatch.setattr(tensorboard.importlib.util, 'find_spec', lambda _: None)
  with pytest.raises(UserError, match=r"pip install 'hier_jax\[tensorboard\]'"):
    checks.validate(config)
  checks.validate(training_data.config())


@pytest.fixture
def colours(monkeypatch):
  made = training_data.splits()
  monkeypatch.setattr(datasets, 'load', lambda name, **_: made)


def test_a_run_stopped_by_a_full_disk_goes_on(tmp_path, monkeypatch, colours):
  config = training_data.config(epochs=2, tensorboard=True)
  workdir = tmp_path / 'run'
  write = tensorboard.TensorBoard.write

  def full_at_step_5(self, record):
    if record['step'] == 5:
      with paths.writing('tensorboard'):
        full_disk()
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
    name: report.read(workdir / name)
    for name in ('metrics.jsonl', 'timing.jsonl')
  }
  train = [r for r in records['metrics.jsonl'] if r['kind'] == 'train']
  assert [r['step'] for r in train] == list(range(1, 7))
  found = shown(workdir / 'tensorboard')
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


def test_a_checkpoint_that_fails_beside_the_steps_stops_the_run(
  tmp_path, monkeypatch, colours
):
  """From the second save on files may grow to 4 kB only."""
  config = training_data.config(epochs=2)
  limit = resource.getrlimit(resource.RLIMIT_FSIZE)
  save = Checkpoints.save

  def save_on_a_full_disk(self, step, state, score):
    if step == 6:
      while not (tmp_path / 'run' / 'checkpoints' / '3').is_dir():
        time.sleep(0.01)
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
  with Checkpoints(tmp_path / 'run' / 'checkpoints') as checkpoints:
    assert checkpoints.latest_step == 3
