"""What is computed for the page, without a browser."""

import base64
import dataclasses
import io
import json

import numpy as np
import pytest
from PIL import Image

from hier_jax import evaluation, poincare
from hier_jax.errors import UserError
from hier_jax.viz import _hierarchy, _neighbors, _thumbnails, explore, scene
from tests.support import collections, planted_trees


def array(text, kind):
  return np.frombuffer(base64.b64decode(text), f'<{kind}').copy()


def parents(made):
  return array(made['tree']['parent'], 'i4')


@pytest.mark.parametrize('c', [None, 0.0, 0.5])
def test_neighbors_are_the_nearest_of_all(c):
  points = collections.scattered(70, c=c).embeddings
  index, far = _neighbors.nearest(points, 5, c=c)
  if c is None:
    unit = points / np.linalg.norm(points, axis=1, keepdims=True)
    expected = 1 - unit @ unit.T
  elif c:
    pairs = [
      [planted_trees.distance_of(a, b, c) for b in points] for a in points
    ]
    expected = np.array(pairs)
  else:
    expected = np.linalg.norm(points[:, None] - points, axis=2)
  np.fill_diagonal(expected, np.inf)
  order = np.argsort(expected, axis=1, kind='stable')[:, :5]
  np.testing.assert_array_equal(index, order)
  np.testing.assert_allclose(
    far, np.take_along_axis(expected, order, 1), rtol=1e-5, atol=1e-7
  )


def test_neighbors_are_those_of_search():
  points = collections.planted().embeddings
  index, far = _neighbors.nearest(points, 6, c=1.0)
  true, rows = evaluation.nearest(points, points, 7, c=1.0)
  np.testing.assert_array_equal(rows[:, 0], np.arange(len(points)))
  np.testing.assert_array_equal(index, rows[:, 1:])
  np.testing.assert_array_equal(far, true[:, 1:].astype(np.float32))


def test_of_equal_neighbors_the_lower_numbers_come_first():
  points = np.zeros((9, 2))
  index, far = _neighbors.nearest(points, 3, c=1.0)
  assert index[0].tolist() == [1, 2, 3] and index[8].tolist() == [0, 1, 2]
  assert not far.any()


def test_tree_is_that_of_the_proxies():
  planted = collections.planted(image=None)
  made = scene.build(planted)
  tree = evaluation.proxy_tree(planted.embeddings, planted.proxies, c=1.0)
  np.testing.assert_array_equal(parents(made), tree.parent)
  assert 'of the hierarchical proxies' in made['tree']['note']
  proxy = array(made['tree']['proxy'], 'i4')
  np.testing.assert_array_equal(proxy, tree.proxy[len(planted.ids) :])
  np.testing.assert_allclose(
    array(made['tree']['lengths'], 'f4'),
    tree.length[: len(planted.ids)],
    rtol=1e-5,
  )
  np.testing.assert_allclose(
    array(made['radius'], 'f4'), tree.radius, rtol=1e-5, atol=1e-6
  )


@pytest.mark.parametrize(
  ('changes', 'note', 'leaves_of'),
  [
    ({}, 'centroids of the classes', 'classes'),
    ({'labels': None}, 'images', 'items'),
  ],
)
def test_without_proxies_the_tree_is_by_linkage_and_says_so(
  changes, note, leaves_of
):
  planted = collections.planted(image=None, proxies=None, **changes)
  made = scene.build(planted)
  assert 'no hierarchical proxies' in made['tree']['note']
  assert note in made['tree']['note']
  parent, n = parents(made), len(planted.ids)
  tree = evaluation.Tree(parent)
  assert tree.num_leaves == n
  if leaves_of == 'classes':
    labels = collections.planted().labels
    same = labels[:, None] == labels
    np.testing.assert_array_equal(parent[:n, None] == parent[:n], same)
  else:
    expected = evaluation.linkage_tree(
      planted.embeddings, c=1.0, method='complete'
    )
    np.testing.assert_array_equal(parent, expected.parent)


def test_equal_rankings_are_shown_once():
  found = {'map@r': 0.5, 'cosine/map@r': 0.5}
  made = dataclasses.replace(collections.planted(), metrics=found)
  assert scene.build(made)['metrics'] == {'map@r': 0.5}


