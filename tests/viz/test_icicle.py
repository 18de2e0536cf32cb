"""The tree from its root downward."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from hier_jax.errors import UserError
from hier_jax.viz import icicle, outline
from hier_jax.viz import theme as themes
from tests.support import collections, figures


def bars(drawn):
  (axes,) = drawn.axes
  return [bar for bar in axes.patches if bar.get_height() == 1]


@pytest.mark.parametrize('theme', themes.THEMES)
def test_the_figure_is_as_wide_as_its_items(theme):
  made = collections.planted(images=2)
  picture = lambda item: Image.new('RGB', (9, 5), (5 * item, 0, 0))
  made = dataclasses.replace(made, image=picture)
  drawn = icicle.figure(made, theme=theme)
  (axes,) = drawn.axes
  n = len(made)
  assert axes.get_xlim() == (0, n)
  tree = outline.outline(made).hierarchy
  *strip, _ = sorted(bars(drawn), key=lambda bar: -bar.get_y())
  lowest = strip[0].get_y()
  # Below is a bar for each run of items of one color, above one for each node.
  strip = [bar for bar in strip if bar.get_y() == lowest]
  assert sum(bar.get_width() for bar in strip) == n
  groups = made.taxonomy.path[made.labels[tree.order], 0]
  assert len(strip) == 1 + np.count_nonzero(np.diff(groups))
  widths = [bar.get_width() for bar in bars(drawn) if bar.get_y() < lowest]
  assert sorted(widths) == sorted(tree.size[n:].tolist())
  # A picture of each node.
  assert len(axes.artists) == len(tree.parent) - n


def test_a_tree_that_was_made_before_is_taken():
  made = collections.planted()
  tree = outline.outline(made, source='linkage').hierarchy
  (axes,) = icicle.figure(made, source=tree).axes
  assert 'linkage' in axes.get_title()


def test_names_are_text(tmp_path):
  names = (*figures.HOSTILE, *map(str, range(11)))
  made = collections.planted(names=names, title='$\\frac$ [red]')
  themes.write(icicle.figure(made, level='class'), tmp_path / 'a.svg')
  texts = ' '.join(figures.svg_texts(tmp_path / 'a.svg'))
  assert '$\\frac$ [red]' in texts and '</text><script>' in texts


def test_mistakes():
  with pytest.raises(UserError, match='two or more'):
    icicle.figure(collections.scattered(1))
  with pytest.raises(UserError, match="no level 'grup'"):
    icicle.figure(collections.planted(), level='grup')
