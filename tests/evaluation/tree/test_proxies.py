"""Trees of proxies against hand-made ones, loops and planted hierarchies."""

import collections
import math
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation.tree import proxies as tree_lib
from hier_jax.evaluation.tree.proxies import proxy_tree
from hier_jax.evaluation.tree.structure import contract
from tests.support.planted_trees import (
  BINARY,
  PLANTED,
  distance_of,
  groups,
  in_ball,
  plant,
)


def edges(tree):
  """Children and parents, by what they are: ('item' or 'proxy', row)."""
  n = tree.num_leaves
  what = [('item', i) for i in range(n)]
  what += [('proxy', int(row)) for row in tree.proxy[n:]]
  found = {child: what[p] for child, p in zip(what, tree.parent, strict=True)}
  del found[what[int(np.argmin(tree.parent))]]
  return found


def test_by_hand():
  # Two proxies to the left and right of one near the center; the item in the
  # middle has no lower ancestor. The last proxy has nothing below it.
  proxies = np.array([[-0.6, 0], [0.01, 0], [0.5, 0], [0.0, 0.9]])
  items = np.array([[0.8, 0.2], [-0.9, 0], [0.0, 0.1], [0.8, -0.2]])
  tree = proxy_tree(items, proxies, c=1.0, names='abcd')
  # Nodes 4, 5, 6 are the proxies 0, 2, 1: the farthest from the origin first.
  np.testing.assert_array_equal(tree.parent, [5, 4, 6, 5, 6, 6, -1])
  np.testing.assert_array_equal(tree.proxy, [-1, -1, -1, -1, 0, 2, 1])
  assert tree.names == ('a', 'b', 'c', 'd')
  assert (tree.num_leaves, tree.height) == (4, None)
  places = np.concatenate([items, proxies[[0, 2, 1]]])
  np.testing.assert_allclose(
    tree.radius, [distance_of(p, 0 * p) for p in places], rtol=1e-12
  )
  length = [
    distance_of(places[i], places[p]) for i, p in enumerate(tree.parent[:-1])
  ]
  np.testing.assert_allclose(tree.length, [*length, 0], rtol=1e-12)
  assert tree.parent.dtype == tree.proxy.dtype == np.int32
  assert tree.radius.dtype == tree.length.dtype == np.float64


def test_root_by_hand():
  # Nothing lies near the center, and the two proxies are farther from each
  # other than from it: neither is above the other.
  proxies = np.array([[0.5, 0], [-0.52, 0]])
  items = np.array([[0.7, 0.1], [0.7, -0.1], [-0.7, 0.1], [-0.7, -0.1]])
  for root in ('auto', 'origin'):
    tree = proxy_tree(items, proxies, c=1.0, root=root)
    np.testing.assert_array_equal(tree.parent, [5, 5, 4, 4, 6, 6, -1])
    np.testing.assert_array_equal(tree.proxy[4:], [1, 0, -1])
    assert tree.radius[-1] == 0
    np.testing.assert_array_equal(tree.length[4:], [*tree.radius[4:6], 0])
  tree = proxy_tree(items, proxies, c=1.0, root='proxy')
  np.testing.assert_array_equal(tree.parent, [5, 5, 4, 4, 5, -1])
  # A proxy stands for the center where the others are twice as far from it.
  for near in (0.1, 0.4):
    central = np.array([[0.0, near]])
    tree = proxy_tree(items, np.vstack([proxies, central]), c=1.0)
    assert (tree.proxy[tree.parent < 0] == 2) == (near == 0.1)
  assert proxy_tree(items, proxies[:1], c=1.0).proxy[-1] == 0


def test_items_are_leaves_wherever_they_lie():
  # Both proxies are farther from the origin than the items are.
  items = np.array([[0.5, 0.0], [0.0, 0.0], [-0.5, 0.0]])
  proxies = np.array([[0.6, 0.0], [-0.7, 0.0]])
  tree = proxy_tree(items, proxies, c=1.0)
  assert edges(tree) == {
    ('item', 0): ('proxy', 0),
    ('item', 1): ('proxy', 0),
    ('item', 2): ('proxy', 1),
    ('proxy', 0): ('proxy', -1),
    ('proxy', 1): ('proxy', -1),
  }


