"""Inner products that rank as a distance does, and the points they take."""

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation import lift, per_query
from hier_jax.evaluation.retrieval import _spaces
from tests.support.numpy_rankings import (
  DISTANCES,
  assert_matches,
  oracle,
  sample,
)


@pytest.mark.parametrize('distance', DISTANCES)
@pytest.mark.parametrize('c', [0.1, 1.0, 4.0])
def test_lift_orders_as_the_distance(distance, c):
  c = c if distance in ('hyperbolic', 'lorentz') else None
  rng = np.random.default_rng(5)
  x, gallery = (sample(rng, distance, n, 5, c) for n in (6, 40))
  q, g = lift(x, gallery, c=c, distance=distance)
  assert q.dtype == g.dtype == np.float32
  columns = {'cosine': 5, 'euclidean': 6, 'hyperbolic': 7, 'lorentz': 7}
  assert q.shape[1] == g.shape[1] == columns[distance]
  np.testing.assert_array_equal(
    np.argsort(np.float64(q) @ np.float64(g).T),
    np.argsort(DISTANCES[distance](x, gallery, c)),
  )


def test_lift_takes_its_metric_from_c():
  rng = np.random.default_rng(6)
  x = sample(rng, 'hyperbolic', 9, 3, 1.0)
  named = {None: 'cosine', 0.0: 'euclidean', 0.5: 'hyperbolic'}
  for c, distance in named.items():
    for ours, named in zip(
      lift(x, x, c=c), lift(x, x, c=c, distance=distance), strict=True
    ):
      np.testing.assert_array_equal(ours, named)


def test_lorentz_ranks_as_the_ball():
  rng = np.random.default_rng(7)
  c = 0.7
  x = np.float64(sample(rng, 'hyperbolic', 90, 6, c))
  y = rng.integers(0, 9, 90)
  gap = 1 - c * np.sum(x * x, 1, keepdims=True)
  time = (2 - gap) / gap / np.sqrt(c)
  ball = per_query(x, y, c=c)
  flat = per_query(np.hstack([time, 2 * x / gap]), y, c=c, distance='lorentz')
  np.testing.assert_array_equal(flat.rank, ball.rank)
  np.testing.assert_array_equal(flat.full_ap, ball.full_ap)


@pytest.mark.parametrize('distance', DISTANCES)
def test_rows_taken_in_parts(distance, monkeypatch):
  rng = np.random.default_rng(8)
  c = 1.0 if distance in ('hyperbolic', 'lorentz') else None
  x = sample(rng, distance, 50, 4, c)
  whole = lift(x, x[:20], c=c, distance=distance)
  monkeypatch.setattr(_spaces, 'ROWS', 7)
  for part, all_at_once in zip(
    lift(x, x[:20], c=c, distance=distance), whole, strict=True
  ):
    np.testing.assert_allclose(part, all_at_once, rtol=1e-6, atol=1e-7)
  x[[3, 30, 41]] = np.nan
  with pytest.raises(UserError, match=r'3 of 50 rows \(row 3, 30, 41\)'):
    _spaces.points('x', x, distance, c)


@pytest.mark.parametrize('scale', [1e-25, 1e25, 2.0**-1040, 1.5 * 2.0**1020])
def test_euclidean_of_any_scale(scale):
  rng = np.random.default_rng(9)
  x, y = scale * rng.normal(size=(60, 3)), rng.integers(0, 6, 60)
  expected = oracle(
    DISTANCES['euclidean'](x / scale, x / scale), y, y, np.arange(60)
  )
  assert_matches(per_query(x, y, distance='euclidean'), expected)


def test_hyperboloid_far_out():
  # The weight of such a point does not fit float32. Of two of them in different
  # directions, points about the middle are nearer to each.
  x = np.array([[0.0, 1.0], [1e45, 1e45], [2.0, 0.0], [2e45, 1e45]])
  time = np.sqrt(1 + np.sum(x * x, 1, keepdims=True))
  result = per_query(
    np.hstack([time, x]), [0, 1, 0, 1], c=1.0, distance='lorentz'
  )
  np.testing.assert_array_equal(result.rank, [1, 3, 1, 3])
