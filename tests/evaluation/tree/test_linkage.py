"""Linkage decoding against hand counts, loops and planted hierarchies."""

import math

import numpy as np
import pytest
from scipy.cluster import hierarchy

from hier_jax import poincare
from hier_jax.errors import UserError
from hier_jax.evaluation.tree import linkage as tree_linkage
from hier_jax.evaluation.tree.linkage import linkage_tree
from tests.support.planted_trees import (
  BINARY,
  distance_of,
  groups,
  in_ball,
  plant,
)


def cosine(x, y):
  return 1 - x @ y / math.sqrt((x @ x) * (y @ y))


def lca_depths(x, c):
  """Least distances to the origin of 301 points of each geodesic, `[n, n]`."""
  t, x = np.linspace(0, 1, 301, dtype=np.float32), np.float32(x)
  places = poincare.geodesic(t, x[:, None, None], x[None, :, None], c=c)
  return np.asarray(poincare.dist0(places, c=c)).min(-1)


def merge_heights(far, method):
  """Heights of the merges of a matrix `[n, n]`."""
  n = len(far)
  return hierarchy.linkage(far[np.triu_indices(n, 1)], method)[:, 2]


def matrix(x, function):
  """`[n, n]` of a function of two rows."""
  return np.array([[function(a, b) for b in x] for a in x])


def test_by_hand():
  # On a line: 1 and 2 meet first, then 10 and 13, then all.
  x = np.array([[1.0], [10.0], [2.0], [13.0]])
  tree = linkage_tree(x, distance='euclidean', names=['a', 'b', 'c', 'd'])
  np.testing.assert_array_equal(tree.parent, [4, 5, 4, 5, 6, 6, -1])
  np.testing.assert_allclose(tree.height, [0, 0, 0, 0, 1, 3, 10])
  np.testing.assert_allclose(tree.length, [1, 3, 1, 3, 9, 7, 0])
  assert tree.names == ('a', 'b', 'c', 'd')
  assert tree.proxy is None and tree.radius is None
  for method, top in (('single', 8), ('complete', 12)):
    tree = linkage_tree(x, distance='euclidean', method=method)
    np.testing.assert_allclose(tree.height[-1], top)


@pytest.mark.parametrize(
  ('distance', 'c', 'method'),
  [
    ('cosine', None, 'average'),
    ('euclidean', 0.0, 'complete'),
    ('euclidean', 0.0, 'ward'),
    ('hyperbolic', 0.4, 'average'),
    ('lca_depth', 0.4, 'single'),
    ('lca_proxy', 0.4, 'average'),
    ('lca_proxy', None, 'single'),
    ('lca_proxy', 0.0, 'single'),
  ],
)
def test_distances_with_loops(distance, c, method, monkeypatch):
  monkeypatch.setattr(tree_linkage, '_PAIRS', 40)
  monkeypatch.setattr(tree_linkage, '_COMPARED', 15)
  rng = np.random.default_rng(0)
  x, proxies = in_ball(rng, 13, 3, c or 1), in_ball(rng, 6, 3, c or 1)
  hyperbolic = lambda a, b: distance_of(a, b, c)
  plain = cosine if c is None else hyperbolic if c else math.dist
  functions = {
    'cosine': plain,
    'euclidean': math.dist,
    'hyperbolic': plain,
    'lca_proxy': lambda a, b: min(
      max(plain(a, p), plain(b, p)) for p in proxies
    ),
  }
  tree = linkage_tree(
    x,
    c=c,
    distance=distance,
    method=method,
    proxies=proxies if distance == 'lca_proxy' else None,
  )
  if distance == 'lca_depth':
    depths, tolerance = lca_depths(x, c), 1e-3
    far = depths.max() - depths
  else:
    far, tolerance = matrix(x, functions[distance]), 1e-12
  expected = merge_heights(far, method)
  np.testing.assert_allclose(tree.height[13:], expected, rtol=tolerance)
  assert (np.diff(tree.height[13:]) >= 0).all() and (tree.length >= 0).all()
  assert tree.num_leaves == 13 and len(tree.parent) == 25


def test_hyperbolic_ancestor_by_hand():
  # (x, y, depth of the LCA as a share of the radius of the disk): across the
  # origin, on one ray, at a right angle where the middle of the Klein chord is
  # nearest, and at an angle so sharp that an end is.
  half = 2 * 0.5 / (1 + 0.5**2)
  cases = [
    ((0.5, 0.0), (-0.9, 0.0), 0.0),
    ((0.5, 0.0), (0.9, 0.0), half),
    ((0.5, 0.0), (0.0, 0.5), half / math.sqrt(2)),
    ((0.5, 0.0), (0.9, 0.01), half),
    ((0.5, 0.0), (0.5, 0.0), half),
    ((0.0, 0.0), (0.9, 0.0), 0.0),
  ]
  for x, y, klein in cases:
    for c in (1.0, 0.25):
      points = np.array([x, y]) / math.sqrt(c)
      tree = linkage_tree(points, c=c, distance='lca_depth')
      deepest = max(distance_of(p, 0 * p, c) for p in points)
      expected = deepest - math.atanh(klein) / math.sqrt(c)
      np.testing.assert_allclose(tree.height[2], expected, atol=1e-7)


