"""The log of a run."""

import json
import pathlib

import pytest

from hier_jax import paths
from hier_jax.training.logs import records
from tests.support import full_disk


def test_log_drops_what_came_after_the_checkpoint(tmp_path):
  path = tmp_path / 'metrics.jsonl'
  log = records.MetricsLog(path)
  for step in range(5):
    log.write({'kind': 'train', 'step': step, 'loss': 0.1 * step})
  with path.open('a') as file:
    file.write('{"kind": "train", "st')  # a write that was cut short
  log = records.MetricsLog(path, step=2)
  log.write({'kind': 'eval', 'step': 3, 'name': 'x'})
  found = [json.loads(line) for line in path.read_text().splitlines()]
  assert [r['step'] for r in found] == [0, 1, 2, 3]
  assert log.evaluations() == {'x': found[-1]}


def test_log_of_another_process_writes_nothing(tmp_path):
  log = records.MetricsLog(tmp_path / 'metrics.jsonl', enabled=False)
  log.write({'kind': 'eval', 'step': 0, 'name': 'x'})
  assert list(tmp_path.iterdir()) == []
  assert 'x' in log.evaluations()


def test_a_full_disk_is_named_with_the_file(tmp_path, monkeypatch):
  log = records.MetricsLog(tmp_path / 'metrics.jsonl')
  monkeypatch.setattr(pathlib.Path, 'open', full_disk.full_disk)
  match = (
    r'metrics.jsonl cannot be written \(OSError: No space left on device\)'
  )
  with pytest.raises(paths.WriteError, match=match):
    log.write({'kind': 'train', 'step': 1})
  with pytest.raises(paths.WriteError, match='No space left'):
    records.MetricsLog(tmp_path / 'timing.jsonl')
