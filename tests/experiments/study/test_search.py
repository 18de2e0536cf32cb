import itertools

import numpy as np
import pytest

from experiments.study import arms, folds, regimes, search, spaces
from experiments.study.search import Target
from hier_jax.errors import UserError
from tests.support import small_study

SMALL = regimes.Search(points=8, kept=3)
ALONE = Target('a128', 'B', 'proxy_anchor+alone')
OTHER = Target('a128', 'B', 'proxy_anchor+official')


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  small_study.search_less(monkeypatch, points=8, kept=3)


def answer(job):
  """A run that likes an alpha of 8."""
  alpha = dict(job.point)['alpha']
  return small_study.outcome(1 / (1 + abs(alpha - 8)))


def finish(target, found, answered=answer):
  """Runs a search to its end; returns the jobs in their order."""
  order = []
  while jobs := search.pending(target, found):
    for job in jobs:
      assert job not in found
      found[job] = answered(job)
      order.append(job)
  return order


def test_rounds_halve_and_every_arm_has_as_many_runs():
  found = {}
  first = finish(ALONE, found)
  # Rounds 2 and 3 begin with the best point so far, which has been run.
  rung, rest = SMALL.points, SMALL.kept * (folds.FOLDS - 1)
  assert 2 * (rung + rest) < len(first) <= 3 * (rung + rest)
  assert {job.fold for job in first[:rung]} == {0}
  assert {job.fold for job in first[rung : rung + rest]} == {1, 2, 3, 4}
  assert len(finish(OTHER, found)) == rung + rest


def test_arm_with_something_added_has_the_point_of_the_base_loss():
  found = {}
  order = finish(OTHER, found)
  base = arms.arm(ALONE.arm).space
  # Two rounds of the base loss alone are all that it waits for.
  alone = [dict(job.point) for job in order if job.arm == ALONE.arm]
  tried = [point for point in alone if alone.count(point) == folds.FOLDS]
  best = min(tried, key=lambda p: abs(p['alpha'] - 8))
  jobs = [job for job in order if job.arm == OTHER.arm and job.fold == 0]
  points = [{k: dict(job.point)[k] for k in base} for job in jobs]
  assert sum(p == best for p in points) == 1 + (SMALL.points - 1) // 2
  added = arms.arm(OTHER.arm).added.space
  assert {k: dict(jobs[0].point)[k] for k in added} == spaces.defaults(added)


def test_every_arm_is_searched_about_the_same_point():
  found = {}
  finish(OTHER, found)
  before = set(found)
  finish(ALONE, found)
  last = [dict(job.point) for job in found if job not in before]
  first = next(dict(job.point) for job in found if job.arm == OTHER.arm)
  for point in last:
    assert abs(np.log(point['alpha'] / first['alpha'])) <= np.log(32) / 4 + 1e-3


def test_other_arms_wait_for_the_base_loss():
  jobs = search.pending(OTHER, {})
  assert {job.arm for job in jobs} == {ALONE.arm}


def test_chosen_point_is_the_best_over_all_folds():
  found = {}
  finish(ALONE, found)
  point, ranking = search.chosen(ALONE, found)
  tried = [dict(job.point)['alpha'] for job in found]
  assert point['alpha'] == min(tried, key=lambda a: abs(a - 8))
  assert ranking == 'cosine'


def test_selection_does_not_see_lines_of_the_test():
  found = {}
  finish(ALONE, found)
  before = search.chosen(ALONE, found)
  worst = min(
    found.items(), key=lambda item: item[1]['metrics']['cosine']['map@r']
  )
  for seed in range(5):
    job = ALONE.job(dict(worst[0].point), folds.TEST, seed, 'test')
    found[job] = small_study.outcome(1.0)
  assert search.chosen(ALONE, found) == before
  assert not search.pending(ALONE, found)
  with pytest.raises(UserError, match='a test is made once'):
    search.test_jobs(ALONE, found)


def test_no_test_before_selection():
  with pytest.raises(UserError, match='not selected yet'):
    search.test_jobs(ALONE, {})


def test_tests_are_of_the_chosen_point_and_five_seeds():
  found = {}
  finish(ALONE, found)
  jobs, _ = search.test_jobs(ALONE, found)
  point, _ = search.chosen(ALONE, found)
  assert [job.seed for job in jobs] == [0, 1, 2, 3, 4]
  assert all(dict(job.point) == point for job in jobs)
  assert {job.fold for job in jobs} == {folds.TEST}


def test_ranking_that_selection_prefers():
  found = {}
  metrics = {
    'cosine': {'map@r': 0.1, 'map_subgroup': 0.1},
    'hyperbolic': {'map@r': 0.2, 'map_subgroup': 0.1},
  }
  finish(ALONE, found, lambda _: small_study.outcome(0, metrics=metrics))
  assert search.chosen(ALONE, found)[1] == 'hyperbolic'


