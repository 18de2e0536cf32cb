import collections
import csv
import json

import numpy as np
import pytest
from PIL import Image

from experiments.icons import build, tree
from hier_jax.data import datasets, prepare
from hier_jax.errors import UserError
from tests.support import small_icons

NOUNS = small_icons.nouns()
ANIMALS = ('dog', 'cat')
THINGS = ('traffic-light', 'apple')


@pytest.fixture(autouse=True)
def small(monkeypatch):
  """Small classes and levels."""
  monkeypatch.setattr(build, 'LEAST_IMAGES', 3)
  monkeypatch.setattr(build, 'LEAST_AUTHORS', 2)
  monkeypatch.setattr(build, 'MOST', 4)
  monkeypatch.setattr(tree, 'SUBGROUP', 2)
  monkeypatch.setattr(tree, 'GROUP', 2)


def files(**more):
  """Three sets of two authors who draw dogs and cats."""
  return [
    small_icons.data(p, ANIMALS, author=p[0], **more) for p in ('a1', 'a2', 'b')
  ]


def picked(*given):
  found = small_icons.icon_sets(*given)
  drawings, reasons = build.collect(found, NOUNS, {})
  images = build.draw(drawings, small_icons.drawn)
  return build.pick(drawings, images, NOUNS, reasons), reasons


def names(found):
  return {k: [d.file for d, _ in v] for k, v in found.drawings.items()}


def test_what_is_left_out_is_counted():
  nc = small_icons.data('nc', ['dog', 'cat'], license='CC-BY-NC-4.0')
  odd = small_icons.data('odd', ['edit', 'apple', 'watch'])
  found = small_icons.icon_sets(*files(), nc, odd)
  drawings, reasons = build.collect(found, NOUNS, {})
  assert len(drawings) == 6
  assert +reasons == {
    'category Logos': 2,
    'license CC-BY-NC-4.0': 2,
    'no noun of WordNet': 1,
    'a brand': 1,
    'mostly a verb or an adjective': 1,
  }


def test_classes_are_synsets():
  found, _ = picked(*files())
  assert names(found) == {
    'cat.n.01': ['a1.cat.png', 'a2.cat.png', 'b.cat.png'],
    'dog.n.01': ['a1.dog.png', 'a2.dog.png', 'b.dog.png'],
  }
  assert set(found.levels.values()) == {('animal.n.01', 'animal.n.01')}


def test_a_drawing_that_is_there_twice_counts_once():
  copy = {'dog': {'body': small_icons.body('a1 dog')}, 'cat': {}}
  found, reasons = picked(*files(), small_icons.data('c', copy, author='c'))
  assert len(names(found)['dog.n.01']) == 3
  assert len(names(found)['cat.n.01']) == 4
  assert reasons['the same drawing as another'] == 1


def test_small_classes_and_those_of_one_author_are_dropped():
  one = small_icons.data(
    'b2', ['traffic-light', 'traffic-light-2', 'traffic-light-3']
  )
  few = small_icons.data('c', ['mouse'], author='c')
  found, reasons = picked(*files(), one, few)
  assert set(found.drawings) == {'cat.n.01', 'dog.n.01'}
  assert reasons['in a class with too few images or authors'] == 4
  with pytest.raises(UserError, match='none of 1 classes'):
    picked(few)


def test_large_classes_are_cut_evenly_over_sets():
  many = [f'dog-{i}' for i in range(1, 6)]
  found, reasons = picked(*files(), small_icons.data('a0', many, author='a'))
  kept = [name.partition('.')[0] for name in names(found)['dog.n.01']]
  assert kept == ['a0', 'a1', 'a2', 'b']
  assert reasons['beyond the most of a class'] == 4


def test_blank_drawings_are_left_out():
  blank = {'dog': {'body': small_icons.body('blank')}}
  found, reasons = picked(*files(), small_icons.data('c', blank))
  assert reasons['nothing is drawn'] == 1
  assert len(names(found)['dog.n.01']) == 3


def both():
  """Classes of two subgroups, one on each side."""
  found, reasons = picked(
    *files(),
    *(
      small_icons.data(p, ['traffic-light', 'mouse'], author=p)
      for p in ('x', 'y', 'z')
    ),
  )
  return found, reasons


def test_folder_is_what_data_prepare_takes(tmp_path):
  found, _ = both()
  assert sorted(found.sides.values()) == ['test', 'train']
  build.write(found, tmp_path / 'icons', {'packages': {}})
  prepare.prepare('folder/icons', tmp_path / 'icons', data_dir=tmp_path / 'd')
  splits = datasets.load('folder/icons', data_dir=tmp_path / 'd')
  for name, split in splits.items():
    wanted = {
      k: v for k, v in found.levels.items() if found.sides[v[1]] == name
    }
    assert list(split.names['label']) == list(wanted)
    assert list(split.levels) == ['group', 'subgroup']
    assert [tuple(row) for row in split.ancestors()] == list(wanted.values())
  assert sum(map(len, splits.values())) == 12
  path = tmp_path / 'icons' / found.sides['animal.n.01'] / 'dog.n.01/b.dog.png'
  np.testing.assert_array_equal(
    np.asarray(Image.open(path)),
    small_icons.drawn(small_icons.body('b dog'), build.SIZE),
  )


def test_licenses_are_listed_for_each_set_that_is_used(tmp_path):
  found, _ = both()
  build.write(found, tmp_path / 'icons', {'packages': {'a': '1'}})
  with (tmp_path / 'icons/licenses.csv').open(newline='') as file:
    rows = list(csv.DictReader(file))
  counts = {row['set']: int(row['icons']) for row in rows}
  assert counts == dict.fromkeys(['a1', 'a2', 'b', 'x', 'y', 'z'], 2)
  assert rows[0]['license'] == 'MIT' and rows[0]['author'] == 'a'
  about = json.loads((tmp_path / 'icons/about.json').read_text())
  assert about['packages'] == {'a': '1'}
  total = collections.Counter()
  for side in about['counts'].values():
    total.update(side)
  assert total['images'] == 12 and total['classes'] == 4


def test_a_folder_that_cannot_be_written_leaves_nothing(tmp_path):
  found, _ = both()
  (tmp_path / 'icons').mkdir()
  (tmp_path / 'icons/mine.txt').write_text('kept')
  with pytest.raises(UserError, match='icons'):
    build.write(found, tmp_path / 'icons', {})
  assert [p.name for p in tmp_path.iterdir()] == ['icons']
  assert (tmp_path / 'icons/mine.txt').read_text() == 'kept'
