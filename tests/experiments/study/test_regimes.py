import pytest

from experiments.study import arms, regimes
from hier_jax.errors import UserError


def test_unknown_regime():
  with pytest.raises(UserError, match="'a64' is unknown; expected one of a128"):
    regimes.regime('a64')


def test_network_from_scratch_has_no_arm_that_needs_frozen_features():
  assert regimes.planned('a128') == arms.PLANNED
  left = set(arms.PLANNED) - set(regimes.planned('b1'))
  assert {name.partition('+')[2] for name in left} == {
    'distillation',
    'happier',
    'hpl',
    'level_sup_con',
  }
  regimes.check('a128', 'sup_con+happier')
  for name in regimes.planned('b1'):
    regimes.check('b1', name)
  with pytest.raises(UserError, match=r'sup_con\+happier is told of frozen'):
    regimes.check('b1', 'sup_con+happier')


def test_budgets_of_a_network_are_those_of_the_plan():
  assert [regimes.regime(name).epochs for name in ('b1', 'b3')] == [8, 24]


def test_run_on_icons_has_as_many_steps_as_one_on_emoji():
  assert regimes.regime('a128').budget('B') == 30
  assert regimes.regime('a128').budget('icons') == 8
  assert regimes.regime('d').budget('icons') == regimes.regime('d').budget('B')
