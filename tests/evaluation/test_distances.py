"""Distances and centroids against the formulas, pair by pair."""

import math

import numpy as np
import pytest

from hier_jax.evaluation import _distances

SPACES = [('cosine', None), ('euclidean', 0.0), ('hyperbolic', 0.3)]


def points(rng, n, d, c):
  """Points to 0.99 of the radius of the ball, or 3."""
  x = rng.normal(size=(n, d))
  x /= np.linalg.norm(x, axis=1, keepdims=True)
  radius = 1 / math.sqrt(c) if c else 3
  return 0.99 * radius * rng.uniform(size=(n, 1)) ** 0.3 * x


def distance_of(x, y, distance, c):
  if distance == 'cosine':
    return 1 - x @ y / math.sqrt((x @ x) * (y @ y))
  square = (x - y) @ (x - y)
  if distance == 'euclidean':
    return math.sqrt(square)
  ratio = square / ((1 - c * (x @ x)) * (1 - c * (y @ y)))
  return math.acosh(1 + 2 * c * ratio) / math.sqrt(c)


@pytest.mark.parametrize(('distance', 'c'), SPACES)
def test_distances(distance, c):
  rng = np.random.default_rng(0)
  x, y = points(rng, 7, 5, c), points(rng, 9, 5, c)
  expected = [[distance_of(a, b, distance, c) for b in y] for a in x]
  found = _distances.Gallery(y, distance, c).distances(x)
  np.testing.assert_allclose(found, expected, rtol=1e-12)
  found = _distances.paired(x, y[:7], distance, c)
  np.testing.assert_allclose(found, np.diagonal(expected), rtol=1e-12)


@pytest.mark.parametrize(('distance', 'c'), SPACES)
def test_identical_rows_are_equally_far(distance, c):
  rng = np.random.default_rng(1)
  y = points(rng, 5, 33, c)[np.arange(103) % 5]
  for block in (1, 3):
    far = _distances.Gallery(y, distance, c).distances(
      points(rng, block, 33, c)
    )
    np.testing.assert_array_equal(far, far[:, np.arange(103) % 5])


def test_crowded_far_from_the_origin():
  rng = np.random.default_rng(2)
  x = 100 + 1e-6 * rng.normal(size=(6, 4))
  expected = [[math.dist(a, b) for b in x] for a in x]
  found = _distances.Gallery(x, 'euclidean', 0).distances(x)
  np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-13)


def test_zero_rows():
  x = np.array([[0.0, 0.0], [3.0, 4.0]])
  far = _distances.Gallery(x, 'cosine', 0).distances(x)
  np.testing.assert_allclose(far, [[1, 1], [1, 0]], atol=1e-15)


def test_hyperboloid_is_taken_to_the_ball():
  rng = np.random.default_rng(4)
  space = rng.normal(size=(6, 3)) * [[0], [1e-3], [1], [10], [1e3], [1e4]]
  c = 0.3
  time = np.sqrt(1 / c + np.sum(space**2, 1, keepdims=True))
  found, distance = _distances.to_ball(np.hstack([time, space]), 'lorentz', c)
  assert distance == 'hyperbolic'
  far = _distances.Gallery(found, distance, c).distances(found)
  inner = time * time.T - space @ space.T
  expected = np.arccosh(np.maximum(c * inner, 1)) / np.sqrt(c)
  # That formula is of no use between a point and itself.
  np.fill_diagonal(expected, 0)
  np.testing.assert_allclose(far, expected, rtol=1e-6, atol=1e-6)
