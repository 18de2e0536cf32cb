"""The same config with several seeds."""

import pytest

from hier_jax.errors import UserError
from hier_jax.training.report import runs
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
