import doctest

import numpy as np
import pytest

from experiments.study import intervals
from hier_jax import evaluation

RNG = np.random.default_rng(0)


def test_one_seed_has_the_standard_error_of_the_mean():
  x = RNG.normal(0.3, 1, (1, 400))
  found = intervals.paired_difference(np.zeros_like(x), x, np.full(400, 9))
  half = 1.96 * x.std() / 20
  assert found.mean == pytest.approx(x.mean())
  assert found.low == pytest.approx(x.mean() - half, abs=0.1 * half)
  assert found.high == pytest.approx(x.mean() + half, abs=0.1 * half)


def test_unequal_classes_are_clusters_of_queries():
  counts = RNG.integers(2, 11, 60)
  x = RNG.normal(size=(1, 60))
  found = intervals.paired_difference(np.zeros_like(x), x, counts)
  queries, clusters = np.repeat(x[0], counts), np.repeat(range(60), counts)
  other = evaluation.bootstrap_ci(
    queries, clusters=clusters, num_resamples=10_000
  )
  width = other.high - other.low
  assert found.mean == pytest.approx(other.mean)
  assert found.low == pytest.approx(other.low, abs=0.05 * width)
  assert found.high == pytest.approx(other.high, abs=0.05 * width)


def test_seeds_add_their_own_variance():
  # Only seeds differ: the bootstrap's variance is that of the mean of 5 draws.
  x = np.repeat(np.array([0.0, 1, 2, 3, 4])[:, None], 50, 1)
  found = intervals.paired_difference(np.zeros_like(x), x, np.ones(50))
  assert found.mean == 2
  assert found.high - found.low == pytest.approx(
    2 * 1.96 * np.sqrt(2 / 5), rel=0.1
  )


def test_classes_without_kin_do_not_count():
  x = RNG.normal(size=(3, 20))
  hole = x.copy()
  hole[:, 4] = np.nan
  ones = np.ones(20)
  found = intervals.paired_difference(np.zeros_like(x), hole, ones)
  assert found.mean == pytest.approx(np.delete(x, 4, 1).mean())


def test_p_values_are_uniform_where_nothing_differs():
  zero, ones = np.zeros((1, 40)), np.ones(40)
  p_values = [
    intervals.paired_difference(
      zero, RNG.normal(size=(1, 40)), ones, resamples=200
    ).p_value
    for _ in range(100)
  ]
  # A mean of 100 uniform numbers, 3.5 standard errors.
  assert np.mean(p_values) == pytest.approx(0.5, abs=0.1)


def test_shapes_must_agree():
  with pytest.raises(ValueError, match='expected'):
    intervals.paired_difference(np.zeros((1, 3)), np.zeros((1, 3)), np.ones(4))


def test_holm_by_hand():
  found = intervals.holm(np.array([0.01, 0.04, 0.03, 0.005]))
  np.testing.assert_allclose(found, [0.03, 0.06, 0.06, 0.02])
  np.testing.assert_allclose(intervals.holm(np.array([0.6, 0.7])), [1, 1])


def test_examples_hold():
  found = doctest.testmod(intervals)
  assert found.attempted and not found.failed
