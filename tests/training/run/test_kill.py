"""SIGKILL at moments of a run, which ends as if nothing had been."""

import importlib
import signal

import numpy as np
import pytest

from tests.support import training_data
from tests.support.command_line import run


@pytest.fixture
def kill_test():
  return importlib.import_module('experiments.benchmarks.kill.__main__')


def prepared(folder):
  """Where a small data set is, `folder/colors`: 20 classes for training."""
  split = training_data.splits(classes=40, per_class=8)['train']
  for number, (record, label) in enumerate(
    zip(split.source, split.labels, strict=True)
  ):
    path = folder / 'colors' / f'{label:02}' / f'{number}.png'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(record['image'])
  data = folder / 'data'
  args = '--from', folder / 'colors', '--data_dir', data
  assert run('data', 'prepare', 'folder/colors', *args) == 0
  return data


@pytest.mark.slow
def test_killed_runs_end_bitwise_as_the_one_left_alone(
  kill_test, tmp_path, monkeypatch
):
  moments = [
    kill_test.Moment('data', 1, 0.3),
    # At the third save the first is there, however slow the disk is.
    kill_test.Moment('save', 3, 0.05),
    kill_test.Moment('evaluation', 1, 0.1),
    kill_test.Moment('step', 5, 0.01),
  ]
  shorter = {
    'data.name': 'folder/colors',
    'data.data_dir': str(prepared(tmp_path)),
    'data.batch_size': '16',
    'epochs': '4',
    'eval.every_epochs': '1',
  }
  monkeypatch.setattr(kill_test, '_SETTINGS', kill_test._SETTINGS | shorter)
  seen = []
  hit, differing = kill_test.kill(
    tmp_path, iter(moments), len(moments), lambda *row: seen.append(row)
  )
  assert dict(hit) == {'data': 1, 'save': 1, 'evaluation': 1, 'step': 1}
  assert differing == [[]]
  # It was not always begun anew, nor ever over.
  steps = [steps for _, steps, _ in seen]
  assert steps[-1] != []
  assert max(steps[-1]) < 72


def test_differences_are_seen(kill_test, tmp_path, monkeypatch):
  for name in ('a', 'b'):
    (tmp_path / name / 'checkpoints' / '5').mkdir(parents=True)
    for file in ('config.json', 'metrics.jsonl', 'results.json'):
      (tmp_path / name / file).write_text('{}\n')
  arrays = {name: {'w': np.zeros(2)} for name in ('a', 'b')}
  monkeypatch.setattr(
    kill_test, '_arrays', lambda folder: arrays[folder.parents[1].name]
  )
  a, b = tmp_path / 'a', tmp_path / 'b'
  assert kill_test.differences(a, b) == []
  (b / 'metrics.jsonl').write_text('{}\n{}\n')
  arrays['b']['w'][1] = -0.0
  assert kill_test.differences(a, b) == ['metrics.jsonl', 'w of checkpoint 5']
  (b / 'checkpoints' / '6').mkdir()
  assert kill_test.differences(a, b)[1] == 'checkpoints [5] and [5, 6]'


def test_the_child_dies_when_it_is_told(kill_test, tmp_path):
  code = kill_test.start(tmp_path / 'run', kill_test.Moment('start', 1, 0.0))
  assert code == -signal.SIGKILL
  assert not (tmp_path / 'run').exists()
