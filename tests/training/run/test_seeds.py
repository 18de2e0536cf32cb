"""The same config with several seeds."""

import pytest

from hier_jax.errors import UserError
from hier_jax.training.report import runs
from hier_jax.training.run import dry_run
from hier_jax.training.run import seeds as trials
from tests.support import training_data

pytestmark = pytest.mark.usefixtures('colors')


def test_a_run_a_seed_and_a_table_over_them(tmp_path, capsys):
  # Each seed is a program of its own, and without HIER a small one.
  config = training_data.config(epochs=1, **{'loss.hier_weight': 0.0})
  trials.train(config, tmp_path, [3, 0])
  assert sorted(p.name for p in tmp_path.iterdir()) == ['seed0', 'seed3']
  first, second = runs.load([tmp_path])
  assert (first.seed, second.seed) == (0, 3)
  losses = [
    [r['loss'] for r in run.records if r['kind'] == 'train']
    for run in (first, second)
  ]
  assert losses[0] != losses[1]
  found = capsys.readouterr().out
  mean = sum(r.results['after training']['map@r'] for r in (first, second)) / 2
  assert '| after training | 2 | ' in found
  assert f'{100 * mean:.2f}' in found
  assert '| seed 0 | seed 3 |' in found
  assert config.seed == 0


@pytest.mark.parametrize('seeds', [[], [1, 1]])
def test_seeds_that_are_none_are_named(tmp_path, seeds):
  with pytest.raises(UserError, match=r'seeds are \[.*at least one, and none'):
    trials.train(training_data.config(), tmp_path / 'runs', seeds)
  assert not (tmp_path / 'runs').exists()


def test_a_single_runs_workdir_is_refused(tmp_path):
  (tmp_path / 'config.json').write_text('{}')
  with pytest.raises(UserError, match='holds a single run: with seeds it must'):
    trials.train(training_data.config(), tmp_path, [0])


def test_a_dry_run_checks_the_folder_of_each_seed(tmp_path, monkeypatch):
  (tmp_path / 'seed0').mkdir()
  config, made, make = training_data.config(), [], dry_run.plans.make

  def record(trial, folder, **options):
    made.append((trial.seed, folder))
    return make(trial, folder, **options)

  monkeypatch.setattr(dry_run.plans, 'make', record)
  monkeypatch.setattr(dry_run.mapping, 'compile_step', lambda *_, **__: 1 / 0)
  with pytest.raises(ZeroDivisionError):
    dry_run.describe(config, tmp_path, [3, 0])
  assert made == [(3, tmp_path / 'seed3'), (0, tmp_path / 'seed0')]
  (tmp_path / 'seed0' / 'other').touch()
  with pytest.raises(
    UserError, match=r'seed0 is not empty and holds no config'
  ):
    dry_run.describe(config, tmp_path, [3, 0])
  made.clear()
  with pytest.raises(ZeroDivisionError):
    dry_run.describe(config, None, [3, 0])
  assert made == [(3, None), (0, None)]
