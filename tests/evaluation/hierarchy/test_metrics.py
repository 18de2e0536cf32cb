"""The geometry's metrics and the call that gathers all of them."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from hier_jax.errors import UserError
from hier_jax.evaluation.hierarchy import agreement, graded
from hier_jax.evaluation.hierarchy.metrics import (
  centroid_tree,
  distance_correlation,
  hierarchy_metrics,
  radius_depth,
  tree_metrics,
)
from hier_jax.evaluation.taxonomy import Taxonomy
from tests.support import trees

TAXONOMY = Taxonomy.from_levels(
  [[i // 4, i // 2] for i in range(8)] + [[-1, -1]],
  level_names=['top', 'group', 'class'],
)
SPACES = [('cosine', 0.0), ('euclidean', 0.0), ('hyperbolic', 0.5)]


def tree_like(rng, n, d=6):
  """Points of classes that are near where their taxonomy is, in a ball."""
  y = rng.integers(0, 9, n)
  x = 0.1 * rng.normal(size=(n, d))
  for level in range(3):
    centre = 0.5**level * rng.normal(size=(len(TAXONOMY.node_names), d))
    x += centre[TAXONOMY.path[y, level]]
  return x * (0.9 / np.linalg.norm(x, axis=1).max()), y


def distance(x, y, metric, c):
  if metric == 'cosine':
    return 1 - x @ y / math.sqrt((x @ x) * (y @ y))
  square = (x - y) @ (x - y)
  if metric == 'euclidean':
    return math.sqrt(square)
  ratio = square / ((1 - c * (x @ x)) * (1 - c * (y @ y)))
  return math.acosh(1 + 2 * c * ratio) / math.sqrt(c)


def centroid(x, metric, c):
  if metric == 'cosine':
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
  if not c:
    return x.mean(0)
  gap = 1 - c * np.sum(x**2, 1)
  time, space = np.mean((2 - gap) / gap), np.mean(2 * x / gap[:, None], 0)
  return space / (time + math.sqrt(time**2 - c * space @ space))


def spearman(x, y):
  return np.corrcoef(stats.rankdata(x), stats.rankdata(y))[0, 1]


# ---- correlations -----------------------------------------------------------


@pytest.mark.parametrize(('metric', 'c'), SPACES)
def test_distance_correlation(metric, c):
  x, y = tree_like(np.random.default_rng(0), 60)
  both = list(itertools.combinations(range(60), 2))
  far = [distance(x[i], x[j], metric, c) for i, j in both]
  known = [TAXONOMY.distance(y[i], y[j]) for i, j in both]
  found = distance_correlation(x, y, TAXONOMY, metric=metric, c=c)
  assert found == pytest.approx(spearman(far, known), rel=1e-9)
  assert found > 0.5
  sampled = [
    distance_correlation(
      x, y, TAXONOMY, metric=metric, c=c, max_pairs=1500, seed=seed
    )
    for seed in (0, 0, 1)
  ]
  assert sampled[0] == sampled[1] != sampled[2]
  np.testing.assert_allclose(sampled, found, atol=0.1)


def test_distance_correlation_is_1_where_distances_are_the_taxonomys():
  # The corners of a simplex of simplices: sqrt(2) and sqrt(202) apart.
  x = np.hstack([np.repeat(10 * np.eye(4), 4, 0), np.eye(16)])
  taxonomy = Taxonomy.from_levels(np.arange(16)[:, None] // 4)
  found = distance_correlation(x, np.arange(16), taxonomy, metric='euclidean')
  assert found == pytest.approx(1)


@pytest.mark.parametrize(('metric', 'c'), SPACES)
def test_radius_depth(metric, c):
  x, y = tree_like(np.random.default_rng(1), 80)
  found = radius_depth(x, y, TAXONOMY, metric=metric, c=c)
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
      radii.append(np.linalg.norm(centroid(x[mine], metric, c)))
      depths.append(depth)
  assert len(radii) == len(TAXONOMY.node_names)
  assert found.nodes == pytest.approx(spearman(radii, depths), rel=1e-9)
  assert found.nodes > found.shuffled
  if metric == 'cosine':
    assert math.isnan(found.items)
  else:
    expected = spearman(np.linalg.norm(x, axis=1), TAXONOMY.depth[y])
    assert found.items == pytest.approx(expected, rel=1e-9)
  assert found == pytest.approx(
    radius_depth(x, y, TAXONOMY, metric=metric, c=c), nan_ok=True
  )


# ---- trees ------------------------------------------------------------------


@pytest.mark.parametrize(('metric', 'c'), SPACES)
def test_centroid_tree(metric, c):
  x, y = tree_like(np.random.default_rng(2), 50)
  y = np.where(y == 3, 2, y)
  found = centroid_tree(x, y, TAXONOMY, metric=metric, c=c)
  assert found.classes == [str(k) for k in range(9) if k != 3]
  # Average linkage the slow way.
  centres = [centroid(x[y == int(k)], metric, c) for k in found.classes]
  far = np.array(
    [[distance(a, b, metric, c) for b in centres] for a in centres]
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


def test_tree_metrics():
  rng = np.random.default_rng(3)
  parent, y = trees.random_tree(rng, 40, 15), rng.integers(0, 9, 40)
  found = tree_metrics(parent, y, TAXONOMY)
  for level, name in enumerate(TAXONOMY.level_names):
    expected = agreement.dendrogram_purity(parent, TAXONOMY.path[y, level])
    assert found[f'{name}/purity'] == expected.value
  lca = agreement.lca_agreement(parent, y, TAXONOMY)
  keys = ['lca_spearman', 'lca_kendall', 'lca_triplets', 'lca_tied']
  assert [found[key] for key in keys] == list(lca)
  assert found['dasgupta'] == agreement.taxonomic_cost(parent, y, TAXONOMY)
  assert set(found) == {
    'top/purity', 'group/purity', 'class/purity', *keys, 'dasgupta',
  }  # fmt: skip


def test_tree_of_the_taxonomy_itself():
  found = tree_metrics(TAXONOMY.parents(), TAXONOMY.classes, TAXONOMY)
  assert (found['top/purity'], found['group/purity']) == (1, 1)
  assert math.isnan(found['class/purity'])
  assert (found['lca_triplets'], found['lca_tied']) == (1, 0)


# ---- all of them ------------------------------------------------------------


@pytest.mark.parametrize(('metric', 'c'), SPACES)
def test_all_metrics(metric, c):
  rng = np.random.default_rng(4)
  x, y = tree_like(rng, 70)
  parent = trees.binary_tree(rng, 70)
  space = {'metric': metric, 'c': c}
  found = hierarchy_metrics(
    x, y, TAXONOMY, **space, recall_at=(1, 5), tree=parent, alpha=2.0,
    drop_same_class=True, ties='optimistic', block=16,
  )  # fmt: skip
  result = graded.graded_per_query(
    x, y, TAXONOMY, **space, alpha=2.0, drop_same_class=True
  )
  expected = {}
  held = result.num_positives > 0
  for key in ('h_ap', 'asi', 'ndcg'):
    expected[key] = np.mean(getattr(result, key)[held[:, 0]])
  for level, name in enumerate(('top', 'group', 'class')):
    mine = held[:, level]
    for k in (1, 5):
      rank = result.rank[mine, level]
      expected[f'{name}/recall@{k}'] = np.mean(rank <= k)
    expected[f'{name}/map'] = np.mean(result.ap[mine, level])
    expected[f'{name}/ndcg'] = np.mean(result.level_ndcg[mine, level])
    expected[f'{name}/num_without_positive'] = np.sum(~mine)
  # The class that is a top itself has no kin.
  assert expected['top/num_without_positive'] == np.sum(y == 8) > 0
  expected['distance_spearman'] = distance_correlation(x, y, TAXONOMY, **space)
  radii = radius_depth(x, y, TAXONOMY, **space)
  expected['radius_depth'] = radii.nodes
  expected['radius_depth_shuffled'] = radii.shuffled
  expected['radius_depth_items'] = radii.items

  linked = centroid_tree(x, y, TAXONOMY, **space)
  codes = TAXONOMY.codes(linked.classes)
  centres = np.array([centroid(x[y == k], metric, c) for k in codes])
  far = [[distance(a, b, metric, c) for b in centres] for a in centres]
  near = np.argmin(far + np.diag([np.inf] * len(far)), 1)
  for level, name in enumerate(('top', 'group')):
    nodes = TAXONOMY.path[codes, level]
    kin = np.array([np.sum(nodes == node) > 1 for node in nodes])
    hits = (nodes == nodes[near])[kin]
    expected[f'{name}/nearest_centroid'] = np.mean(hits)
  for name, tree, labels, depth in (
    ('centroid_tree', linked.parent, linked.classes, -linked.height),
    ('tree', parent, y, None),
  ):
    of_tree = tree_metrics(tree, labels, TAXONOMY, node_depth=depth)
    expected |= {f'{name}/{key}': value for key, value in of_tree.items()}
  expected['num_queries'] = 70
  assert set(found) == set(expected)
  for key, value in expected.items():
    assert found[key] == pytest.approx(value, rel=1e-9, nan_ok=True), key
  assert all(type(value) in (float, int) for value in found.values())


def test_gallery_is_ranked_only():
  rng = np.random.default_rng(5)
  x, y = tree_like(rng, 40)
  given = {'gallery': x[:30], 'gallery_labels': y[:30]}
  alone, beside = (
    hierarchy_metrics(x[30:], y[30:], TAXONOMY, **more) for more in ({}, given)
  )
  for key in alone:
    same = alone[key] == pytest.approx(beside[key], nan_ok=True)
    if 'correlation' in key or 'radius' in key or 'tree' in key:
      assert same
  result = graded.graded_per_query(x[30:], y[30:], TAXONOMY, **given)
  assert beside['h_ap'] == np.mean(result.h_ap[result.num_positives[:, 0] > 0])


def test_one_class():
  x = np.random.default_rng(6).normal(size=(5, 3))
  found = hierarchy_metrics(x, [4] * 5, TAXONOMY)
  for key in ('h_ap', 'asi', 'ndcg', 'class/map', 'top/recall@1'):
    assert found[key] == pytest.approx(1)
  assert math.isnan(found['distance_spearman'])
  many = hierarchy_metrics(x, [4, 4, 5, 0, 1], TAXONOMY)
  assert list(found) == list(many)
  for key in found:
    if 'centroid' in key:
      assert math.isnan(found[key])
  found = hierarchy_metrics(x, [4] * 5, TAXONOMY, drop_same_class=True)
  assert math.isnan(found['group/map'])
  assert found['group/num_without_positive'] == 5


def test_many_classes_are_sampled():
  rng = np.random.default_rng(7)
  taxonomy = Taxonomy.from_levels(np.arange(60)[:, None] // 6)
  y = np.repeat(np.arange(60), 2)
  x = rng.normal(size=(10, 8))[y // 12] + rng.normal(size=(120, 8))
  found = [
    hierarchy_metrics(x, y, taxonomy, max_classes=30, seed=seed)
    for seed in (0, 0, 1)
  ]
  key = 'centroid_tree/level1/purity'
  assert found[0][key] == found[1][key] != found[2][key]


X = np.random.default_rng(8).normal(size=(6, 3)) * 0.1
Y = [0, 0, 1, 2, 4, 4]


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'embeddings': X * np.nan}, 'NaN or Inf in 6 of 6 rows'),
    ({'embeddings': 100 * X, 'c': 1.0}, 'outside the ball .* 6 of 6 rows'),
    ({'labels': Y[:5]}, r'`labels` has shape \(5,\); expected \(6,\)'),
    ({'labels': [0, 0, 1, 2, 4, 40]}, "`labels` holds 1 class: '40'"),
    ({'labels': [0, 0, 1, 2, 4, None]}, 'lacks 1 label: 5 of 6'),
    ({'recall_at': (0,)}, '`K of recall_at` is 0'),
    ({'metric': 'l1'}, "`metric` is 'l1'"),
    ({'tree': [5, 5, 5, 5, 5, -1]}, '1 items with children: node 5'),
    ({'gallery': X[:, :2], 'gallery_labels': Y}, 'has 2 dimensions and .* 3'),
    (
      {'gallery': X[:2], 'gallery_labels': [8, 8], 'labels': [0] * 6},
      'none of the 6 queries has an item in the gallery that shares its top',
    ),
  ],
)
def test_bad_input(arguments, message):
  given = {'embeddings': X, 'labels': Y, 'taxonomy': TAXONOMY, **arguments}
  with pytest.raises(UserError, match=message):
    hierarchy_metrics(**given)


def test_no_tree_of_one_class():
  with pytest.raises(UserError, match='holds one class; expected two or more'):
    centroid_tree(X, [3] * 6, TAXONOMY)
