import numpy as np
import pytest

from experiments.icons import duplicates


def unit(rows):
  rows = np.asarray(rows, np.float32)
  return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@pytest.mark.parametrize('block', [1, 3, 100])
def test_first_of_is_that_of_a_plain_loop(block, monkeypatch):
  monkeypatch.setattr(duplicates, '_BLOCK', block)
  rng = np.random.default_rng(0)
  rows = unit(rng.standard_normal((60, 3)))
  first, kept = [], []
  for i, row in enumerate(rows):
    likeness = [float(row @ rows[k]) for k in kept]
    if likeness and max(likeness) >= 0.8:
      first.append(kept[int(np.argmax(likeness))])
    else:
      kept.append(i)
      first.append(i)
  assert 2 < len(kept) < 50
  np.testing.assert_array_equal(duplicates.first_of(rows, 0.8), first)


def test_a_drawing_of_two_classes_goes_to_the_larger_or_to_none():
  first = np.array([0, 0, 0, 3, 3, 5, 0])
  labels = np.array([7, 8, 8, 7, 8, 9, 8])
  # The first of the three of class 8; none of a tie; one that is alone.
  assert duplicates.winners(first, labels).tolist() == [1, 5]


def test_one_of_each_drawing_is_kept():
  first, labels = np.array([0, 0, 2]), np.array([1, 1, 1])
  assert duplicates.winners(first, labels).tolist() == [0, 2]
