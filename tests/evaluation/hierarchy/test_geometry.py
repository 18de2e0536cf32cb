"""Distances, radii and centroids against a taxonomy, the slow way."""

import itertools
import math

import numpy as np
import pytest

from hier_jax.evaluation.hierarchy.geometry import (
  distance_correlation,
  radius_depth,
)
from hier_jax.evaluation.taxonomy import Taxonomy
from tests.support.correlations import spearman
from tests.support.taxonomic_data import (
  SPACES,
  TAXONOMY,
  centroid,
  distance_of,
  tree_like,
)


@pytest.mark.parametrize(('distance', 'c'), SPACES)
def test_distance_correlation(distance, c):
  x, y = tree_like(np.random.default_rng(0), 60)
  both = list(itertools.combinations(range(60), 2))
  far = [distance_of(x[i], x[j], distance, c) for i, j in both]
  known = [TAXONOMY.distance(y[i], y[j]) for i, j in both]
  found = distance_correlation(x, y, TAXONOMY, distance=distance, c=c)
  assert found == pytest.approx(spearman(far, known), rel=1e-9)
  assert found > 0.5
  sampled = [
    distance_correlation(
      x, y, TAXONOMY, distance=distance, c=c, max_pairs=1500, seed=seed
    )
    for seed in (0, 0, 1)
  ]
  assert sampled[0] == sampled[1] != sampled[2]
  np.testing.assert_allclose(sampled, found, atol=0.1)


def test_distance_correlation_is_1_where_distances_are_the_taxonomys():
  # The corners of a simplex of simplices: sqrt(2) and sqrt(202) apart.
  x = np.hstack([np.repeat(10 * np.eye(4), 4, 0), np.eye(16)])
  taxonomy = Taxonomy.from_levels(np.arange(16)[:, None] // 4)
  found = distance_correlation(x, np.arange(16), taxonomy, distance='euclidean')
  assert found == pytest.approx(1)


@pytest.mark.parametrize(('distance', 'c'), SPACES)
def test_radius_depth(distance, c):
  x, y = tree_like(np.random.default_rng(1), 80)
  found = radius_depth(x, y, TAXONOMY, distance=distance, c=c)
  radii, depths = [], []
  # Nodes by their way down from the root.
  for depth in (1, 2, 3):
    ways = {
      i: tuple(TAXONOMY.path[y[i], :depth])
      for i in range(80)
      if TAXONOMY.depth[y[i]] >= depth
    }
    for way in set(ways.values()):
      mine = [i for i, other in ways.items() if other == way]
      radii.append(np.linalg.norm(centroid(x[mine], distance, c)))
      depths.append(depth)
  assert len(radii) == len(TAXONOMY.node_names)
  assert found.nodes == pytest.approx(spearman(radii, depths), rel=1e-9)
  assert found.nodes > found.shuffled
  if distance == 'cosine':
    assert math.isnan(found.items)
  else:
    expected = spearman(np.linalg.norm(x, axis=1), TAXONOMY.depth[y])
    assert found.items == pytest.approx(expected, rel=1e-9)
  assert found == pytest.approx(
    radius_depth(x, y, TAXONOMY, distance=distance, c=c), nan_ok=True
  )


def test_radius_depth_of_classes_that_all_lie_high():
  x = np.random.default_rng(3).normal(size=(5, 3))
  found = radius_depth(x, [8] * 5, TAXONOMY, distance='euclidean')
  assert math.isnan(found.nodes)
