"""Runs on disk: which can be read, and which belong together."""

import json

import pytest

from hier_jax.errors import UserError
from hier_jax.training.report import runs as runs_lib
from tests.support import finished_runs


@pytest.fixture
def three(tmp_path):
  return finished_runs.three(tmp_path / 'study')


def labels(*dirs):
  groups = runs_lib.groups(runs_lib.load(dirs))
  return {g.label: [run.seed for run in g.runs] for g in groups}


def test_seeds_and_free_keys_do_not_tell_groups_apart(tmp_path):
  finished_runs.make(tmp_path / 'a', 0.5, **{'data.num_threads': 7, 'seed': 3})
  finished_runs.make(tmp_path / 'b', 0.6, tensorboard=True)
  old = finished_runs.make(tmp_path / 'c', 0.6, seed=1)
  stored = json.loads((old / 'config.json').read_text())
  del stored['optim']['b1']  # a key that runs of then had not
  (old / 'config.json').write_text(json.dumps(stored))
  assert labels(tmp_path) == {tmp_path.name: [0, 1, 3]}
  # A run named twice, by whatever path, is one.
  assert labels(tmp_path, tmp_path / 'a' / '..' / 'b') == labels(tmp_path)


def test_groups_are_called_by_what_tells_them_apart(tmp_path):
  lr = {'optim.lr': 1e-3}
  finished_runs.make(tmp_path / 'a', 0.5)
  finished_runs.make(tmp_path / 'b', 0.5, **lr)
  finished_runs.make(tmp_path / 'c', 0.5, **lr, seed=1)
  assert labels(tmp_path) == {'lr=5e-06': [0], 'lr=0.001': [0, 1]}
  finished_runs.make(tmp_path / 'd', 0.5, **lr, **{'data.batch_size': 60})
  finished_runs.make(tmp_path / 'e', 0.5, **lr, **{'eval.hold_out': 5})
  wide = runs_lib.groups(runs_lib.load([tmp_path]))[-1].label
  assert wide == 'batch_size=180, hold_out=5, lr=0.001'


def test_long_labels_give_way_to_folders(tmp_path):
  cache = {'model.backbone': 'vit_' + 60 * 'x'}
  for parent in ('one', 'two'):
    changed = cache if parent == 'two' else {}
    for seed in (0, 1):
      finished_runs.make(
        tmp_path / parent / f's{seed}', 0.5, seed=seed, **changed
      )
  assert set(labels(tmp_path / 'one', tmp_path / 'two')) == {'one', 'two'}
  same = [tmp_path / parent / 's0' for parent in ('one', 'two')]
  assert set(labels(*same)) == {str(path.resolve()) for path in same}


def test_folders_without_runs_are_named(three, tmp_path):
  (tmp_path / 'empty').mkdir()
  dirs = [tmp_path / 'empty', three]
  with pytest.raises(UserError, match=r'1 of 2 folders hold no run: .*empty;'):
    runs_lib.load(dirs)


def test_paths_that_are_not_there_are_named(three, tmp_path):
  dirs = [tmp_path / 'nowhere', three]
  with pytest.raises(UserError, match='nowhere does not exist; expected'):
    runs_lib.load(dirs)


def test_nothing_finished(tmp_path):
  for name in 'ab':
    finished_runs.make(tmp_path / name, 0.5, finished=False)
  with pytest.raises(UserError, match='none of 2 runs is finished'):
    runs_lib.load([tmp_path])


def test_two_runs_of_one_seed(three):
  finished_runs.make(three / 'again', 0.6, seed=1)
  with pytest.raises(UserError, match=r'1 pairs of runs.*again.*\(seed 1\)'):
    runs_lib.load([three])


@pytest.mark.parametrize(
  ('name', 'text', 'message'),
  [
    (
      'config.json',
      '{"epo',
      r'config.json is no JSON .*; expected what',
    ),
    ('config.json', '{"epoch": 3}', "config.json: unknown config key 'epoch'"),
    ('config.json', '{"epochs": "3"}', 'config.json: '),
    ('results.json', '[1]', 'results.json holds a list and no object'),
    ('results.json', '{}', "results.json has no row 'after training'"),
  ],
)
def test_files_that_cannot_be_read(three, name, text, message):
  for run in ('run0', 'run2'):
    (three / run / name).write_text(text)
  match = f'2 of 3 runs cannot be read: .*{message}'
  with pytest.raises(UserError, match=match):
    runs_lib.load([three])
