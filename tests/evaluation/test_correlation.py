"""Rank correlations and the pairs that they are taken over."""

import itertools
import math

import numpy as np
import pytest

from hier_jax.evaluation import _correlation
from tests.support import correlations


def test_pairs():
  rng = np.random.default_rng(6)
  i, j = _correlation.pairs(5, 10, rng)
  expected = list(itertools.combinations(range(5), 2))
  assert list(zip(i, j, strict=True)) == expected
  i, j = _correlation.pairs(5, 9, rng)
  assert len(i) == 9
  i, j = _correlation.pairs(50, 1000, rng)
  assert (i < j).all() and i.min() == 0 and j.max() == 49


def test_spearman():
  rng = np.random.default_rng(7)
  x, y = rng.integers(0, 5, (2, 40))
  expected = correlations.spearman(x, y)
  assert _correlation.spearman(x, y) == pytest.approx(expected)
  assert math.isnan(_correlation.spearman(x, np.ones(40)))
  assert math.isnan(_correlation.spearman(x[:1], y[:1]))


def test_kendall():
  rng = np.random.default_rng(8)
  x, y = rng.integers(0, 5, (2, 30))
  expected = correlations.kendall(x, y)
  assert _correlation.kendall(x, y) == pytest.approx(expected)
  assert math.isnan(_correlation.kendall(x[:1], y[:1]))
