import functools

import numpy as np
import pytest

from experiments.study import arms, folds, runner, spaces
from experiments.study.search import Target
from tests.support import small_study

# Whole losses and trainings are compiled.
pytestmark = pytest.mark.slow

ABOUT = 'cpu_s', 'processor', 'versions'


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  small_study.shrink(monkeypatch)


def job(arm, fold=0, seed=0, **more):
  target = Target('tiny', 'A', arm)
  point = spaces.defaults(arms.arm(arm).space) | more
  return target.job(point, fold, seed)


@functools.cache
def runner_of_small():
  return runner.Runner(small_study.make())


def told(outcome):
  return {k: v for k, v in outcome.items() if k not in ABOUT}


def test_seed_decides_the_line():
  asked = job('sup_con+alone', epochs=1.0)
  first = told(runner_of_small().run(asked))
  assert told(runner_of_small().run(asked)) == first
  other = told(runner_of_small().run(job('sup_con+alone', seed=1)))
  assert other != first and not first['diverged']
  assert set(first['metrics']) == set(runner.RANKINGS)


def test_fold_never_sees_a_test_class():
  data = small_study.make()
  asked = job('sup_con+alone')
  before = told(runner_of_small().run(asked))
  unseen = np.isin(data.labels, np.flatnonzero(data.test['A']))
  data.x[unseen] = np.nan
  assert told(runner.Runner(data).run(asked)) == before


def test_test_keeps_values_of_classes():
  line = runner_of_small().run(
    job('sup_con+alone', folds.TEST), ranking='cosine'
  )
  assert len(line['counts']) == small_study.CLASSES // 2
  for name, values in line['per_class'].items():
    counts = np.array(line['counts'])
    mean = np.average(np.array(values) / 10_000, weights=counts)
    assert mean == pytest.approx(line['metrics']['cosine'][name], abs=1e-4)
  assert set(line['trees']) == {'1nn_subgroup', 'dp_subgroup', 'lca_triplets'}


def test_diverged_run_counts_with_what_it_gives():
  line = runner_of_small().run(job('sup_con+alone', lr=1e30))
  assert line['diverged'] and line['loss'] is None
  assert line['metrics']['cosine']['map@r'] < 0.5


def test_free_radius_is_ranked_both_ways():
  line = runner_of_small().run(job('sup_con+alone', radius='free'))
  assert line['metrics']['cosine'] != line['metrics']['hyperbolic']


def test_parts_are_standardized_each():
  x = runner.standardized(small_study.make().x)
  parts = x.reshape(len(x), 4, -1)
  np.testing.assert_allclose(parts.mean(2), 0, atol=1e-6)
  np.testing.assert_allclose(parts.std(2), 1, atol=1e-5)


def test_equal_lengths_rank_alike():
  z = np.array([[0.3, 0.4], [0.5, 0.0]])
  assert runner.ranked_alike(z) and not runner.ranked_alike(z * [[1], [2]])