def oracle(items, proxies, c, k, root):
  """`edges` by the definition, with loops."""
  origin = np.zeros_like(proxies[0])
  point = {-1: origin, **dict(enumerate(proxies))}
  ranked = sorted(
    range(len(proxies)), key=lambda p: (distance_of(proxies[p], origin, c), p)
  )
  candidates = ranked
  if root == 'origin':
    ranked = [-1, *ranked]

  def parent(i, nodes, candidates):
    def nearest(i):
      return sorted(nodes, key=lambda j: distance_of(nodes[i], nodes[j], c))[:k]

    friends = [j for j in nearest(i) if j != i and i in nearest(j)]
    votes, closest = collections.Counter(), {}
    for j in friends or [i]:
      ends = nodes[i], nodes[j]
      far = {
        p: max(distance_of(e, point[p], c) for e in ends) for p in candidates
      }
      pick = min(candidates, key=far.get)
      votes[pick] += 1
      closest[pick] = min(far[pick], closest.get(pick, math.inf))
    return min(votes, key=lambda p: (-votes[p], closest[p]))

  nodes = dict(enumerate(items))
  found = {('item', i): ('proxy', parent(i, nodes, candidates)) for i in nodes}
  nodes = {p: point[p] for p in ranked}
  for place, p in enumerate(ranked[1:], 1):
    found['proxy', p] = 'proxy', parent(p, nodes, ranked[:place])
  used = set()
  for node in [node for node in found if node[0] == 'item']:
    while node in found:
      used.add(node)
      node = found[node]
  return {node: found[node] for node in used}


@pytest.mark.parametrize('root', ['proxy', 'origin'])
@pytest.mark.parametrize(('k', 'c'), [(1, 0.1), (1, 1.0), (2, 3.0), (5, 1.0)])
def test_the_rule_with_loops(k, c, root, monkeypatch):
  # Several blocks of proxies, of pairs and of nearest neighbors.
  monkeypatch.setattr(tree_lib, '_PROXIES', 7)
  monkeypatch.setattr(tree_lib, '_PAIRS', 11)
  monkeypatch.setattr(tree_lib, '_SCORES', 100)
  rng = np.random.default_rng(k)
  items, proxies = in_ball(rng, 31, 3, c, low=0.5), in_ball(rng, 23, 3, c)
  tree = proxy_tree(items, proxies, c=c, k=k, root=root)
  assert edges(tree) == oracle(items, proxies, c, k, root)


def test_the_nearest_proxy_is_the_ancestor_of_an_item_and_all_nearer_ones():
  rng = np.random.default_rng(3)
  items, proxies = in_ball(rng, 40, 4), in_ball(rng, 10, 4)
  far = np.array([[distance_of(x, p) for p in proxies] for x in items])
  tree = proxy_tree(items, proxies, c=1.0)
  for i in range(40):
    p = tree.proxy[tree.parent[i]]
    for j in np.flatnonzero(far[:, p] < far[i, p]):
      assert np.argmin(np.maximum(far[i], far[j])) == p


@pytest.mark.parametrize('k', [1, 4])
@pytest.mark.parametrize(('n', 'num_proxies'), [(1, 1), (5, 40), (200, 30)])
def test_is_a_tree_of_all_items(n, num_proxies, k):
  rng = np.random.default_rng(n)
  items, proxies = in_ball(rng, n, 6), in_ball(rng, num_proxies, 6)
  tree = proxy_tree(items, proxies, c=1.0, k=min(k, n, num_proxies))
  assert tree.num_leaves == n and set(range(n)) in groups(tree)
  inner = np.arange(n, len(tree.parent))
  assert (tree.parent[inner[:-1]] > inner[:-1]).all()
  assert (tree.radius[inner[:-1]] >= tree.radius[tree.parent[inner[:-1]]]).all()
  used = tree.proxy[inner][tree.proxy[inner] >= 0]
  assert len(set(used)) == len(used) <= num_proxies


