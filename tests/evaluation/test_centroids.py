"""Centroids of classes against the formulas, class by class."""

import itertools
import math
import tracemalloc

import numpy as np
import pytest

from hier_jax import poincare
from hier_jax.errors import UserError
from hier_jax.evaluation import class_centroids, linkage_tree
from tests.support.planted_trees import in_ball
from tests.support.taxonomic_data import (
  SPACES,
  centroid,
  distance_of,
  tree_like,
)

X = np.float32([[0.1, 0.2], [0.3, 0.1], [0.2, 0.2]])


def points(rng, n, d, c):
  """Points to 0.99 of the radius of the ball, or 3."""
  x = rng.normal(size=(n, d))
  x /= np.linalg.norm(x, axis=1, keepdims=True)
  radius = 1 / math.sqrt(c) if c else 3
  return 0.99 * radius * rng.uniform(size=(n, 1)) ** 0.3 * x


@pytest.mark.parametrize('c', [None, 0.0, 0.3])
def test_centroids_by_the_formula(c):
  rng = np.random.default_rng(3)
  x, codes = points(rng, 12, 4, c), np.repeat([2, 0, 1], [5, 6, 1])
  found, classes = class_centroids(x, codes, c=c)
  np.testing.assert_array_equal(classes, [0, 1, 2])
  for group, center in enumerate(found):
    mine = x[codes == group]
    if c is None:
      mine = mine / np.linalg.norm(mine, axis=1, keepdims=True)
    if c:
      # The mean on the hyperboloid, seen from (-1, 0).
      y = math.sqrt(c) * mine
      gap = 1 - np.sum(y**2, 1)
      time, space = np.mean((2 - gap) / gap), np.mean(2 * y / gap[:, None], 0)
      scale = math.sqrt(time**2 - space @ space)
      expected = space / (time + scale) / math.sqrt(c)
    else:
      expected = mine.mean(0)
    np.testing.assert_allclose(center, expected, rtol=1e-9, atol=1e-14)


def test_centroid_of_one_point_is_the_point():
  x = np.array([[0.6, 0.8]]) * (1 - 1e-13)
  found = class_centroids(x, [0], c=1.0)[0]
  np.testing.assert_allclose(found, x, rtol=1e-15)


@pytest.mark.parametrize('c', [None, 0.0, 0.7])
def test_class_centroids(c):
  rng = np.random.default_rng(4)
  x, labels = in_ball(rng, 40, 5, c or 1), rng.choice(list('dbac'), 40)
  centroids, classes = class_centroids(np.float32(x), labels, c=c)
  assert classes.tolist() == list('abcd') and centroids.dtype == np.float64
  for name, found in zip(classes, centroids, strict=True):
    mine = np.float32(x[labels == name])
    if c:
      expected = poincare.midpoint(mine, c=c)
    elif c == 0:
      expected = np.mean(mine, 0)
    else:
      expected = np.mean(mine / np.linalg.norm(mine, axis=1)[:, None], 0)
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=1e-6)
  tree = linkage_tree(centroids, c=c, names=classes)
  assert tree.names == ('a', 'b', 'c', 'd')


@pytest.mark.parametrize(
  ('labels', 'message'),
  [([1, 2], r'`labels` has shape \(2,\)'), ([1, np.nan, 2], 'lacks the label')],
)
def test_class_centroids_bad_input(labels, message):
  with pytest.raises(UserError, match=message):
    class_centroids(X, labels)


@pytest.mark.parametrize(('distance', 'c'), SPACES)
def test_tree_of_class_centroids(distance, c):
  x, y = tree_like(np.random.default_rng(2), 50)
  y = np.where(y == 3, 2, y)
  means, classes = class_centroids(x, y, c=c)
  found = linkage_tree(means, c=c, names=classes)
  assert found.names == tuple(str(k) for k in range(9) if k != 3)
  # Average linkage the slow way.
  centroids = [centroid(x[y == int(k)], distance, c) for k in found.names]
  far = np.array(
    [[distance_of(a, b, distance, c) for b in centroids] for a in centroids]
  )
  clusters = {i: [i] for i in range(8)}
  for node in range(8, 15):
    between = {
      (a, b): np.mean(far[np.ix_(clusters[a], clusters[b])])
      for a, b in itertools.combinations(clusters, 2)
    }
    a, b = min(between, key=between.get)
    assert found.parent[a] == found.parent[b] == node
    assert found.height[node] == pytest.approx(between[a, b])
    clusters[node] = clusters.pop(a) + clusters.pop(b)
  assert found.parent[14] == -1
  assert (found.height[:8] == 0).all()


@pytest.mark.parametrize('c', [None, 0.5])
def test_memory_of_class_centroids_is_of_a_few_rows(c):
  rng = np.random.default_rng(5)
  x = rng.uniform(-0.1, 0.1, size=(40_000, 32)).astype(np.float32)
  y = rng.integers(0, 50, len(x))
  tracemalloc.start()
  class_centroids(x, y, c=c)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  # Less than the rows themselves, and so without a copy in float64.
  assert peak < x.nbytes
