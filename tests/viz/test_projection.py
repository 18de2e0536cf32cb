"""The disk shows points of the plane as they are, others with what is lost."""

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.viz import projection


def distance(x, y):
  """Hyperbolic distance of points of the unit disk."""
  gap = lambda point: 1 - np.sum(point * point, axis=-1)
  square = np.sum((x - y) ** 2, axis=-1)
  return np.arccosh(1 + 2 * square / (gap(x) * gap(y)))


def in_ball(n, d, c, seed=0):
  draw = np.random.default_rng(seed)
  rows = draw.normal(size=(n, d))
  norm = np.linalg.norm(rows, axis=1, keepdims=True)
  return rows / norm * np.sqrt(draw.uniform(0.01, 0.9, (n, 1)) / c)


@pytest.mark.parametrize('c', [0.1, 1.0, 2.5])
def test_points_of_a_plane_keep_their_distances(c):
  """Whatever the curvature and wherever the plane lies in the ball."""
  plane = in_ball(60, 2, c)
  axes, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(7, 2)))
  found = projection.project(plane @ axes.T, c=c)
  # Of curvature -c: sqrt(c) times the distance is that of curvature -1.
  wanted = distance(plane[:30] * c**0.5, plane[30:] * c**0.5)
  np.testing.assert_allclose(
    distance(found.disk[:30], found.disk[30:]), wanted, rtol=1e-9
  )
  assert found.spearman == pytest.approx(1)
  assert found.kept == 1


def test_other_points_go_by_the_same_map():
  rows = in_ball(40, 6, 0.1)
  both = projection.project(rows, rows[:5] / 2, c=0.1)
  np.testing.assert_array_equal(both.disk, projection.project(rows, c=0.1).disk)
  middle = projection.project(rows, np.zeros((1, 6)), c=0.1).also
  np.testing.assert_array_equal(middle, np.zeros((1, 2)))
  # Half way in the ball is on the same ray of the disk.
  cross = (
    both.disk[:5, 0] * both.also[:, 1] - both.disk[:5, 1] * both.also[:, 0]
  )
  np.testing.assert_allclose(cross, 0, atol=1e-12)


@pytest.mark.parametrize('c', [None, 0.0, 0.3])
@pytest.mark.parametrize('n', [1, 2, 3, 50])
def test_all_lie_in_the_disk(n, c):
  rows = in_ball(n, 5, 0.3)
  found = projection.project(rows, c=c)
  assert found.disk.shape == (n, 2)
  assert np.linalg.norm(found.disk, axis=1).max() < 1
  assert np.isnan(found.spearman) == (n < 3)
  assert 'pca' in str(found)


def test_what_is_lost_is_said():
  """Chance keeps k of n neighbors, and no order of distances."""
  found = projection.project(in_ball(500, 64, 1.0), c=1.0)
  assert 0.02 < found.kept < 0.3
  assert found.spearman < 0.7
  line = projection.project(in_ball(500, 1, 1.0), c=1.0)
  assert line.spearman == pytest.approx(1)


@pytest.mark.parametrize(
  ('rows', 'options', 'message'),
  [
    (np.ones((2, 3)), {'c': 1.0}, 'lies outside the ball'),
    (np.full((2, 3), np.nan), {'c': 1.0}, 'holds NaN or Inf'),
    (np.ones((2, 3)), {'c': 0, 'method': 'tsne'}, "is 'tsne'; expected one of"),
    (np.ones((2, 3)), {'c': 0, 'also': np.ones((2, 4))}, r'\(2, 4\)'),
    (np.ones((2, 3)), {'c': None, 'method': 'cosne'}, 'use pca or umap'),
  ],
)
def test_bad_input(rows, options, message):
  with pytest.raises(UserError, match=message):
    projection.project(rows, **options)


@pytest.mark.parametrize('method', ['horopca', 'cosne', 'umap'])
def test_other_packages(method):
  """Clusters of a tree far from each other stay apart."""
  pytest.importorskip('umap' if method == 'umap' else 'hyperbolix')
  draw = np.random.default_rng(0)
  centers = 0.8 * np.eye(8)[np.repeat(range(8), 20)]
  found = projection.project(
    centers + 0.02 * draw.normal(size=(160, 8)), c=1.0, method=method
  )
  assert np.linalg.norm(found.disk, axis=1).max() < 1
  assert np.isfinite(found.disk).all()
  if method != 'horopca':
    assert found.kept > 0.5
