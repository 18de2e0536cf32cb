"""Arcs of the disk are circles that meet its boundary at right angles."""

import numpy as np
import pytest

from hier_jax.viz import geodesics


def pairs(n=200, seed=0):
  draw = np.random.default_rng(seed)
  rows = draw.normal(size=(2, n, 2))
  norm = np.linalg.norm(rows, axis=-1, keepdims=True)
  return rows / norm * draw.uniform(0.05, 0.999, (2, n, 1))


def circle(p, q):
  """The middle of the circle through p and q at right angles to the unit one.

  |z - m|^2 = |m|^2 - 1, which is 2 m . z = 1 + |z|^2, for z = p and z = q.
  """
  points = np.stack([p, q])
  return np.linalg.solve(2 * points, 1 + np.sum(points**2, 1))


def test_all_points_lie_on_the_circle():
  start, end = pairs()
  for p, q, found in zip(
    start, end, geodesics.arcs(start, end, 9), strict=True
  ):
    middle = circle(p, q)
    # It meets the unit circle at right angles where |m|^2 = r^2 + 1.
    radius = np.sqrt(middle @ middle - 1)
    distance = np.linalg.norm(found - middle, axis=1)
    np.testing.assert_allclose(distance, radius, rtol=1e-9)
    np.testing.assert_array_equal(found[0], p)
    np.testing.assert_allclose(found[-1], q, atol=1e-12)
    assert np.linalg.norm(found, axis=1).max() < 1
    # Steps are equal: it is one arc, gone along once.
    steps = np.linalg.norm(np.diff(found, axis=0), axis=1)
    np.testing.assert_allclose(steps, steps[0], rtol=1e-9)


def test_it_is_the_shortest_way():
  """Hyperbolic lengths of the pieces add up to the distance of the ends."""
  start, end = pairs(50)
  found = geodesics.arcs(start, end, 12)
  length = lambda x, y: np.arccosh(
    1
    + 2
    * np.sum((x - y) ** 2, -1)
    / ((1 - np.sum(x * x, -1)) * (1 - np.sum(y * y, -1)))
  )
  pieces = length(found[:, :-1], found[:, 1:]).sum(1)
  np.testing.assert_allclose(pieces, length(start, end), rtol=1e-9)


def test_the_boundary_is_met_at_a_right_angle():
  angle = np.array([[0.1, 1.0], [2.0, 4.5], [0.0, 3.0]])
  ends = (1 - 1e-12) * np.stack([np.cos(angle), np.sin(angle)], -1)
  found = geodesics.arcs(ends[:, 0], ends[:, 1], 10_001)
  for points in (found, found[:, ::-1]):
    step = points[:, 1] - points[:, 0]
    radial = -points[:, 0]
    cosine = np.sum(step * radial, 1) / np.linalg.norm(step, axis=1)
    np.testing.assert_allclose(cosine, 1, atol=1e-6)


@pytest.mark.parametrize('end', [[0.6, 0.0], [-0.6, 0.0], [0.3, 0.0]])
def test_lines_through_the_origin_are_straight(end):
  (found,) = geodesics.arcs([[0.3, 0.0]], [end], 5)
  np.testing.assert_allclose(found[:, 0], np.linspace(0.3, end[0], 5))
  np.testing.assert_array_equal(found[:, 1], 0)


def test_turns_are_half_of_what_an_arc_turns():
  start, end = pairs(50)
  found = geodesics.arcs(start, end, 2_001)
  first, last = found[:, 1] - found[:, 0], found[:, -1] - found[:, -2]
  cross = first[:, 0] * last[:, 1] - first[:, 1] * last[:, 0]
  turned = np.arctan2(cross, np.sum(first * last, 1))
  np.testing.assert_allclose(
    -turned / 2, geodesics.turns(start, end), atol=2e-3
  )
