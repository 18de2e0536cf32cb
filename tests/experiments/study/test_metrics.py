import numpy as np
import pytest

from experiments.study import metrics

# Classes 0, 1 of one subgroup, 2, 3 of another.
SUBGROUP = np.array([0, 0, 1, 1])
LABELS = np.repeat([0, 1, 2, 3], 2)


def by_hand(z):
  """mAP of kin without the own class, of distances in a line."""
  far = np.abs(z[:, None] - z[None])
  found = []
  for i, row in enumerate(far):
    others = np.flatnonzero(LABELS[i] != LABELS)
    order = others[np.argsort(row[others], kind='stable')]
    kin = SUBGROUP[LABELS[order]] == SUBGROUP[LABELS[i]]
    rank = 1 + np.flatnonzero(kin)
    found.append(np.mean(np.arange(1, len(rank) + 1) / rank))
  return found


def test_kin_are_ranked_without_the_own_class():
  z = np.array([0.0, 0.1, 1.3, 3.6, 1.1, 2.9, 5.1, 5.7])
  found = metrics.of_run(z[:, None], LABELS, SUBGROUP, 0.0)
  np.testing.assert_allclose(found['map_subgroup'], by_hand(z), atol=1e-6)
  assert found['recall@1'].tolist() == [1, 1, 0, 0, 0, 0, 1, 1]
  np.testing.assert_array_equal(found['map@r'], found['recall@1'])


def test_class_means_and_classes_that_do_not_count():
  values = dict.fromkeys(metrics.PER_CLASS, np.arange(8.0))
  values['map_subgroup'] = np.array([np.nan, np.nan, *range(6)], float)
  found = metrics.of_classes(values, LABELS)
  np.testing.assert_array_equal(found['map@r'], [0.5, 2.5, 4.5, 6.5])
  np.testing.assert_array_equal(found['map_subgroup'], [np.nan, 0.5, 2.5, 4.5])


def test_trees_of_a_clean_hierarchy_are_right():
  z = np.array([0.0, 0.1, 1.0, 1.1, 9.0, 9.1, 10.0, 10.1])[:, None]
  found = metrics.of_trees(z, LABELS, SUBGROUP, 0.0)
  assert found == {
    '1nn_subgroup': 1.0,
    'dp_subgroup': 1.0,
    'lca_triplets': 1.0,
  }


def test_tree_of_proxies_has_the_leaves_of_average_linkage():
  angle = np.array([0.0, 0.1, 0.5, 0.6, 3.0, 3.1, 3.5, 3.6])
  z = 0.8 * np.stack([np.cos(angle), np.sin(angle)], 1)
  middle = np.array([0.3, 3.3])
  inner = 0.6 * np.stack([np.cos(middle), np.sin(middle)], 1)
  proxies = np.concatenate([inner, [[0.01, 0.0]]])
  found = metrics.of_proxies(z, LABELS, SUBGROUP, 1.0, proxies)
  assert found['proxy_dp_subgroup'] == found['proxy_lca_triplets'] == 1.0
  assert found['proxies_used'] == 2
  assert found['proxy_dp_subgroup'] == pytest.approx(
    metrics.of_trees(z, LABELS, SUBGROUP, 1.0)['dp_subgroup']
  )
