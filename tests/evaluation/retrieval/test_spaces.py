"""Metrics, the curvatures that go with them, and the points they take."""

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation.retrieval import _spaces
from tests.support.numpy_rankings import sample


@pytest.mark.parametrize(
  ('distance', 'c', 'expected'),
  [
    (None, None, ('cosine', None)),
    (None, 0, ('euclidean', 0.0)),
    (None, 0.3, ('hyperbolic', 0.3)),
    ('cosine', None, ('cosine', None)),
    ('euclidean', None, ('euclidean', 0.0)),
    ('euclidean', 0.0, ('euclidean', 0.0)),
    ('hyperbolic', 2, ('hyperbolic', 2.0)),
    ('lorentz', 2, ('lorentz', 2.0)),
  ],
)
def test_distance_and_c_go_together(distance, c, expected):
  assert _spaces.resolve(distance, c) == expected
  text = 'cosine' if expected[1] is None else f'{expected[0]}, c = {c or 0:g}'
  assert _spaces.described(distance, c) == text


def test_points_off_the_hyperboloid_are_counted():
  rng = np.random.default_rng(10)
  x = sample(rng, 'lorentz', 20, 3, 2.0)
  kept = _spaces.points('x', np.float32(x), 'lorentz', 2.0)
  assert kept.dtype == np.float32
  x[[4, 9], 0] *= -1
  with pytest.raises(
    UserError,
    match=r'off the hyperboloid .*c = 2.0.* 2 of 20 rows \(row 4, 9\)',
  ):
    _spaces.points('x', x, 'lorentz', 2.0)
