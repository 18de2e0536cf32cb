"""Smooth-AP and Recall@k by hand and beside the true scores of retrieval."""

import numpy as np
import pytest

from hier_jax import losses
from tests.support.ranking_losses import (
  case,
  circle,
  oracle,
  score_table,
  true_ap,
)


def test_losses_of_three_rows_by_hand():
  # The rows at 0 and 50 degrees are each other's item, second to that at 20.
  z, labels = circle(0, 20, 50), np.array([0, 1, 0])
  np.testing.assert_allclose(losses.smooth_ap(z, labels), 0.5, rtol=1e-6)
  recall = losses.recall_at_k(z, labels, ks=(1, 2))
  half = (1 / (1 + np.exp(1.0)) + 0.5) / 2
  np.testing.assert_allclose(recall, 1 - half, rtol=1e-6)


@pytest.mark.parametrize(
  ('loss', 'settings'),
  [
    (losses.smooth_ap, {}),
    (losses.recall_at_k, {'rank_temperature': 0.01, 'ks': (4,)}),
  ],
)
def test_a_perfect_ranking_has_no_loss(loss, settings):
  z = circle(0, 1, 2, 90, 91, 92, 230, 231, 232)
  # Nothing but the rounding of means of precisions, all 1.
  assert abs(loss(z, np.repeat([0, 1, 2], 3), **settings)) <= 1e-6


def true_recall(s, level, ks=(1, 2, 4, 8, 16), **_):
  hit = level[np.argsort(-s)] > 0
  # The item at rank k counts by half.
  found = [hit[: k - 1].sum() + 0.5 * hit[k - 1] for k in ks]
  return 1 - np.mean(np.array(found) / np.minimum(ks, hit.sum()))


def test_cold_losses_are_those_of_the_true_ranking():
  z, labels = case('smooth_ap', n=16)
  # No two scores of a query are closer than 1e-4, a hundred temperatures.
  for i in range(16):
    assert np.diff(np.sort(score_table(z[i : i + 1], z, None)[0])).min() > 1e-4
  got = losses.smooth_ap(z, labels, temperature=1e-6)
  want = oracle('smooth_ap', z, labels, of=true_ap)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  got = losses.recall_at_k(
    z, labels, ks=(1, 2, 5), temperature=1e-6, rank_temperature=1e-3
  )
  want = oracle('recall_at_k', z, labels, of=true_recall, ks=(1, 2, 5))
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_recalls_stay_below_one():
  # 30 items at one rank of 15.5 would be 18 found within the first 16.
  z, labels = np.ones((31, 2), np.float32), np.zeros(31, int)
  assert losses.recall_at_k(z, labels, ks=(16,), rank_temperature=1.0) == 0


def test_bad_input_is_named():
  z, labels = case('recall_at_k')
  for ks in ((), (0, 1)):
    with pytest.raises(ValueError, match='ks is'):
      losses.recall_at_k(z, labels, ks=ks)
  with pytest.raises(ValueError, match='rank_temperature has shape'):
    losses.recall_at_k(z, labels, rank_temperature=(1.0, 2.0))
