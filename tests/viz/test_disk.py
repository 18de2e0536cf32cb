"""Items, proxies and the tree's geodesics on the disk."""

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.viz import disk, outline, projection
from hier_jax.viz import theme as themes
from tests.support import collections, figures


def parts(drawn):
  """The axes, and the edges of the tree and of the items by name."""
  (axes,) = drawn.axes
  edges = {patch.get_gid(): patch for patch in axes.patches if patch.get_gid()}
  return axes, edges


def lines(patch):
  """The points of each line of a path."""
  path = patch.get_path()
  starts = np.flatnonzero(path.codes == path.MOVETO)
  return np.split(path.vertices, starts[1:])


def points(axes):
  """Places of all that is drawn as a point, inner nodes last."""
  return np.concatenate([found.get_offsets() for found in axes.collections])


@pytest.mark.parametrize('layout', ['tree', 'pca'])
def test_each_edge_is_a_geodesic(layout):
  made = collections.planted(images=3)
  drawn = disk.figure(made, layout=layout)
  axes, edges = parts(drawn)
  tree = outline.outline(made).hierarchy
  n = len(made)
  found = lines(edges['items'])
  assert len(found) == n
  inner = lines(edges['tree'])
  assert len(inner) == len(tree.parent) - n - 1
  for line in [*found, *inner]:
    ends = line[[0, -1]]
    cross = ends[0, 0] * ends[1, 1] - ends[0, 1] * ends[1, 0]
    if abs(cross) < 1e-6:
      continue
    middle = np.linalg.solve(2 * ends, 1 + np.sum(ends**2, 1))
    radius = np.sqrt(middle @ middle - 1)
    np.testing.assert_allclose(
      np.linalg.norm(line - middle, axis=1), radius, rtol=1e-6
    )
  # Each begins where its item is.
  starts = np.array([line[0] for line in found])
  items = points(axes)[:n]
  assert {*map(tuple, starts.round(9))} == {*map(tuple, items.round(9))}
  assert np.linalg.norm(items, axis=1).max() < 1


@pytest.mark.parametrize('c', [0.1, 1.0, 3.0])
def test_the_curvature_scales_the_ball(c):
  """Points of a ball of another radius are at the same places of the disk."""
  made = collections.planted(images=2)
  scaled = collections.planted(
    images=2,
    c=c,
    embeddings=made.embeddings / c**0.5,
    proxies=made.proxies / c**0.5,
  )
  places = [
    points(disk.figure(x, layout='pca').axes[0]) for x in (made, scaled)
  ]
  np.testing.assert_allclose(places[0], places[1], atol=1e-6)


def test_the_caption_says_what_is_lost():
  made = collections.planted()
  for layout, name in (('pca', 'Tangent PCA'), ('tree', 'in the tree')):
    (caption,) = disk.figure(made, layout=layout).texts
    text = caption.get_text().replace('\n', ' ')
    assert name in text and '(c = 1)' in text
    assert 'Spearman correlation of distances 0.' in text
    assert '% of the 10 nearest neighbors kept' in text
    assert 'of the hierarchical proxies' in text
  (caption,) = disk.figure(collections.scattered(9, c=None)).texts
  assert 'cosine distance on' in caption.get_text()
  same = collections.planted(images=2, embeddings=np.zeros((34, 2)))
  (caption,) = disk.figure(same, source='linkage', layout='pca').texts
  assert 'all distances are equal' in caption.get_text()


def test_thumbnails_hide_no_other():
  made = collections.planted()
  (axes,) = disk.figure(made, thumbnails=40).axes
  boxes = np.array([image.get_extent() for image in axes.images])
  assert 20 < len(boxes) <= 40
  left, right, bottom, top = boxes.T
  apart = (
    (left[:, None] >= right - 1e-9)
    | (left >= right[:, None] - 1e-9)
    | (bottom[:, None] >= top - 1e-9)
    | (bottom >= top[:, None] - 1e-9)
  )
  assert (apart | np.eye(len(boxes), dtype=bool)).all()
  (axes,) = disk.figure(made, thumbnails=0).axes
  assert not axes.images


def test_a_picture_that_cannot_be_read_is_left_out():
  def broken(item):
    raise UserError('no such file')

  (axes,) = disk.figure(collections.planted(image=broken)).axes
  assert not axes.images


def test_many_classes_leave_a_legend_that_fits(tmp_path):
  n, classes = 300, 100
  draw = np.random.default_rng(0)
  # Class i has more items, the lower i is.
  labels = np.sort(draw.integers(classes, size=n) * draw.integers(2, size=n))
  made = collections.planted(
    embeddings=draw.normal(size=(n, 3)) / 9,
    proxies=None,
    ids=tuple(map(str, range(n))),
    labels=labels,
    classes=tuple(f'class {i}' for i in range(classes)),
    taxonomy=None,
    image=None,
  )
  drawn = disk.figure(made, level='class')
  (legend,) = drawn.legends
  names = [text.get_text().strip() for text in legend.get_texts()]
  count = len(np.unique(labels))
  assert len(names) == 28 and names[0] == 'class 0'
  assert names[-1] == f'{count - 27} others'
  looks = {
    (str(line.get_color()), line.get_marker()) for line in legend.legend_handles
  }
  assert len(looks) == 28
  drawn.canvas.draw()
  box = legend.get_window_extent()
  (caption,) = drawn.texts
  assert box.y0 >= 0 and box.y1 <= caption.get_window_extent().y0
  assert box.x0 >= 0 and box.x1 <= drawn.bbox.x1


@pytest.mark.parametrize('theme', themes.THEMES)
def test_names_are_text(theme, tmp_path):
  names = (*figures.HOSTILE, *map(str, range(11)))
  made = collections.planted(names=names, title='$\\frac$ </svg>')
  drawn = disk.figure(made, level='class', theme=theme)
  themes.write(drawn, tmp_path / 'a.svg')
  texts = [text.strip() for text in figures.svg_texts(tmp_path / 'a.svg')]
  assert '$\\frac$ </svg>' in texts and '_hidden' in texts
  assert '$\\frac{1}{$ \\undefined' in texts
  assert max(map(len, texts)) < 200
  themes.write(drawn, tmp_path / 'a.png')


@pytest.mark.parametrize('layout', ['tree', 'pca'])
@pytest.mark.parametrize('n', [1, 2, 3])
def test_few_items(n, layout, tmp_path):
  drawn = disk.figure(collections.scattered(n), layout=layout)
  themes.write(drawn, tmp_path / 'a.png')
  (axes,) = drawn.axes
  assert len(points(axes)) >= n
  # The item itself, not the node above it.
  assert len(axes.images) >= 1


def test_mistakes():
  made = collections.planted(images=2)
  with pytest.raises(UserError, match='no images'):
    disk.figure(collections.scattered(0))
  with pytest.raises(UserError, match="is 'tsne'; expected one of tree, pca"):
    disk.figure(made, layout='tsne')
  with pytest.raises(UserError, match=r"did you mean 'group'\?"):
    disk.figure(made, level='groop')
  with pytest.raises(UserError, match='have no labels'):
    disk.figure(collections.scattered(4), level='class')
  with pytest.raises(UserError, match='`thumbnails` is -1'):
    disk.figure(made, thumbnails=-1)
  with pytest.raises(UserError, match="is 'sepia'"):
    disk.figure(made, theme='sepia')
  with pytest.raises(UserError, match='NaN'):
    collections.planted(embeddings=np.full((102, 2), np.nan), images=6)


def test_layouts_are_those_of_the_projection():
  assert set(projection.METHODS) < set(disk.LAYOUTS)