@pytest.mark.parametrize('k', [1, 4])
def test_order_does_not_matter(k):
  rng = np.random.default_rng(4)
  items, proxies = in_ball(rng, 60, 5), in_ball(rng, 20, 5)
  expected = edges(proxy_tree(items, proxies, c=1.0, k=k))
  of_item, of_proxy = rng.permutation(60), rng.permutation(20)
  tree = proxy_tree(items[of_item], proxies[of_proxy], c=1.0, k=k)
  rows = {'item': of_item, 'proxy': [*of_proxy, -1]}
  name = lambda node: (node[0], int(rows[node[0]][node[1]]))
  assert {name(a): name(b) for a, b in edges(tree).items()} == expected


def test_equal_rows():
  items = np.float32([[0.5, 0.1]] * 3 + [[-0.5, 0.1]] * 2)
  proxies = np.float32([[0.4, 0]] * 2 + [[0, 0]] * 2 + [[-0.4, 0]] * 2)
  for k in (1, 3):
    tree = proxy_tree(items, proxies, c=1.0, k=k)
    assert groups(contract(tree)) == {
      frozenset(range(5)),
      frozenset([0, 1, 2]),
      frozenset([3, 4]),
    }
  # The lower row is the parent of its twins.
  assert set(tree.proxy[tree.parent[:5]]) == {0, 4}
  assert tree.proxy[-1] == 2


# ---- planted hierarchies ----------------------------------------------------


def with_unused(rng, items, proxies):
  """One more dimension, in which lie proxies that are far from everything."""
  aside = rng.uniform(0.995, 0.999, 5)[:, None] * [0.0, 0.0, 1.0]
  flat = [np.pad(x, [(0, 0), (0, 1)]) for x in (items, proxies)]
  return flat[0], np.vstack([flat[1], aside])


@pytest.mark.parametrize('c', [0.1, 1.0])
@pytest.mark.parametrize('spec', [PLANTED, BINARY])
def test_planted_tree_is_found(spec, c):
  rng = np.random.default_rng(5)
  items, proxies, below = plant(spec)
  items, proxies = with_unused(rng, items, proxies)
  proxies *= 1 + 0.02 * rng.normal(size=(len(proxies), 1)) * (
    1 - np.linalg.norm(proxies, axis=1, keepdims=True)
  )
  order = rng.permutation(len(proxies))
  proxies = proxies[order] / math.sqrt(c)
  tree = proxy_tree(items / math.sqrt(c), proxies, c=c)
  assert groups(tree) == below
  assert sum(tree.proxy >= 0) == len(below)
  assert tree.proxy[-1] == np.argmin(order)
  # Each proxy of the plan is where it was planted.
  assert set(order[tree.proxy[len(items) :]]) == set(range(len(below)))


@pytest.mark.parametrize('spec', [BINARY, (*PLANTED[:1], *PLANTED[2:])])
def test_planted_tree_is_found_without_a_proxy_at_its_root(spec):
  items, proxies, below = plant(spec)
  tree = proxy_tree(items, proxies[1:], c=1.0)
  assert groups(tree) == below
  assert tree.proxy[-1] == -1 and tree.radius[-1] == 0


def test_noisy_planted_tree_in_many_dimensions():
  rng = np.random.default_rng(6)
  proxies, parent = [np.zeros(16)], [-1]
  # Directions of children in 16 dimensions are nearly orthogonal.
  for level, branches in ((0, 5), (1, 4), (2, 4)):
    depth = np.array([_levels(parent, i) for i in range(len(parent))])
    for node in np.flatnonzero(depth == level):
      for _ in range(branches):
        u = rng.normal(size=16) / 4 + 0.8 * proxies[node]
        u *= math.tanh(1.1) / np.linalg.norm(u)
        proxies.append(_mobius(proxies[node], u))
        parent.append(node)
  proxies, parent = np.array(proxies), np.array(parent)
  items, parent_of_item = proxies[26:], parent[26:]
  noise = lambda x: (
    x + 0.03 * (1 - np.sum(x * x, -1, keepdims=True)) * rng.normal(size=x.shape)
  )
  tree = proxy_tree(noise(items), noise(proxies[:26]), c=1.0)
  found = edges(tree)
  for i, p in enumerate(parent_of_item):
    assert found['item', i] == ('proxy', p)
  for p in range(1, 26):
    assert found['proxy', p] in {('proxy', parent[p]), ('proxy', -1)}


def _levels(parent, node):
  return 0 if node <= 0 else 1 + _levels(parent, parent[node])


