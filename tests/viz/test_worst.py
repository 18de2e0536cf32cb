"""The worst queries are those that a full ranking has last."""

import numpy as np
import pytest
from PIL import Image

from hier_jax.errors import UserError
from hier_jax.viz import worst
from tests.support import collections, planted_trees
from tests.viz import test_sheet
from tests.viz.test_sheet import HOSTILE


class Page(test_sheet.Page):
  """A sheet, and the ids that its pictures are called by."""

  def __init__(self, text):
    self.ids = []
    super().__init__(text)

  def handle_starttag(self, tag, attrs):
    super().handle_starttag(tag, attrs)
    if tag == 'img':
      self.ids.append(dict(attrs)['alt'].split(', ')[-1])


def noisy(n=60, **others):
  """Items of classes that overlap."""
  draw = np.random.default_rng(0)
  rows = planted_trees.in_ball(draw, n, 3)
  made = {
    'embeddings': rows,
    'ids': tuple(f'{i}.png' for i in range(n)),
    'labels': np.arange(n) % 17,
    'proxies': None,
  }
  return collections.planted(**made | others)


def order(made, query):
  """All other items, the nearest first."""
  x = made.embeddings
  far = np.array([planted_trees.distance_of(x[query], y) for y in x])
  far[query] = np.inf
  return np.argsort(far, kind='stable')[:-1]


def test_ranks_are_those_of_a_full_ranking():
  made = noisy()
  labels = made.labels
  wanted = [
    1 + np.flatnonzero(labels[order(made, i)] == labels[i])[0]
    for i in range(len(made))
  ]
  assert worst.ranks(made).tolist() == wanted
  # The only one of its class.
  labels = np.where(np.arange(60) == 5, 16, np.arange(60) % 16)
  assert worst.ranks(noisy(labels=labels))[5] == 0


def test_the_sheet_shows_wrong_neighbors_and_the_first_right_one(tmp_path):
  made = noisy()
  worst.write(made, tmp_path / 'a.html', queries=2, neighbors=3)
  rank = worst.ranks(made)
  wanted = []
  for query in np.argsort(-rank, kind='stable')[:2]:
    near = order(made, query)
    shown = [*near[:3], near[rank[query] - 1]]
    assert made.labels[shown[-1]] == made.labels[query]
    wanted += [made.ids[item] for item in [query, *shown]]
  page = Page((tmp_path / 'a.html').read_text())
  assert page.ids == wanted
  assert f'rank {rank.max()}' in page.text
  assert page.text.count('✗ wrong') == 6 and page.text.count('✓ right') == 2
  share = np.mean(rank == 1)
  assert f'For {share:.1%} of 60 images' in page.text


def test_few_wrong_neighbors_and_none(tmp_path):
  """Where the nearest is right there is nothing wrong to show."""
  made = collections.planted(images=2)
  worst.write(made, tmp_path / 'a.html', queries=3)
  page = Page((tmp_path / 'a.html').read_text())
  assert 'wrong' not in page.text and page.text.count('rank 1') == 3


@pytest.mark.parametrize('theme', ['light', 'dark'])
def test_a_picture_has_a_theme(theme, tmp_path):
  worst.write(noisy(), tmp_path / 'a.png', queries=2, theme=theme)
  with Image.open(tmp_path / 'a.png') as image:
    corner = image.convert('RGB').getpixel((0, 0))
  assert corner == {'light': (255, 255, 255), 'dark': (13, 17, 23)}[theme]


def test_names_are_text(tmp_path):
  names = [*HOSTILE, *map(str, range(12))]
  worst.write(noisy(names=names), tmp_path / 'a.html', queries=60)
  page = Page((tmp_path / 'a.html').read_text())
  assert 'script' not in page.tags and HOSTILE[0] in page.text
  worst.write(noisy(names=names), tmp_path / 'a.png')


def test_mistakes(tmp_path):
  with pytest.raises(UserError, match='have no labels'):
    worst.write(collections.scattered(9), tmp_path / 'a.png')
  with pytest.raises(UserError, match='no two images have the same class'):
    worst.write(collections.planted(images=1), tmp_path / 'a.png')
  one = collections.planted(
    images=1, labels=np.array([0]), ids=('a',), embeddings=np.zeros((1, 2))
  )
  with pytest.raises(UserError, match='two or more'):
    worst.write(one, tmp_path / 'a.png')
  with pytest.raises(UserError, match=r'expected \.html or \.png'):
    worst.write(noisy(), tmp_path / 'a.svg')
  with pytest.raises(UserError, match="is 'sepia'"):
    worst.write(noisy(), tmp_path / 'a.png', theme='sepia')
  assert not list(tmp_path.iterdir())
