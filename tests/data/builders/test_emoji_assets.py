"""The bundled Emoji archive agrees with itself and with what is published."""

import collections
import csv
import io
import pathlib
import zipfile

import pytest
from PIL import Image

import hier_jax

_ASSETS = (
  pathlib.Path(hier_jax.__path__[0]) / 'data' / 'builders' / 'emoji_assets'
)
_SIZE = 40


def _table(name):
  with (_ASSETS / name).open(encoding='utf-8', newline='') as f:
    return list(csv.DictReader(f))


@pytest.fixture(scope='module')
def archive():
  with zipfile.ZipFile(_ASSETS / 'images.zip') as f:
    yield f


@pytest.fixture(scope='module')
def images(archive):
  """(class hex, style) of every image, in the archive's order."""
  paths = [pathlib.PurePosixPath(name) for name in archive.namelist()]
  assert {path.suffix for path in paths} == {'.webp'}
  return [(str(path.parent), path.stem) for path in paths]


@pytest.fixture(scope='module')
def classes():
  return _table('classes.csv')


@pytest.fixture(scope='module')
def styles():
  return _table('styles.csv')


def test_counts(images, classes, styles):
  assert len(images) == 12_538
  assert len(set(images)) == len(images)
  assert len(classes) == 1_426
  assert len(styles) == 11
  assert len({c['group'] for c in classes}) == 8
  assert len({c['subgroup'] for c in classes}) == 95


@pytest.mark.parametrize(
  ('split', 'expected'),
  [
    ('split_class', {'train': (713, 6_288), 'test': (713, 6_250)}),
    ('split_subgroup', {'train': (719, 6_340), 'test': (707, 6_198)}),
  ],
)
def test_splits(images, classes, split, expected):
  per_class = collections.Counter(h for h, _ in images)
  n_classes, n_images = collections.Counter(), collections.Counter()
  for c in classes:
    n_classes[c[split]] += 1
    n_images[c[split]] += per_class[c['hex']]
  found = {side: (n_classes[side], n_images[side]) for side in n_classes}
  assert found == expected


def test_split_class_alternates(classes):
  sides = [c['split_class'] for c in classes]
  assert sides == ['train', 'test'] * 713


def test_split_subgroup_keeps_subgroups_whole(classes):
  sides = collections.defaultdict(set)
  for c in classes:
    sides[c['subgroup']].add(c['split_subgroup'])
  assert all(len(s) == 1 for s in sides.values())


def test_every_image_has_its_rows(images, classes, styles):
  assert {h for h, _ in images} == {c['hex'] for c in classes}
  assert {s for _, s in images} == {s['style'] for s in styles}
  assert min(collections.Counter(h for h, _ in images).values()) == 4


def test_classes_are_a_tree_of_distinct_emoji(classes):
  assert len({c['hex'] for c in classes}) == len(classes)
  groups = collections.defaultdict(set)
  for c in classes:
    groups[c['subgroup']].add(c['group'])
    code_points = [ord(char) for char in c['emoji'] if char != '\ufe0f']
    assert '-'.join(f'{p:X}' for p in code_points) == c['hex']
  assert all(len(g) == 1 for g in groups.values())


def test_known_classes(classes):
  ids = {c['hex']: i for i, c in enumerate(classes)}
  assert ids['1F600'] == 0
  row = classes[ids['1F415']]
  assert (row['label'], row['subgroup'], row['group']) == (
    'dog',
    'animal-mammal',
    'animals-nature',
  )
  # Differs from another square in its size only.
  assert '25AA' not in ids


def test_images_decode(archive):
  for entry in archive.infolist()[::250]:
    with Image.open(io.BytesIO(archive.read(entry))) as image:
      assert (image.format, image.mode) == ('WEBP', 'RGB')
      assert image.size == (_SIZE, _SIZE)
      darkest = min(low for low, _ in image.getextrema())
      assert darkest < 245, f'{entry.filename} is blank'


def test_archive_is_reproducible(archive):
  names = archive.namelist()
  assert names == sorted(names)
  for entry in archive.infolist():
    assert entry.date_time == (1980, 1, 1, 0, 0, 0)
    assert entry.compress_type == zipfile.ZIP_STORED


def test_every_style_has_attribution_and_licence(styles):
  text = (_ASSETS / 'ATTRIBUTION.md').read_text('utf-8')
  for s in styles:
    section = text.split(f'\n## {s["style"]}\n')[1].split('\n## ')[0]
    assert all(s[k] in section for k in ('author', 'licence', 'url', 'version'))
    licence = _ASSETS / 'licenses' / f'{s["licence"]}.txt'
    assert licence.stat().st_size > 200


def test_fits_in_git():
  files = [path for path in _ASSETS.rglob('*') if path.is_file()]
  assert sum(path.stat().st_size for path in files) <= 16_000_000