def test_no_metric_is_the_distance_of_the_space():
  rng = np.random.default_rng(1)
  x = in_ball(rng, 9, 3)
  named = {None: 'cosine', 0.0: 'euclidean', 1.0: 'hyperbolic'}
  for c, distance in named.items():
    np.testing.assert_array_equal(
      linkage_tree(x, c=c).height,
      linkage_tree(x, c=c, distance=distance).height,
    )


@pytest.mark.parametrize(
  ('distance', 'method'),
  [
    ('lca_depth', 'single'),
    ('lca_proxy', 'average'),
    ('hyperbolic', 'average'),
  ],
)
def test_planted_binary_tree_is_found(distance, method):
  items, proxies, below = plant(BINARY)
  tree = linkage_tree(
    items,
    c=1.0,
    distance=distance,
    method=method,
    proxies=proxies if distance == 'lca_proxy' else None,
  )
  assert groups(tree) == below


def test_order_does_not_matter():
  rng = np.random.default_rng(2)
  x, order = in_ball(rng, 30, 4), rng.permutation(30)
  for distance in ('hyperbolic', 'lca_depth'):
    expected = groups(linkage_tree(x, c=1.0, distance=distance))
    found = groups(linkage_tree(x[order], c=1.0, distance=distance))
    assert {frozenset(order[list(g)]) for g in found} == expected


def test_equal_rows():
  x = np.repeat(in_ball(np.random.default_rng(3), 2, 4), 3, 0)
  for distance in ('hyperbolic', 'lca_depth'):
    tree = linkage_tree(x, c=1.0, distance=distance)
    if distance == 'hyperbolic':
      assert {frozenset([0, 1, 2]), frozenset([3, 4, 5])} <= groups(tree)


def test_names_of_an_array():
  tree = linkage_tree(np.eye(3), names=np.array(['x', 'yy', 'z']))
  assert tree.names == ('x', 'yy', 'z') and type(tree.names[0]) is str


X = np.float32([[0.1, 0.2], [0.3, 0.1], [0.2, 0.2]])


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'embeddings': X[:1]}, r'has 1 rows; expected 2 to 3: .*class_centroids'),
    ({'embeddings': np.vstack([X, X])}, 'has 6 rows; .*class_centroids'),
    (
      {'distance': 'manhattan'},
      "`distance` is 'manhattan'; .*'cosine'.*'lca_proxy",
    ),
    (
      {'distance': 'hyperbolic'},
      "`distance` is 'hyperbolic' at c = None; .*c > 0",
    ),
    ({'distance': 'lca_depth', 'c': 0}, "'lca_depth' at c = 0.0; .*c > 0"),
    (
      {'distance': 'cosine', 'c': 1},
      "`distance` is 'cosine' at c = 1.0; .*None",
    ),
    ({'method': 'centroid'}, "`method` is 'centroid'"),
    ({'method': 'ward'}, "'ward' with 'cosine'"),
    ({'method': 'ward', 'c': 1.0}, "'ward' with 'hyperbolic'"),
    ({'distance': 'lca_proxy'}, "'lca_proxy' with no `proxies`"),
    ({'proxies': X}, "'cosine' with `proxies`"),
    (
      {'distance': 'lca_proxy', 'proxies': np.ones((2, 3))},
      '`proxies` has 3 dimensions and `embeddings` 2',
    ),
    (
      {'distance': 'lca_proxy', 'proxies': 9 * X, 'c': 1.0},
      '`proxies` lies outside the ball',
    ),
    ({'embeddings': X * np.nan}, '`embeddings` holds NaN or Inf in 3 of 3'),
    ({'embeddings': 9 * X, 'c': 1.0}, '`embeddings` lies outside the ball'),
    ({'c': -1.0}, '`c` is -1.0'),
    ({'names': ['a']}, '`names` has 1 entries; expected 3'),
  ],
)
def test_bad_input(arguments, message, monkeypatch):
  monkeypatch.setattr(tree_linkage, 'MAX_ITEMS', 3)
  given = {'embeddings': X, **arguments}
  with pytest.raises(UserError, match=message):
    linkage_tree(given.pop('embeddings'), **given)


def test_limit_is_what_memory_allows():
  # Two float64 copies of all distances.
  pairs = tree_linkage.MAX_ITEMS * (tree_linkage.MAX_ITEMS - 1) // 2
  assert 2 * 8 * pairs < 1e9


@pytest.mark.parametrize('method', ['average', 'ward'])
@pytest.mark.parametrize('scale', [2.0**800, 2.0**-800])
def test_euclidean_trees_do_not_depend_on_the_scale(method, scale):
  x = np.random.default_rng(5).normal(size=(9, 3))
  tree = linkage_tree(x, c=0, method=method)
  found = linkage_tree(scale * x, c=0, method=method)
  np.testing.assert_array_equal(found.parent, tree.parent)
  np.testing.assert_allclose(found.height / scale, tree.height, rtol=1e-12)
