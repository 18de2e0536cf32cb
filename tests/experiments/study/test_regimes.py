import pytest

from experiments.study import arms, regimes, search, spaces
from hier_jax.errors import UserError


def test_unknown_regime():
  with pytest.raises(UserError, match="'a64' is unknown; expected one of a128"):
    regimes.regime('a64')


def test_network_from_scratch_has_no_arm_that_needs_frozen_features():
  assert regimes.planned('a128') == arms.PLANNED
  left = set(regimes.planned('c')) - set(regimes.planned('b1'))
  assert {name.partition('+')[2] for name in left} == {'distillation'}
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


def test_trained_blocks_have_a_rate_that_no_other_regime_has():
  name = 'sup_con+hier_star'
  space = regimes.arm('c', name).space
  rate = space['backbone_lr']
  assert rate == spaces.log(1e-6, 1e-3, 3e-5)
  others = {k: v for k, v in space.items() if k != 'backbone_lr'}
  assert others == regimes.arm('a128', name).space == arms.arm(name).space


def test_arms_of_trained_networks_are_those_of_the_plan():
  planned = regimes.planned('c')
  assert len(planned) == 16 and set(planned) < set(regimes.planned('a128'))
  assert {name.partition('+')[0] for name in planned} == {
    'proxy_anchor',
    'sup_con',
  }
  claimed = 'alone', 'hier_star', 'triplet'
  for name in ('b1', 'b3', 'c'):
    assert regimes.planned(name)[:3] == tuple(
      f'proxy_anchor+{added}' for added in claimed
    )


def test_search_of_each_regime_is_that_of_the_plan():
  whole = regimes.Search(points=24, kept=5)
  found = {name: of.search for name, of in regimes.REGIMES.items()}
  assert found.pop('c') == regimes.Search(points=8, kept=2, start='a128')
  first = {'alpha': 16, 'lr': 0.02, 'proxy_lr': 0.06, 'weight_decay': 0.1}
  small = regimes.Search(points=8, kept=2, first=first)
  assert found.pop('b1') == small
  assert found.pop('b3') == regimes.Search(points=0, start='b1')
  assert set(map(repr, found.values())) == {repr(whole)}
  assert search.TEST_SEEDS == 5