def test_front_varies_the_scale_alone_on_folds():
  found = {}
  finish(ALONE, found)
  jobs = search.front_jobs(OTHER, found)
  point, _ = search.chosen(ALONE, found)
  assert len(jobs) == SMALL.front * folds.FOLDS
  assert {job.fold for job in jobs} == set(range(folds.FOLDS))
  assert {job.arm for job in jobs} == {ALONE.arm}
  for job, key in itertools.product(jobs, point):
    assert key == 'alpha' or dict(job.point)[key] == point[key]
  assert {dict(job.point)['alpha'] for job in jobs} >= {2.0, 64.0}


def switched(job):
  """A run that likes a weight of 3, too."""
  values = dict(job.point)
  far = abs(values['alpha'] - 8) + abs(values.get('weight', 3) - 3)
  return small_study.outcome(1 / (1 + far))


def test_switch_is_ablated_at_the_point_of_what_it_changes():
  found = {}
  target = Target('a128', 'B', 'proxy_anchor+star_dasgupta')
  whole = target.of('hier_star')
  order = finish(target, found, switched)
  point, _ = search.chosen(whole, found)
  runs = [job for job in order if job.why == 'ablation']
  # At its own weight HIER* has been run.
  assert sum(job.arm == whole.arm for job in runs) == folds.FOLDS
  own = {'tree_weight': 1, 'tree_tau': 0.05}
  weights = [float(f'{f * point["weight"]:.4g}') for f in SMALL.factors]
  switches = [job for job in runs if job.arm == target.arm]
  assert [(dict(j.point), j.fold) for j in switches] == [
    (point | own | {'weight': weight}, fold)
    for weight in weights
    for fold in range(folds.FOLDS)
  ]
  # Selection does not see the runs at another weight.
  assert search.chosen(whole, found)[0] == point
  with pytest.raises(UserError, match=r'is an ablation.*anchor\+hier_star'):
    search.test_jobs(target, found)


def test_a_weight_that_is_a_ratio_has_its_default():
  found = {}
  target = Target('a128', 'B', 'proxy_anchor+star_ratio')
  finish(target, found, switched)
  pairs = search.ablation(target, found)
  assert [dict(jobs[0].point)['weight'] for _, jobs in pairs] == [0.3, 2.4]


TUNED = Target('c', 'B', 'proxy_anchor+official')


def test_arm_is_searched_about_the_point_of_another_regime():
  found = {}
  with pytest.raises(UserError, match=r'official of regime a128.*not selected'):
    search.pending(TUNED, found)
  finish(OTHER, found)
  start, _ = search.chosen(OTHER, found)
  order = finish(TUNED, found)
  assert {(job.regime, job.arm) for job in order} == {('c', TUNED.arm)}
  rung, rest = SMALL.points, SMALL.kept * (folds.FOLDS - 1)
  # The best point of the first round has been run.
  assert rung + rest < len(order) < 2 * (rung + rest)
  points = [dict(job.point) for job in order[:rung]]
  assert points[0] == start | {'backbone_lr': 3e-5}
  for point in points[1:]:
    far = np.log(point['alpha'] / start['alpha']) / np.log(32)
    assert abs(far) <= SMALL.width + 1e-3 and point != points[0]
  # A rate that has no point yet is drawn from its whole range.
  rates = np.log10([point['backbone_lr'] for point in points[1:]])
  assert rates.min() < -5 and rates.max() > -4
  best = min(points, key=lambda p: abs(p['alpha'] - 8))
  chosen, _ = search.chosen(TUNED, found)
  assert abs(chosen['alpha'] - 8) <= abs(best['alpha'] - 8)
  jobs, _ = search.test_jobs(TUNED, found)
  assert len(jobs) == 5 and dict(jobs[0].point) == chosen


def test_regime_may_have_a_first_point_of_its_own():
  found = {}
  for arm, left in ('proxy_anchor+alone', set()), ('sup_con+alone', PROXIES):
    target = Target('b1', 'B', arm)
    first = dict(search.pending(target, found)[0].point)
    given = {k: v for k, v in target.search.first.items() if k not in left}
    assert first == spaces.defaults(arms.arm(arm).space) | given
    assert len(given) == 4 - len(left)


PROXIES = {'alpha', 'proxy_lr'}
LONGER = Target('b3', 'B', 'proxy_anchor+official')


def test_regime_without_a_search_has_the_point_of_another():
  found = {}
  for ask in search.pending, search.test_jobs:
    with pytest.raises(UserError, match=r'official of regime b1.*not selected'):
      ask(LONGER, found)
  shorter = LONGER.started
  finish(shorter, found)
  assert search.pending(LONGER, found) == []
  assert search.chosen(LONGER, found) == search.chosen(shorter, found)
  jobs, _ = search.test_jobs(LONGER, found)
  assert len(jobs) == 5 and {job.regime for job in jobs} == {'b3'}
  for job in jobs:
    found[job] = small_study.outcome(1.0)
  assert search.test_jobs(LONGER, found)[0] == jobs


def test_arms_of_a_base_loss_are_moved_alike_from_their_points():
  found = {}
  for target in ALONE, OTHER:
    finish(target, found)
  rounds = [
    next(search.rounds(target, found))[1] for target in (TUNED, TUNED.alone)
  ]
  rates = [[p['backbone_lr'] for p in points] for points in rounds]
  assert rates[0] == rates[1]
