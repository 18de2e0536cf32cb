"""Light and dark figures, written whole and alike each time."""

import sys

import matplotlib.colors
import numpy as np
import pytest
from PIL import Image

from hier_jax.errors import UserError
from hier_jax.viz import theme as themes
from tests.support import figures


def drawn(theme='light', names=figures.HOSTILE):
  with themes.drawing(theme) as look:
    made = look.figure(4, 3)
    axes = look.axes(made)
    axes.set_title(names[1])
    handles = [axes.plot([0, 1], [i, 1])[0] for i, _ in enumerate(names)]
    themes.legend(made, [name[:20] for name in names], handles)
  return made


def luminance(color):
  rgb = np.array(matplotlib.colors.to_rgb(color))
  linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
  return linear @ [0.2126, 0.7152, 0.0722]


def contrast(a, b):
  low, high = sorted([luminance(a), luminance(b)])
  return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize('name', themes.THEMES)
def test_colors_are_seen_on_their_paper(name):
  look = themes.THEMES[name]
  assert contrast(look.ink, look.paper) > 12
  assert min(contrast(hue, look.paper) for hue in look.hues) > 2
  assert len(set(look.hues)) == len(look.hues) == 9


@pytest.mark.parametrize('name', themes.THEMES)
def test_a_picture_has_the_colors_of_its_theme(name, tmp_path):
  themes.write(drawn(name), tmp_path / 'a.png')
  with Image.open(tmp_path / 'a.png') as image:
    assert image.size == (600, 450)
    corner = image.convert('RGB').getpixel((0, 0))
    colors = {color for _, color in image.convert('RGB').getcolors(1 << 20)}
  to_rgb = lambda color: tuple(
    round(255 * x) for x in matplotlib.colors.to_rgb(color)
  )
  look = themes.THEMES[name]
  assert corner == to_rgb(look.paper)
  ink = np.array(to_rgb(look.ink))
  assert np.abs(np.array(list(colors)) - ink).max(1).min() < 24


def test_text_is_text_and_a_dollar_a_dollar(tmp_path):
  names = ['$x^2$', 'a < b & "c"', '_hidden']
  themes.write(drawn(names=names), tmp_path / 'a.svg')
  texts = [text.strip() for text in figures.svg_texts(tmp_path / 'a.svg')]
  assert set(names) <= set(texts)


@pytest.mark.parametrize('suffix', themes.SUFFIXES)
def test_equal_figures_are_equal_files(suffix, tmp_path):
  for name in 'ab':
    themes.write(drawn(names=['x', 'y']), tmp_path / f'{name}{suffix}')
  first, second = ((tmp_path / f'{x}{suffix}').read_bytes() for x in 'ab')
  assert first == second


def test_a_persons_settings_are_left_alone():
  import matplotlib

  before = dict(matplotlib.rcParams)
  drawn('dark')
  assert dict(matplotlib.rcParams) == before


def test_mistakes(tmp_path, monkeypatch):
  with pytest.raises(UserError, match="is 'sepia'; expected light or dark"):
    drawn('sepia')
  with pytest.raises(UserError, match=r'expected \.png or \.svg'):
    themes.write(drawn(names=['x', 'y']), tmp_path / 'a.pdf')
  assert not list(tmp_path.iterdir())
  monkeypatch.setitem(sys.modules, 'matplotlib', None)
  with pytest.raises(UserError, match=r"pip install 'hier_jax\[plots\]'"):
    drawn()
