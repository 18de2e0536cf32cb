"""Bounds of average precision by hand and beside the true scores."""

import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import losses
from hier_jax.losses import _memory as memory
from tests.support.ranking_losses import (
  case,
  circle,
  evaluate,
  oracle,
  true_ap,
)


def test_losses_of_three_rows_by_hand():
  # The rows at 0 and 50 degrees are each other's item, second to that at 20.
  z, labels = circle(0, 20, 50), np.array([0, 1, 0])
  near, nearer, far = np.cos(np.deg2rad([20, 30, 50]))
  flat = 1 / (1 + np.exp(-5.0)) + 0.5
  ranks = [2 + 100 * (s - far - 0.05) + flat - 1 for s in (near, nearer)]
  want = 1 - np.mean(1 / np.array(ranks))
  np.testing.assert_allclose(losses.sup_ap(z, labels), want, rtol=1e-6)
  calibration = 0.9 - far + np.mean([near - 0.6, nearer - 0.6])
  got = losses.roadmap(z, labels, weight=0.25)
  np.testing.assert_allclose(got, 0.75 * want + 0.25 * calibration, rtol=1e-6)


def test_hierarchical_loss_of_four_rows_by_hand():
  # Of the row at 0 degrees: that at 60 shares both labels, those at 10 and 30
  # the first. Only that row is a query, the others being of a memory.
  z, labels = circle(0, 10, 30, 60), np.array([[0, 0], [0, 1], [0, 2], [0, 0]])
  state = memory.Memory(*map(jnp.asarray, (z[1:], labels[1:], [True] * 3, 0)))
  s = np.cos(np.deg2rad([10, 30, 60]))
  flat = 1 / (1 + np.exp(-5.0)) + 0.5
  above = 100 * (s[:2] - s[2] - 0.05) + flat
  # Relevance 1/4, 1/4 and 1; both before the last are of lower level than it.
  want = 1 - (0.25 + 2 * 0.25 / 2 + 1.5 / (1 + sum(above))) / 1.5
  got = losses.hap(z[:1], labels[:1], memory=state)
  np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize(
  'loss', [losses.sup_ap, losses.roadmap, losses.hap], ids=lambda f: f.__name__
)
def test_a_perfect_ranking_has_no_loss(loss):
  # The first two classes are closest, and of one class above in hap.
  z = circle(0, 1, 2, 90, 91, 92, 230, 231, 232)
  labels = np.repeat([0, 1, 2], 3)
  if loss is losses.hap:
    labels = np.stack([labels // 2, labels], 1)
  # Nothing but the rounding of means of precisions, all 1.
  assert abs(loss(z, labels)) <= 1e-6


def true_hap(s, level, alpha=1.0, depth=1, **_):
  rel = np.zeros(len(s))
  for i in np.flatnonzero(level):
    rel[i] = (level[i] / depth) ** alpha / np.sum(level == level[i])
  rel = rel[np.argsort(-s)]
  precision = [
    np.minimum(rel[: k + 1], rel[k]).sum() / (k + 1) for k in range(len(s))
  ]
  return 1 - np.sum(np.array(precision)[rel > 0]) / rel.sum()


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize(
  ('name', 'true'), [('sup_ap', true_ap), ('hap', true_hap)]
)
def test_bounded_losses_are_upper_bounds(name, true, seed):
  z, labels = case(name, seed=seed)
  least = oracle(name, z, labels, of=true)
  for settings in ({}, {'temperature': 0.1}, {'slope': 0.0, 'delta': 0.0}):
    assert evaluate(name, z, labels, **settings)[0] >= least - 1e-6


def test_hierarchical_loss_of_one_level_is_sup_ap():
  z, labels = case('sup_ap')
  sup_ap, _, _ = evaluate('sup_ap', z, labels)
  for alpha in (0.5, 2.0):
    hap, _, _ = evaluate('hap', z, labels[:, None], alpha=alpha)
    np.testing.assert_allclose(hap, sup_ap, rtol=1e-6)


def test_labels_may_be_numbered_anew_below_each_parent():
  z, fine = case('sup_ap', classes=8)
  labels = np.stack([fine // 4, fine // 2, fine], 1)
  anew = np.stack([fine // 4, fine // 2 % 2, fine % 2], 1)
  want = oracle('hap', z, labels)
  for numbers in (labels, anew):
    got, _, _ = evaluate('hap', z, numbers)
    np.testing.assert_allclose(got, want, rtol=1e-5)


def test_weights_of_roadmap_are_those_of_its_parts():
  z, labels = case('roadmap')
  rank, both, calibration = (
    evaluate('roadmap', z, labels, weight=w)[0] for w in (0.0, 0.1, 1.0)
  )
  sup_ap, _, _ = evaluate('sup_ap', z, labels)
  np.testing.assert_allclose(rank, sup_ap, rtol=1e-6)
  np.testing.assert_allclose(both, 0.9 * rank + 0.1 * calibration, rtol=1e-6)


def test_bad_input_is_named():
  z, labels = case('sup_ap')
  with pytest.raises(ValueError, match='margins must be given'):
    losses.roadmap(z, labels, c=0.5)
  with pytest.raises(ValueError, match='rank'):
    losses.hap(z, labels)
  with pytest.raises(ValueError, match='rank'):
    losses.sup_ap(z, labels[:, None])
