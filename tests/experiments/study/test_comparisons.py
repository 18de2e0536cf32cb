import numpy as np
import pytest

from experiments.study import added, comparisons, folds, search
from tests.support import small_study

KIN = 'map_subgroup'


def lacks(*args, **more):
  lines = small_study.tested_lines(*args, **more)
  return comparisons.claim(lines, comparisons.compare(lines))


WINNER = {'alone': (0, 0), 'triplet': (0.5, 1), 'hier_star': (2, 3)}


def test_differences_are_of_the_lines():
  found = comparisons.compare(small_study.tested_lines(WINNER))
  told = {(c.arm, c.against, c.metric): c.difference.mean for c in found}
  star = 'sup_con+hier_star'
  wanted = {
    (star, 'sup_con+alone', 'map@r'): 2,
    (star, 'sup_con+alone', KIN): 3,
    (star, 'sup_con+triplet', 'map@r'): 1.5,
    (star, 'sup_con+triplet', KIN): 2,
    ('sup_con+triplet', 'sup_con+alone', 'map@r'): 0.5,
    ('sup_con+triplet', 'sup_con+alone', KIN): 1,
  }
  assert told == {k: pytest.approx(v, abs=0.2) for k, v in wanted.items()}
  assert {c.arm for c in found if c.claimed} == {star}
  assert all(c.seeds == 5 for c in found)


def test_levels_are_compared_with_their_control():
  gains = {
    'alone': (0, 0),
    'second_sup_con': (2, 0),
    'level_sup_con_own': (1, 2),
  }
  found = comparisons.compare(small_study.tested_lines(gains))
  told = {
    c.metric: c.difference.mean
    for c in found
    if c.against == 'sup_con+second_sup_con'
  }
  assert told == {
    'map@r': pytest.approx(-1, abs=0.2),
    KIN: pytest.approx(2, abs=0.2),
  }
  assert not any(c.claimed for c in found)


def test_controls_are_arms():
  for arm, controls in comparisons.CONTROLS.items():
    assert {arm, *controls} <= set(added.ADDED)


def test_claim_that_is_won():
  assert lacks(WINNER) == {('B', 'a128', 'sup_con+hier_star'): []}


@pytest.mark.parametrize(
  ('gains', 'trees', 'what'),
  [
    ({'hier_star': (0.6, 3)}, 0.1, 'map@r +0.'),
    ({'hier_star': (2, 1.4)}, 0.1, 'map_subgroup +1.'),
    ({'triplet': (3, 1)}, 0.1, 'over triplet'),
    ({}, -0.1, 'dp_subgroup'),
  ],
)
def test_claim_that_is_lost(gains, trees, what):
  (found,) = lacks(WINNER | gains, trees).values()
  assert any(what in lack for lack in found)


def test_claim_needs_the_triplet():
  gains = {k: v for k, v in WINNER.items() if k != 'triplet'}
  assert lacks(gains) == {
    ('B', 'a128', 'sup_con+hier_star'): ['a test of triplet']
  }


def test_memory_has_a_claim_of_its_own():
  gains = WINNER | {'hier_memory': (3, 4), 'hier_star': (0, 0)}
  where = 'B', 'a128', 'sup_con+hier_memory'
  assert lacks(gains)[where] == ['a test of triplet_memory']
  found = lacks(gains | {'triplet_memory': (0, 0)})
  assert not found[where] and found['B', 'a128', 'sup_con+hier_star']


def test_claim_of_another_set_is_its_own():
  lines = small_study.tested_lines(WINNER) | small_study.tested_lines(
    WINNER | {'hier_star': (0, 3)}, split='icons'
  )
  found = comparisons.claim(lines, comparisons.compare(lines))
  assert not found['B', 'a128', 'sup_con+hier_star']
  (lack,) = (
    x for x in found['icons', 'a128', 'sup_con+hier_star'] if 'alone' in x
  )
  assert lack.startswith('map@r')


def test_ablations_are_paired_by_fold_and_weight(monkeypatch):
  small_study.shrink(monkeypatch)
  target = search.Target('tiny', 'B', 'sup_con+star_barred')
  lines = {}
  gains = {1: 0.01, 8: -0.02}
  while jobs := search.pending(target, lines):
    for job in jobs:
      assert not comparisons.ablations(lines)
      score = 0.3 + 0.01 * job.fold if isinstance(job.fold, int) else 0.3
      if job.arm == target.arm:
        weight = dict(job.point)['weight']
        gain = gains[1] if weight == _star_weight(target, lines) else gains[8]
        score += gain
      lines[job] = small_study.outcome(score)
  once, eight = comparisons.ablations(lines)
  assert eight.weight == pytest.approx(8 * once.weight, rel=1e-3)
  for ablation, gain in ((once, 1), (eight, -2)):
    for values in ablation.differences.values():
      np.testing.assert_allclose(values, [gain] * folds.FOLDS, atol=1e-9)


def _star_weight(target, lines):
  point, _ = search.chosen(target.of('hier_star'), lines)
  return point['weight']


@pytest.mark.parametrize(
  ('place', 'height'),
  [
    ((0, 9), 2),  # Beside the highest, which retrieves better.
    ((2, 6), 1),  # Between two places.
    ((3, 3), 0),  # On the last.
    ((3.5, 9), None),  # Beyond.
  ],
)
def test_above_the_line(place, height):
  line = [(3, 3), (1, 7), (0.5, 2)]
  assert comparisons.above(place, line) == height


def test_split_a_is_exploration():
  assert lacks(WINNER, split='A') == {}