def test_proxies_asked_for_in_vain():
  for planted in (
    collections.planted(proxies=None),
    collections.planted(c=0.0),
  ):
    with pytest.raises(UserError, match='no hierarchical proxies'):
      scene.build(planted, tree='proxies')
    assert scene.build(dataclasses.replace(planted, image=None))['count']
  with pytest.raises(UserError, match="'forest'"):
    scene.build(collections.planted(), tree='forest')


def test_items_below_a_node_are_neighbors_in_order():
  planted = collections.planted(image=None)
  made = scene.build(planted)
  tree = evaluation.Tree(parents(made))
  order = array(made['tree']['order'], 'i4')
  n = len(planted.ids)
  assert sorted(order) == list(range(n))
  place = np.argsort(order)
  for node in range(n, len(tree.parent)):
    below = tree.order[tree.start[node] :][: tree.size[node]]
    places = np.sort(place[below])
    assert places[-1] - places[0] == len(below) - 1
  # Of one parent, those of a class stand together.
  parent = tree.parent[order]
  for node in set(parent.tolist()):
    labels = planted.labels[order[parent == node]]
    assert 1 + (np.diff(labels) != 0).sum() == len(set(labels.tolist()))


def test_names_are_those_of_half_of_the_items():
  planted = collections.planted(image=None)
  made = scene.build(planted)
  shares = array(made['tree']['shares'], 'f4')
  tree = evaluation.Tree(parents(made))
  n = len(planted.ids)
  for i, name in enumerate(made['tree']['names']):
    below = tree.order[tree.start[n + i] :][: tree.size[n + i]]
    labels = planted.labels[below]
    by = {f'class {k}': labels == k for k in range(20)}
    by |= {f'group {k}': labels % 3 == k for k in range(3)}
    assert by[name.split(', ')[0]].mean() == pytest.approx(shares[i])
    assert (', ' in name) == (shares[i] < 0.5)


def test_typical_items_are_the_nearest_to_their_proxy():
  planted = collections.planted(image=None)
  made = scene.build(planted)
  tree = evaluation.Tree(parents(made))
  proxy = array(made['tree']['proxy'], 'i4')
  typical = array(made['tree']['typical'], 'i4')
  n = len(planted.ids)
  for i, row in enumerate(proxy):
    below = tree.order[tree.start[n + i] :][: tree.size[n + i]]
    far = [
      planted_trees.distance_of(planted.embeddings[j], planted.proxies[row])
      for j in below
    ]
    assert planted_trees.distance_of(
      planted.embeddings[typical[i]], planted.proxies[row]
    ) == pytest.approx(min(far))
    assert typical[i] in below


@pytest.mark.parametrize('c', [None, 0.0, 0.25])
@pytest.mark.parametrize('n', [0, 1, 2, 3, 50])
def test_layouts_are_inside_the_disk(n, c):
  made = scene.build(collections.scattered(n, c=c))
  nodes = len(parents(made))
  for layout in made['layouts']:
    disk = array(layout['points'], 'f4').reshape(-1, 2)
    assert disk.shape == (nodes, 2)
    assert np.isfinite(disk).all()
    assert (np.sum(disk.astype(float) ** 2, 1) < 1).all()
  assert json.loads(json.dumps(made, allow_nan=False))['count'] == n


def test_children_lie_beyond_their_parents_and_apart():
  planted = collections.planted(image=None)
  made = scene.build(planted)
  disk = array(made['layouts'][0]['points'], 'f4').reshape(-1, 2)
  radius = np.asarray(poincare.dist0(disk, c=1.0))
  parent = parents(made)
  root = np.flatnonzero(parent < 0)[0]
  assert radius[root] == 0
  below = parent >= 0
  assert (radius[below] > radius[parent[below]] + 0.3).all()
  far = np.array(poincare.dist_matrix(disk, disk, c=1.0))
  np.fill_diagonal(far, np.inf)
  assert far.min() > 0.05


def test_embeddings_of_two_dimensions_are_only_magnified():
  planted = collections.planted(image=None)
  made = scene.build(planted)
  n = len(planted.ids)
  disk = array(made['layouts'][1]['points'], 'f4').reshape(-1, 2)[:n]
  true = planted.embeddings.astype(np.float32)
  drawn, known = (np.asarray(poincare.dist0(x, c=1.0)) for x in (disk, true))
  scale = drawn / known
  np.testing.assert_allclose(scale, scale[0], rtol=1e-4)
  assert 'Spearman correlation of distances' in made['layouts'][1]['note']
  cosines = lambda x: (x @ x.T) / np.outer(*2 * [np.linalg.norm(x, axis=1)])
  np.testing.assert_allclose(cosines(disk), cosines(true), atol=1e-4)


