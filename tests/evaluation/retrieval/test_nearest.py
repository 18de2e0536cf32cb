"""The nearest rows, and distances of inner products."""

import numpy as np
import pytest

from hier_jax import poincare
from hier_jax.errors import UserError
from hier_jax.evaluation import Lift, nearest
from hier_jax.evaluation.retrieval import nearest as module


def points(n, c, seed=0):
  x = np.random.default_rng(seed).standard_normal((n, 6))
  radius = np.linalg.norm(x, axis=1, keepdims=True)
  return x if not c else x / radius * np.tanh(radius / 3) / c**0.5


def distances(x, y, c):
  """By their definitions."""
  if c is None:
    unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)
    return 1 - unit(x) @ unit(y).T
  far = np.linalg.norm(x[:, None] - y, axis=-1)
  if c == 0:
    return far
  gap = lambda a: 1 - c * np.sum(a * a, -1)
  inner = 1 + 2 * c * far**2 / (gap(x)[:, None] * gap(y))
  return np.arccosh(inner) / c**0.5


@pytest.mark.parametrize('c', [None, 0, 0.1, 2.0])
def test_the_nearest_rows_and_their_distances(c, monkeypatch):
  monkeypatch.setattr(module, '_TILE', 7)
  x, y = points(5, c), points(40, c, seed=1)
  far, rows = nearest(x, y, 9, c=c)
  want = distances(x, y, c)
  np.testing.assert_array_equal(rows, np.argsort(want, 1)[:, :9])
  np.testing.assert_allclose(far, np.sort(want, 1)[:, :9], rtol=1e-9)


def test_few_rows_ties_and_itself():
  y = np.array([[0.3, 0.1], [0.1, 0.2], [0.3, 0.1]])
  far, rows = nearest(y[:1], y, 10, c=1.0)
  assert rows.tolist() == [[0, 2, 1]]
  assert far[0, 0] == far[0, 1] < 1e-7


def test_distances_are_those_of_poincare():
  x, y = points(3, 0.5), points(8, 0.5, seed=1)
  lift = Lift.about(y, c=0.5)
  got = lift.distances(x, lift.queries(x) @ lift.gallery(y).T)
  want = poincare.dist(np.float32(x)[:, None], np.float32(y)[None], c=0.5)
  np.testing.assert_allclose(got, want, rtol=1e-4)


def test_distances_of_the_hyperboloid():
  space = points(6, 0)
  c = 0.5
  x = np.hstack([np.sqrt(1 / c + np.sum(space**2, 1, keepdims=True)), space])
  lift = Lift.about(x, c=c, distance='lorentz')
  product = lift.queries(x[:2], np.float64) @ lift.gallery(x, np.float64).T
  inner = x[:2, :1] * x[:, 0] - x[:2, 1:] @ x[:, 1:].T
  want = np.arccosh(np.maximum(c * inner, 1)) / c**0.5
  got = lift.distances(x[:2], product)
  np.testing.assert_allclose(got, want, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize(
  ('x', 'k', 'message'),
  [
    ([[0.0]], 1, '1 dimensions and `gallery` 2'),
    ([[0.0, 2.0]], 1, 'outside the ball'),
    ([[0.0, np.nan]], 1, 'NaN'),
    ([[0.0, 0.0]], 0, '`k` is 0'),
  ],
)
def test_what_has_no_nearest_rows(x, k, message):
  with pytest.raises(UserError, match=message):
    nearest(x, [[0.1, 0.1]], k, c=1.0)
