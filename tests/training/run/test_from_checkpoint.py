"""A run's data set, as its checkpoint embeds it."""

import json
import os

import pytest

from hier_jax.data import datasets
from hier_jax.errors import UserError
from hier_jax.evaluation import retrieval_metrics
from hier_jax.training.run import from_checkpoint, loop
from tests.support import training_data


@pytest.mark.slow
def test_a_moved_run_is_evaluated_with_data_that_was_moved(
  tmp_path, monkeypatch, colors, programs, capsys
):
  places = []

  def load(name, data_dir=None, **_):
    assert os.path.isabs(data_dir)
    places.append(os.path.realpath(data_dir))
    if places[-1] != str(tmp_path / 'data'):
      raise UserError('data set is not prepared')
    return colors

  monkeypatch.setattr(datasets, 'load', load)
  monkeypatch.chdir(tmp_path)
  config = training_data.config(epochs=1, **{'data.data_dir': 'data'})
  rows = loop.train(config, 'run')
  (tmp_path / 'elsewhere').mkdir()
  monkeypatch.chdir(tmp_path / 'elsewhere')
  (tmp_path / 'run').rename('moved')
  task = from_checkpoint.read_task('moved')
  # What the config leads to is told.
  assert f'data are read from {tmp_path}/data' in capsys.readouterr().err
  want = retrieval_metrics(task.queries.embeddings, task.queries.labels, c=0.1)
  assert rows['after training'].items() >= want.items()
  # The same run goes on from another folder.
  config.data.data_dir = '../data'
  assert loop.train(config, 'moved') == rows
  from_checkpoint.read_task('moved', data_dir=tmp_path / 'data')
  assert set(places) == {str(tmp_path / 'data')} and len(places) == 4
  with pytest.raises(
    UserError, match=r'not prepared. If the data .*--data_dir'
  ):
    from_checkpoint.read_task('moved', data_dir='/nowhere')


def test_evaluations_are_those_of_the_checkpoint(tmp_path):
  rows = [
    {'kind': 'eval', 'step': 0, 'name': 'raw pixels'},
    {'kind': 'train', 'step': 4},
    {'kind': 'validation', 'step': 4, 'name': 'step 4'},
    {'kind': 'validation', 'step': 8, 'name': 'step 8'},
    {'kind': 'eval', 'step': 8, 'name': 'step 8'},
    {'kind': 'eval', 'step': 8, 'name': 'best', 'checkpoint': 4},
    {'kind': 'validation', 'step': 12, 'name': 'step 12'},
  ]
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (tmp_path / 'metrics.jsonl').write_text(text)

  def at(step):
    run = from_checkpoint.Trained(tmp_path, step, *[None] * 5)
    return from_checkpoint.evaluations(run)

  assert at(8) == {'raw pixels': rows[0], 'step 8': rows[4]}
  assert at(4) == {'raw pixels': rows[0], 'step 4': rows[5]}
  # What was validated alone has no baselines: those are of test classes.
  assert at(12) == {'step 12': rows[6]}
  assert at(16) == at(0) == {}


def test_metrics_are_those_of_the_checkpoint(tmp_path):
  rows = [
    {'kind': 'validation', 'step': 4, 'map@r': 0.9},
    {'kind': 'eval', 'step': 8, 'map@r': 0.4, 'queries': 3},
    {'kind': 'eval', 'step': 8, 'map@r': 0.8, 'checkpoint': 4},
  ]
  text = ''.join(json.dumps(row) + '\n' for row in rows)
  (tmp_path / 'metrics.jsonl').write_text(text)
  found = {n: from_checkpoint._metrics(tmp_path, n) for n in (0, 4, 8, 12)}
  assert found == {0: {}, 4: {'map@r': 0.8}, 8: {'map@r': 0.4}, 12: {}}
