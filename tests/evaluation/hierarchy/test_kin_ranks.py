"""Ranks of kin against sorting all items."""

import numpy as np
import pytest

from hier_jax.evaluation.hierarchy._kin_ranks import Gallery, Queries, _sorted

RADIUS = 1e-12


def sorted_gallery(num, pessimistic):
  """Items of 30 classes in 5 groups."""
  rng = np.random.default_rng(0)
  classes = np.sort(rng.integers(0, 30, num))
  path = np.stack([classes // 6, classes]).astype(np.int32)
  radius = RADIUS * rng.uniform(0.5, 1, num)
  return Gallery(path, radius, float(radius.max()), pessimistic)


def by_sorting(scores, path, query, own, sign):
  """Levels and ranks of the kin of a query, where exact ties go by level."""
  level = np.sum(path == query[:, None], 0)
  order = np.lexsort((sign * level, -scores))
  level = level[order[order != own]]
  return level[level > 0], 1 + np.flatnonzero(level)


@pytest.mark.parametrize(('pessimistic', 'sign'), [(True, 1), (False, -1)])
@pytest.mark.parametrize('decimals', [0, 2, 15])
@pytest.mark.parametrize('outlier', [0, 1e6])
def test_as_by_sorting_all(pessimistic, sign, decimals, outlier):
  gallery = sorted_gallery(3000, pessimistic)
  rng = np.random.default_rng(1)
  scores = np.round(rng.standard_normal((4, 3000)), decimals)
  scores[:, 7] -= outlier
  rows = np.array([3, 4, 1500, 2999])
  # The query itself is the nearest, and so are copies of it.
  scores[range(4), rows] = scores.max(1)
  own = np.array([3, -1, 1500, 2999])
  noisy = scores + 0.1 * RADIUS * rng.uniform(-1, 1, scores.shape)
  queries = Queries(noisy, np.ones(4), gallery.path[:, rows].T, own)
  for i, group in enumerate(np.split(np.arange(4), 4)):
    (part,) = Queries(*(x[group] for x in queries)).groups(gallery)
    found = part.kin(gallery)
    path = queries.path[i]
    expected = by_sorting(scores[i], gallery.path, path, own[i], sign)
    np.testing.assert_array_equal(found.levels[0], expected[0])
    np.testing.assert_array_equal(found.ranks[0], expected[1])


def test_groups_are_of_one_node_and_few():
  gallery = sorted_gallery(300, True)
  rows = np.arange(0, 300, 5)
  queries = Queries(
    np.zeros((60, 300)), np.ones(60), gallery.path[:, rows].T, rows
  )
  groups = list(queries.groups(gallery))
  np.testing.assert_array_equal(np.concatenate([g.own for g in groups]), rows)
  for group in groups:
    assert len(np.unique(group.path[:, 0])) == 1
    assert len(group.own) <= 16


def test_kin_of_nothing():
  gallery = sorted_gallery(50, True)
  path = np.array([[99, 99]], np.int32)
  queries = Queries(np.zeros((1, 50)), np.ones(1), path, np.array([-1]))
  assert queries.kin(gallery).ranks.shape == (1, 0)


@pytest.mark.parametrize('spread', [1, 2.0**40, 2.0**61])
def test_keys_are_sorted(spread):
  rng = np.random.default_rng(2)
  keys = (spread * rng.uniform(size=5000)).astype(np.int64)
  np.testing.assert_array_equal(_sorted(keys), np.sort(keys))