def _mobius(x, y):
  xy, xx, yy = x @ y, x @ x, y @ y
  return ((1 + 2 * xy + yy) * x + (1 - xx) * y) / (1 + 2 * xy + xx * yy)


def test_more_neighbors_want_common_ancestors():
  # A stray proxy lies nearer to item 0 than the one that items 0 to 2 share.
  items = np.array([[0.8, 0.0], [0.8, 0.2], [0.8, -0.2], [-0.8, 0.0]])
  proxies = np.array([[0.0, 0.0], [0.7, 0.0], [0.86, 0.0], [-0.7, 0.0]])
  for k, expected in ((1, [2, 1, 1, 3]), (3, [1, 1, 1, 3])):
    found = edges(proxy_tree(items, proxies, c=1.0, k=k))
    assert [found['item', i][1] for i in range(4)] == expected


# ---- arrays -----------------------------------------------------------------


def test_dtypes():
  rng = np.random.default_rng(7)
  items = jnp.asarray(in_ball(rng, 30, 4, 1.1), jnp.bfloat16)
  proxies = jnp.asarray(in_ball(rng, 10, 4, 1.1), jnp.bfloat16)
  wide = [np.asarray(x, np.float64) for x in (items, proxies)]
  expected = proxy_tree(*wide, c=1.0)
  for kind in (lambda x: x, np.asarray, lambda x: x.astype(jnp.float32)):
    tree = proxy_tree(kind(items), kind(proxies), c=1.0)
    np.testing.assert_array_equal(tree.parent, expected.parent)


def test_far_out_in_the_ball():
  # In float32 all these lie on the boundary.
  angle = np.radians([0, 1e-6, 90, 90 + 1e-6])
  x = np.stack([np.cos(angle), np.sin(angle)], -1)
  items, proxies = (1 - 1e-10) * x, (1 - 1e-8) * x[::2]
  tree = proxy_tree(items, proxies, c=1.0)
  assert groups(tree) == {frozenset(g) for g in ([0, 1], [2, 3], range(4))}


def test_memory_is_of_a_block_of_proxies():
  rng = np.random.default_rng(8)
  items, proxies = in_ball(rng, 4000, 8), in_ball(rng, 4096, 8)
  tracemalloc.start()
  try:
    proxy_tree(items, proxies, c=1.0)
    _, peak = tracemalloc.get_traced_memory()
  finally:
    tracemalloc.stop()
  assert peak < 4000 * 4096 * 8 / 4


ITEMS, PROXIES = np.full((4, 2), 0.5), np.full((3, 2), 0.2)


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'c': 0.0}, r'`c` is 0.0; .* linkage_tree'),
    ({'c': None}, r'`c` is None; .* linkage_tree'),
    ({'c': -1.0}, '`c` is -1.0'),
    ({'c': 2.0}, r'`embeddings` lies outside the ball .* 4 of 4 rows'),
    ({'proxies': 4 * PROXIES}, '`proxies` lies outside the ball'),
    ({'proxies': np.full((3, 2), np.nan)}, '`proxies` holds NaN or Inf in 3'),
    ({'embeddings': np.full((4, 2), np.inf)}, '`embeddings` holds NaN or Inf'),
    ({'embeddings': ITEMS[0]}, r'`embeddings` has shape \(2,\)'),
    ({'proxies': PROXIES[:0]}, r'`proxies` has shape \(0, 2\)'),
    ({'proxies': np.zeros((3, 5))}, '`proxies` has 5 dim.* `embeddings` 2'),
    ({'proxies': np.zeros((3, 2), int)}, '`proxies` has dtype int64'),
    ({'k': 0}, '`k` is 0'),
    ({'k': 1.5}, '`k` is 1.5'),
    ({'k': 4}, '`k` is 4 for 4 items and 3 proxies'),
    ({'root': 'centre'}, "`root` is 'centre'"),
    ({'names': ['a']}, '`names` has 1 entries; expected 4'),
    ({'names': ['a', 'b', 'c\n', 'd']}, r"name 2 is 'c\\n'"),
  ],
)
def test_bad_input(arguments, message):
  given = {'embeddings': ITEMS, 'proxies': PROXIES, 'c': 1.0, **arguments}
  with pytest.raises(UserError, match=message):
    proxy_tree(given.pop('embeddings'), given.pop('proxies'), **given)