def test_correctness_is_that_of_the_first_neighbor():
  planted = collections.planted(images=1, image=None)
  made = scene.build(planted)
  assert set(array(made['correct'], 'u1').tolist()) == {2}
  planted = collections.planted(images=4, image=None)
  found = array(scene.build(planted)['correct'], 'u1')
  metrics = evaluation.retrieval_metrics(
    planted.embeddings, planted.labels, c=1.0, recall_at=[1]
  )
  assert (found == 1).mean() == pytest.approx(metrics['recall@1'])


def test_of_too_many_images_some_are_shown_and_it_says_so(tmp_path):
  planted = collections.planted()
  path = explore.write(planted, tmp_path / 'page.html', limit=50)
  text = path.read_text().partition('id="scene">')[2].partition('<')[0]
  made = json.loads(text)
  assert made['count'] == 50 == len(made['ids'])
  assert made['info']['shown'].startswith('50 of 136 images')
  rows = [planted.ids.index(name) for name in made['ids']]
  assert rows == sorted(set(rows)) and rows[0] == 0
  assert set(np.diff(rows)) == {2, 3}
  codes = array(made['levels'][-1]['codes'], 'i4')
  np.testing.assert_array_equal(codes, planted.labels[rows])
  page = base64.b64decode(made['atlas']['pages'][0])
  order, side = array(made['tree']['order'], 'i4'), made['atlas']['side']
  tiles = np.asarray(Image.open(io.BytesIO(page)))
  for place in 0, 17, 49:
    tile = tiles[place // 16 * side :, place % 16 * side :][
      side // 2, side // 2
    ]
    expected = collections.color(rows[order[place]])
    np.testing.assert_allclose(tile.astype(int), expected, atol=12)


def test_nothing_is_written_where_the_scene_fails(tmp_path):
  path = tmp_path / 'page.html'
  path.write_text('old')
  with pytest.raises(UserError, match='no hierarchical proxies'):
    explore.write(collections.planted(proxies=None), path, tree='proxies')
  assert path.read_text() == 'old' and len(list(tmp_path.iterdir())) == 1
  with pytest.raises(UserError, match=r"ends with '.pdf'; expected .html"):
    explore.write(collections.planted(), tmp_path / 'page.pdf')


def test_page_holds_text_as_json_that_ends_no_script(tmp_path):
  title = '</script><!-- \u2028 & \ud83d'
  planted = collections.planted(title=title)
  text = explore.write(planted, tmp_path / 'page.html').read_text('utf-8')
  start = text.index('<script type="application/json" id="scene">')
  body = text[start:].partition('>')[2].partition('</script>')[0]
  assert not set('<>&\u2028') & set(body) and body.isascii()
  assert json.loads(body)['title'] == title
  assert text.count('<script') == text.count('</script>') == 2


@pytest.mark.parametrize(('largest', 'side'), [(10**9, 96), (40_000, 48)])
def test_thumbnails_are_smaller_where_they_would_take_too_much(
  largest, side, monkeypatch
):
  monkeypatch.setattr(_thumbnails, '_LARGEST', largest)
  atlas = _thumbnails.atlas(lambda i: noise(i, 100), range(34))
  assert atlas['side'] == side
  page = base64.b64decode(atlas['pages'][0])
  assert len(atlas['pages']) == 1 and len(page) < largest
  # Two rows of 16, and two more.
  assert Image.open(io.BytesIO(page)).size == (16 * side, 3 * side)


def noise(i, side):
  draw = np.random.default_rng(i)
  return Image.fromarray(draw.integers(0, 256, (side, side, 3), np.uint8))


def test_many_items_without_labels_are_grouped(monkeypatch):
  monkeypatch.setattr(_hierarchy, '_ITEMS', 50)
  monkeypatch.setattr(_hierarchy, '_GROUPS', 9)
  found = dataclasses.replace(collections.scattered(200), image=None)
  made = scene.build(found)
  assert 'k-means' in made['tree']['note']
  groups = np.unique(parents(made)[:200])
  assert 2 <= len(groups) <= 9
