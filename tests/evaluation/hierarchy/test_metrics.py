"""The call that gathers all metrics of a hierarchy."""

import math

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation import class_centroids, linkage_tree
from hier_jax.evaluation.hierarchy import graded, metrics
from hier_jax.evaluation.hierarchy.geometry import (
  distance_correlation,
  radius_depth,
)
from hier_jax.evaluation.hierarchy.metrics import hierarchy_metrics
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.metrics import tree_metrics
from tests.support import trees
from tests.support.taxonomic_data import (
  SPACES,
  TAXONOMY,
  centroid,
  distance_of,
  tree_like,
)


@pytest.mark.parametrize(('distance', 'c'), SPACES)
def test_all_metrics(distance, c):
  rng = np.random.default_rng(4)
  x, y = tree_like(rng, 70)
  parent = trees.binary_tree(rng, 70)
  space = {'distance': distance, 'c': c}
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
    if name != 'class':
      others = result.kin_ap[result.num_kin[:, level] > 0, level]
      expected[f'{name}/map_other_classes'] = np.mean(others)
  # The class that is a top itself has no kin.
  assert expected['top/num_without_positive'] == np.sum(y == 8) > 0
  expected['distance_spearman'] = distance_correlation(x, y, TAXONOMY, **space)
  radii = radius_depth(x, y, TAXONOMY, **space)
  expected['radius_depth'] = radii.nodes
  expected['radius_depth_shuffled'] = radii.shuffled
  expected['radius_depth_items'] = radii.items

  means, codes = class_centroids(x, y, c=c)
  linked = linkage_tree(means, c=c)
  classes = [str(code) for code in codes]
  centroids = np.array([centroid(x[y == k], distance, c) for k in codes])
  far = [[distance_of(a, b, distance, c) for b in centroids] for a in centroids]
  near = np.argmin(far + np.diag([np.inf] * len(far)), 1)
  for level, name in enumerate(('top', 'group')):
    nodes = TAXONOMY.path[codes, level]
    kin = np.array([np.sum(nodes == node) > 1 for node in nodes])
    hits = (nodes == nodes[near])[kin]
    expected[f'{name}/nearest_centroid'] = np.mean(hits)
  for name, tree, labels, depth in (
    ('centroid_tree', linked, classes, -linked.height),
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


def test_many_queries_are_sampled(monkeypatch):
  rng = np.random.default_rng(9)
  x, y = tree_like(rng, 300)
  whole = hierarchy_metrics(x, y, TAXONOMY, seed=3)
  found = hierarchy_metrics(x, y, TAXONOMY, max_queries=200, seed=3)
  widths = [key for key in found if key.endswith('/ci95')]
  assert set(found) == {*whole, *widths, 'num_ranked'}
  assert found['num_ranked'] == 200
  assert found['num_queries'] == 300
  for key in widths:
    mean = key.removesuffix('/ci95')
    assert 0 <= found[key] < 0.05
    # Some four standard errors: of 22 means none is so far off.
    assert abs(found[mean] - whole[mean]) <= 2 * found[key] + 1e-12
  rows = np.sort(np.random.default_rng(3).choice(300, 200, replace=False))
  values = graded.graded_per_query(x, y, TAXONOMY).asi[rows]
  error = np.std(values, ddof=1) * math.sqrt((1 - 200 / 300) / 200)
  assert found['asi'] == pytest.approx(values.mean())
  assert found['asi/ci95'] == pytest.approx(1.959964 * error, rel=1e-6)
  # The rest looks at all items.
  same = [key for key in whole if 'radius' in key or 'centroid' in key]
  for key in same:
    assert found[key] == pytest.approx(whole[key], abs=0, nan_ok=True)
  monkeypatch.setattr(metrics, 'MAX_SCORES', 300 * 200)
  again = hierarchy_metrics(x, y, TAXONOMY, seed=3)
  assert again == pytest.approx(found, abs=0, nan_ok=True)


def test_bars_are_counted_to_their_ends_where_asked(monkeypatch):
  bars = []

  class Bar(graded.tqdm.tqdm):
    def close(self):
      name = getattr(self, 'desc', '')
      bars.append((name, self.disable, self.n, self.total))
      super().close()

  monkeypatch.setattr(graded.tqdm, 'tqdm', Bar)
  rng = np.random.default_rng(10)
  x, y = tree_like(rng, 40)
  parent = trees.binary_tree(rng, 40)
  hierarchy_metrics(x, y, TAXONOMY, tree=parent, progress=True)
  shown = [(*bar[:1], *bar[2:]) for bar in bars if not bar[1]]
  assert shown == [
    ('levels', 40, 40),
    ('shuffles', 10, 10),
    ('triples', 40, 40),
  ]
  del bars[:]
  hierarchy_metrics(x, y, TAXONOMY, tree=parent)
  assert all(disabled for _, disabled, *_ in bars)


@pytest.mark.parametrize('scale', [2.0**1010, 2.0**-960, 2.0**-1040])
def test_euclidean_metrics_do_not_depend_on_the_scale(scale):
  """Squares of these are infinite or 0, and the last are no normal numbers."""
  rng = np.random.default_rng(12)
  # Of few bits, for the smallest numbers to hold them.
  x, y = tree_like(rng, 30)
  x = np.round(256 * x / np.abs(x).max()) / 256
  whole = hierarchy_metrics(x, y, TAXONOMY, c=0)
  found = hierarchy_metrics(scale * x, y, TAXONOMY, c=0)
  assert found == pytest.approx(whole, nan_ok=True)


X = np.random.default_rng(8).normal(size=(6, 3)) * 0.1
Y = [0, 0, 1, 2, 4, 4]
APART = Taxonomy.from_levels([['a'], ['b'], ['c'], ['d'], ['e'], ['f']])


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'embeddings': X * np.nan}, 'NaN or Inf in 6 of 6 rows'),
    ({'embeddings': 100 * X, 'c': 1.0}, 'outside the ball .* 6 of 6 rows'),
    ({'labels': Y[:5]}, r'`labels` has shape \(5,\); expected \(6,\)'),
    ({'labels': [0, 0, 1, 2, 4, 40]}, "`labels` holds 1 class: '40'"),
    ({'labels': [0, 0, 1, 2, 4, None]}, 'lacks 1 label: 5 of 6'),
    ({'recall_at': (0,)}, '`K of recall_at` is 0'),
    ({'max_queries': 0}, '`max_queries` is 0'),
    ({'recall_at': 5}, '`recall_at` is 5; expected a list'),
    ({'max_classes': 10_001}, '`max_classes` is 10001; expected 2 to 10000'),
    ({'max_classes': 1}, '`max_classes` is 1; expected 2 to 10000'),
    ({'max_pairs': 0}, '`max_pairs` is 0'),
    ({'seed': 'a', 'max_queries': 2}, "`seed` is 'a'; expected an integer"),
    ({'alpha': 'a'}, "`alpha` is 'a'; expected a finite number"),
    (
      {'labels': [0, 1, 2, 3, 4, 5], 'taxonomy': APART, 'max_queries': 2},
      'none of the 2 queries drawn has .* draw more .`max_queries`',
    ),
    ({'distance': 'l1'}, "`distance` is 'l1'"),
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
