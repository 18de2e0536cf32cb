"""Intervals and paired tests against their theory and small enumerations."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from hier_jax.errors import UserError
from hier_jax.evaluation.statistics import bootstrap_ci, paired_test, wilson

NAN = float('nan')


@pytest.mark.parametrize('method', ['percentile', 'bca'])
def test_interval_is_near_the_normal_one(method):
  x = np.random.default_rng(0).normal(3, 2, 400)
  found = bootstrap_ci(x, method=method, num_resamples=9_999)
  assert found.mean == pytest.approx(x.mean(), rel=1e-12)
  assert found.num_values == 400
  error = x.std(ddof=1) / math.sqrt(400)
  for end, sign in ((found.low, -1), (found.high, 1)):
    assert end == pytest.approx(x.mean() + sign * 1.96 * error, abs=0.1 * error)
  narrow = bootstrap_ci(x, method=method, confidence=0.5)
  assert narrow.high - narrow.low == pytest.approx(2 * 0.6745 * error, rel=0.1)


def test_interval_of_few_values_is_that_of_all_resamples():
  x = np.array([0.0, 1.0, 5.0])
  means = [np.mean(draw) for draw in itertools.product(x, repeat=3)]
  found = bootstrap_ci(x, confidence=0.8, num_resamples=50_000)
  # 1 of 27 resamples has mean 0, 3 of 27 have mean 1/3, and so on.
  assert found.low == pytest.approx(np.quantile(means, 0.1), abs=1e-9)
  assert found.high == pytest.approx(np.quantile(means, 0.9), abs=1e-9)


@pytest.mark.parametrize('method', ['percentile', 'bca'])
def test_clusters_are_drawn_whole(method):
  rng = np.random.default_rng(1)
  x = rng.normal(size=80)
  once = bootstrap_ci(x, method=method)
  # Repeating each value tells nothing new, and clusters know it.
  many, clusters = np.repeat(x, 9), np.repeat(np.arange(80), 9)
  order = rng.permutation(720)
  found = bootstrap_ci(many[order], clusters=clusters[order], method=method)
  assert found[:3] == pytest.approx(once[:3], rel=1e-9)
  assert found.num_values == 720
  alone = bootstrap_ci(many, method=method)
  assert alone.high - alone.low < 0.5 * (once.high - once.low)


def test_clusters_of_unequal_size_weigh_by_their_values():
  x = np.array([1.0, 1.0, 1.0, 0.0])
  found = bootstrap_ci(x, clusters=list('aaab'))
  # A quarter of the resamples is a a, a quarter b b: 1, 3/4 and 0.
  assert found == (0.75, 0, 1, 4)


def test_values_that_do_not_count():
  x = np.random.default_rng(2).normal(size=50)
  y = np.full(70, NAN)
  y[::2][:35], y[1::2][:15] = x[:35], x[35:]
  found = bootstrap_ci(y)
  assert found.mean == pytest.approx(x.mean())
  assert found.num_values == 50
  # Whole clusters may not count.
  clusters = np.arange(70) // 7
  y[clusters == 3] = NAN
  found = bootstrap_ci(y, clusters=clusters)
  assert found.mean == pytest.approx(np.nanmean(y))


def test_same_seed_same_interval():
  x = np.random.default_rng(3).uniform(size=60)
  assert bootstrap_ci(x) == bootstrap_ci(x) != bootstrap_ci(x, seed=1)
  y = x + np.random.default_rng(4).normal(size=60)
  assert paired_test(x, y) == paired_test(x, y) != paired_test(x, y, seed=1)


@pytest.mark.parametrize('method', ['percentile', 'bca'])
def test_all_values_the_same(method):
  found = bootstrap_ci([0.5] * 7, method=method)
  assert found == (0.5, 0.5, 0.5, 7)
  assert bootstrap_ci([0.25], method=method) == (0.25, 0.25, 0.25, 1)


def all_sign_flips(x):
  """Two-sided p of the mean among all sign flips."""
  total = abs(np.sum(x))
  flips = itertools.product([-1, 1], repeat=len(x))
  return np.mean([abs(np.dot(s, x)) >= total - 1e-12 for s in flips])


def test_p_of_few_queries_is_that_of_all_sign_flips():
  rng = np.random.default_rng(5)
  for n in (1, 4, 10):
    first = rng.uniform(size=n)
    second = first + rng.normal(0.3, 0.5, n)
    found = paired_test(first, second)
    assert found.p_value == pytest.approx(all_sign_flips(second - first))
    assert found.difference == pytest.approx(np.mean(second - first))
    assert found.low <= found.difference <= found.high


def test_p_of_clusters_flips_them_whole():
  rng = np.random.default_rng(6)
  clusters = rng.integers(0, 8, 60)
  first, second = rng.normal(size=(2, 60))
  sums = [np.sum((second - first)[clusters == k]) for k in range(8)]
  found = paired_test(first, second, clusters=clusters)
  assert found.p_value == pytest.approx(all_sign_flips(sums))


def test_many_queries():
  rng = np.random.default_rng(7)
  first = rng.normal(size=500)
  better = paired_test(first, first + rng.normal(0.3, 1, 500))
  assert better.p_value < 0.01
  assert 0 < better.low < better.difference < better.high
  error = 1 / math.sqrt(500)
  assert better.high - better.low == pytest.approx(2 * 1.96 * error, rel=0.15)
  worse = paired_test(first + 0.3, first + rng.normal(0, 1, 500))
  assert worse.p_value < 0.01 and worse.high < 0
  alike = paired_test(first, first + rng.normal(0, 1, 500))
  assert alike.p_value > 0.05 and alike.low < 0 < alike.high


def test_the_other_way_round():
  rng = np.random.default_rng(8)
  first, second = rng.integers(0, 2, (2, 80)).astype(float)
  one, other = paired_test(first, second), paired_test(second, first)
  assert one.difference == -other.difference
  assert one.p_value == other.p_value
  assert (one.low, one.high) == pytest.approx((-other.high, -other.low))


def test_a_run_and_itself():
  x = np.random.default_rng(9).uniform(size=30)
  x[3] = NAN
  assert paired_test(x, x) == (0, 0, 0, 1, 29)


@pytest.mark.parametrize(
  ('call', 'message'),
  [
    (lambda: bootstrap_ci([NAN, NAN]), 'none of the 2 values counts'),
    (lambda: bootstrap_ci([]), 'none of the 0 values counts'),
    (lambda: bootstrap_ci([[1.0]]), r'`values` has shape \(1, 1\)'),
    (lambda: bootstrap_ci([1, np.inf, 2]), 'Inf in 1 of 3 rows, the first 1'),
    (lambda: bootstrap_ci([1, 2], clusters=[0]), r'`clusters` has shape \(1,'),
    (lambda: bootstrap_ci([1, 2], clusters=[0, 0]), 'holds one cluster'),
    (lambda: bootstrap_ci([1, 2], confidence=95), '`confidence` is 95'),
    (lambda: bootstrap_ci([1, 2], confidence='a'), "`confidence` is 'a'"),
    (lambda: bootstrap_ci([1, 2], seed=1.5), '`seed` is 1.5; expected an int'),
    (lambda: paired_test([1, 2, 3], [2, 3, 5], seed=-1), '`seed` is -1'),
    (lambda: wilson(None, 5), '`mean` is None'),
    (lambda: bootstrap_ci([1, 2], num_resamples=0), '`num_resamples` is 0'),
    (lambda: bootstrap_ci([1, 2], method='t'), "`method` is 't'"),
    (lambda: paired_test([1, 2], [1]), '`first` has 2 values and `second` 1'),
    (
      lambda: paired_test([1, NAN, 2], [1, 2, NAN]),
      '2 of 3 queries count .* in one run only, the first at 1',
    ),
  ],
)
def test_bad_input(call, message):
  with pytest.raises(UserError, match=message):
    call()


@pytest.mark.parametrize(
  ('hits', 'count'), [(0, 5), (3, 10), (50, 100), (999, 1000), (7, 7)]
)
def test_wilson_is_that_of_a_proportion(hits, count):
  found = wilson(hits / count, count, confidence=0.9)
  wanted = stats.binomtest(hits, count).proportion_ci(0.9, method='wilson')
  np.testing.assert_allclose((found.low, found.high), wanted, atol=1e-12)
  assert found.mean == hits / count and found.num_values == count


@pytest.mark.parametrize(
  ('mean', 'count'), [(1.5, 3), (float('nan'), 3), (0.5, 0)]
)
def test_wilson_of_what_is_no_mean(mean, count):
  with pytest.raises(UserError, match='expected'):
    wilson(mean, count)
