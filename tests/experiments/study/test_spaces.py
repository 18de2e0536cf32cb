import doctest

import numpy as np
import pytest

from experiments.study import spaces

SPACE = {
  'alpha': spaces.log(2, 64, 32),
  'delta': spaces.linear(0, 0.3, 0.1),
  'images': spaces.choice(2, 3, 4, 6, default=2),
}


def test_places_and_values_by_hand():
  assert SPACE['alpha'].at(0.6) == 16.0  # 2 * 32 ** .6
  assert SPACE['delta'].at(0.5) == 0.15
  assert [SPACE['images'].at(p) for p in (0, 0.3, 0.99)] == [2, 3, 6]
  assert SPACE['alpha'].place(16.0) == pytest.approx(0.6)
  assert SPACE['delta'].place(0.15) == pytest.approx(0.5)
  assert SPACE['images'].place(3) == 0.375


def test_points_fill_the_space_and_are_the_same_each_time():
  points = spaces.sobol(SPACE, 16, seed=3)
  assert points == spaces.sobol(SPACE, 16, seed=3)
  assert points[:5] == spaces.sobol(SPACE, 5, seed=3)
  assert points != spaces.sobol(SPACE, 16, seed=4)
  # 16 points of a Sobol sequence stand one in each sixteenth.
  place = np.array([SPACE['alpha'].place(p['alpha']) for p in points])
  assert sorted(np.floor(16 * place + 1e-3).astype(int)) == list(range(16))
  assert {p['images'] for p in points} == {2, 3, 4, 6}


def test_box_lies_about_the_center_and_inside():
  center = {'alpha': 60.0, 'delta': 0.15, 'images': 6}
  points = spaces.sobol(SPACE, 64, seed=0, center=center, width=0.5)
  place = np.array([[SPACE[k].place(v) for k, v in p.items()] for p in points])
  assert place[:, 0].min() >= 0.499 and place[:, 0].max() <= 1.001
  assert place[:, 1].min() >= 0.249 and place[:, 1].max() <= 0.751
  assert {p['images'] for p in points} == {4, 6}


def test_box_is_as_wide_as_the_space_in_what_the_center_lacks():
  points = spaces.sobol(
    SPACE, 64, seed=0, center={'alpha': 4.0, 'images': 6}, width=0.25
  )
  place = np.array([SPACE['delta'].place(p['delta']) for p in points])
  assert place.min() < 0.05 and place.max() > 0.95
  assert max(p['alpha'] for p in points) < 8 and points[0]['images'] == 6


def test_empty_space():
  assert spaces.sobol({}, 2, seed=0) == [{}, {}]
  assert spaces.defaults(SPACE) == {'alpha': 32, 'delta': 0.1, 'images': 2}


def test_examples_hold():
  found = doctest.testmod(spaces)
  assert found.attempted and not found.failed
