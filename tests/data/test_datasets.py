"""Builders and splits, on a tiny archive and on the bundled one."""

import csv
import dataclasses
import io
import zipfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from hier_jax.data import datasets
from hier_jax.data.builders import emoji, shards
from hier_jax.errors import UserError

STYLES = ['flat', 'round', 'mono']
# hex, group, subgroup, split A, split B; the middle class lacks one style.
CLASSES = [
  ('1F600', 'people', 'face', 'train', 'train'),
  ('1F601', 'people', 'face', 'test', 'train'),
  ('1F44B', 'people', 'hand', 'train', 'test'),
  ('1F436', 'nature', 'animal', 'test', 'test'),
  ('1F431', 'nature', 'animal', 'train', 'test'),
]
COLUMNS = (
  'hex,emoji,label,group,subgroup,emoji_version,split_class,split_subgroup'
)


def drawing(label, style):
  file = io.BytesIO()
  image = Image.new('RGB', (8, 8), (40 * label, 40 * style, 7))
  image.save(file, 'WEBP', lossless=True)
  return file.getvalue()


def entries():
  return {
    f'{row[0]}/{name}.webp': drawing(label, style)
    for label, row in enumerate(CLASSES)
    for style, name in enumerate(STYLES)
    if (label, style) != (2, 1)
  }


def write_assets(folder, images):
  with (folder / 'styles.csv').open('w', newline='') as file:
    csv.writer(file).writerows([['style'], *([s] for s in STYLES)])
  with (folder / 'classes.csv').open('w', newline='', encoding='utf-8') as file:
    rows = [
      [code, chr(int(code, 16)), f'name, {code}', group, subgroup, 1, a, b]
      for code, group, subgroup, a, b in CLASSES
    ]
    csv.writer(file).writerows([COLUMNS.split(','), *rows])
  with zipfile.ZipFile(folder / 'images.zip', 'w') as archive:
    # Backwards: the order of records must not be that of the archive.
    for entry in reversed(images):
      archive.writestr(entry, images[entry])


@pytest.fixture
def assets(tmp_path, monkeypatch):
  """A folder of tiny assets that the builder reads; may be rewritten."""
  folder = tmp_path / 'assets'
  folder.mkdir()
  write_assets(folder, entries())
  monkeypatch.setattr(emoji.Emoji, 'assets', folder)
  monkeypatch.setattr(emoji.Emoji, 'num_images', 14)
  return folder


@pytest.fixture
def data_dir(tmp_path):
  return tmp_path / 'prepared'


def test_records_come_back_as_they_were(assets, data_dir):
  train = datasets.load('emoji', data_dir=data_dir)['train']
  assert train.name == 'emoji:train'
  expected = [(0, 0), (0, 1), (0, 2), (2, 0), (2, 2), (4, 0), (4, 1), (4, 2)]
  assert [train.source[i]['image'] for i in range(len(train.source))] == [
    drawing(label, style) for label, style in expected
  ]
  assert len(train) == 8 and train.num_classes == 3
  assert train.labels.dtype == np.int32
  np.testing.assert_array_equal(train.labels, [0, 0, 0, 1, 1, 2, 2, 2])
  assert train.numbers.tolist() == [0, 2, 4]
  fields = {
    'index': [0, 1, 2, 6, 7, 11, 12, 13],
    'style': [0, 1, 2, 0, 2, 0, 1, 2],
    'subgroup': [0, 0, 0, 1, 1, 2, 2, 2],
    'group': [0, 0, 0, 0, 0, 1, 1, 1],
  }
  assert train.fields.keys() == fields.keys()
  for field, values in fields.items():
    np.testing.assert_array_equal(train.fields[field], values)
  assert train.names == {
    'label': [
      '\U0001f600 name, 1F600',
      '\U0001f44b name, 1F44B',
      '\U0001f431 name, 1F431',
    ],
    'style': STYLES,
    'subgroup': ['face', 'hand', 'animal'],
    'group': ['people', 'nature'],
  }
  assert train.ancestors() == [
    ['people', 'face'],
    ['people', 'hand'],
    ['nature', 'animal'],
  ]
  assert train.source[1]['path'] == '1F600/round.webp'


def test_a_second_load_reads_what_the_first_prepared(
  assets, data_dir, monkeypatch
):
  first = datasets.load('emoji', data_dir=data_dir)['test']
  monkeypatch.setattr(emoji.Emoji, '_contents', None)
  again = datasets.load('emoji', data_dir=data_dir)['test']
  np.testing.assert_array_equal(first.labels, again.labels)
  assert first.names == again.names
  assert again.source[5] == first.source[5]


def test_tfds_itself_reads_the_records(assets, data_dir):
  datasets.load('emoji', data_dir=data_dir)
  builder = tfds.builder_from_directory(data_dir / 'emoji/class/1.1.0')
  source = builder.as_data_source('test')
  assert [r['label'] for r in source] == [1, 1, 1, 3, 3, 3]
  np.testing.assert_array_equal(source[4]['image'][0, 0], [120, 40, 7])


def test_split_b_keeps_subgroups_apart(assets, data_dir):
  splits = datasets.load('emoji/subgroup', data_dir=data_dir)
  train, test = splits['train'], splits['test']
  assert set(train.fields['subgroup']) == {0}
  assert set(test.fields['subgroup']) == {1, 2}
  np.testing.assert_array_equal(train.labels, [0, 0, 0, 1, 1, 1])
  np.testing.assert_array_equal(test.labels, [0, 0, 1, 1, 1, 2, 2, 2])


def test_data_set_that_is_not_prepared_is_explained(data_dir):
  with pytest.raises(UserError) as error:
    datasets.load('cub200/short256', data_dir=data_dir)
  assert str(error.value).startswith(
    f'data set cub200/short256 is not prepared in {data_dir}/cub200/short256/'
  )
  assert 'data prepare cub200/short256 --from DIR`' in str(error.value)


def test_unknown_data_set_lists_the_known_ones():
  with pytest.raises(UserError, match=r"'emojis'.*emoji, emoji/subgroup"):
    datasets.load('emojis')


def test_losing_a_race_to_prepare_is_no_failure(assets, data_dir, monkeypatch):
  decode = shards.transforms.decode
  winner = []

  def overtaken(*args):
    # In the middle of our work another process begins, and ends.
    monkeypatch.setattr(shards.transforms, 'decode', decode)
    winner.append(datasets.load('emoji', data_dir=data_dir))
    return decode(*args)

  monkeypatch.setattr(shards.transforms, 'decode', overtaken)
  loser = datasets.load('emoji', data_dir=data_dir)
  assert len(winner) == 1
  for split in ('train', 'test'):
    np.testing.assert_array_equal(loser[split].labels, winner[0][split].labels)
    assert loser[split].source[0] == winner[0][split].source[0]
  assert not list(data_dir.glob('**/*incomplete*'))


def test_place_that_cannot_be_written_is_named(assets, tmp_path):
  file = tmp_path / 'file'
  file.touch()
  with pytest.raises(UserError, match='cannot prepare data set emoji'):
    datasets.load('emoji', data_dir=file / 'below')


def without(entry):
  images = entries()
  del images[entry]
  return images


@pytest.mark.parametrize(
  ('images', 'message'),
  [
    (without('1F601/flat.webp'), 'holds 13 images; expected 14'),
    (
      {k: v for k, v in entries().items() if '1F436' not in k},
      'holds 11 images, none of 1F436;',
    ),
    (entries() | {'1F600/big.webp': b''}, "'1F600/big.webp' is not <hex>"),
    (entries() | {'1F999/flat.webp': b''}, "'1F999/flat.webp' is not <hex>"),
    (
      entries() | {'1F601/flat.webp': b'RIFF'},
      '1 of 14 images of emoji cannot be read: 1F601/flat.webp (no known',
    ),
  ],
)
def test_faults_of_the_archive_are_named(assets, data_dir, images, message):
  write_assets(assets, images)
  with pytest.raises(UserError) as error:
    datasets.load('emoji', data_dir=data_dir)
  assert message in str(error.value)
  # Nothing half-made is left to be taken for the data set.
  assert not list(data_dir.glob('emoji/class/1.1.0'))


@pytest.mark.parametrize('name', ['images.zip', 'classes.csv', 'styles.csv'])
def test_missing_assets_are_named(assets, data_dir, name):
  (assets / name).unlink()
  with pytest.raises(UserError, match=f'cannot read .*{name}'):
    datasets.load('emoji', data_dir=data_dir)


def toy():
  labels = np.array([3, 0, 1, 2, 4, 0, 3, 5, 5], np.int32)
  return datasets.Split(
    name='toy',
    source=[{'image': bytes([i])} for i in range(9)],
    labels=labels,
    fields={'index': 100 + np.arange(9), 'kind': labels % 3 - 1},
    names={'label': list('abcdef'), 'kind': ['x', 'y']},
    levels=('kind',),
  )


def test_hold_out_takes_every_third_class():
  fit, val = datasets.hold_out(toy(), every=3)
  assert (fit.name, val.name) == ('toy:fit', 'toy:val')
  # Classes 2 and 5 are held out; 0 1 3 4 become 0 1 2 3.
  np.testing.assert_array_equal(fit.labels, [2, 0, 1, 3, 0, 2])
  np.testing.assert_array_equal(
    fit.fields['index'], [100, 101, 102, 104, 105, 106]
  )
  assert fit.names['label'] == ['a', 'b', 'd', 'e']
  assert fit.source[3] == {'image': bytes([4])}
  np.testing.assert_array_equal(val.labels, [0, 1, 1])
  # What tells their classes apart.
  assert (fit.numbers.tolist(), val.numbers.tolist()) == ([0, 1, 3, 4], [2, 5])
  np.testing.assert_array_equal(val.fields['index'], [103, 107, 108])
  assert val.names['label'] == ['c', 'f']
  assert val.labels.dtype == np.int32 and val.num_classes == 2
  assert [val.source[i]['image'] for i in range(3)] == [b'\3', b'\7', b'\10']


@pytest.mark.parametrize('every', [1, 7])
def test_hold_out_refuses_an_empty_side(every):
  with pytest.raises(UserError, match='expected a number from 2 to 6'):
    datasets.hold_out(toy(), every)


def test_select_takes_rows_in_their_order():
  chosen = toy().select(np.array([8, 0]), 'two')
  np.testing.assert_array_equal(chosen.labels, [1, 0])
  assert chosen.source[0] == {'image': bytes([8])}
  assert chosen.names['label'] == ['d', 'f']
  # -1 is a class that lies higher.
  assert chosen.ancestors() == [[''], ['y']]


def test_a_selection_has_a_digest_of_its_own():
  split = dataclasses.replace(toy(), digest='a')
  found = {
    part.digest
    for rows in ([0, 8], [8, 0], np.arange(9) < 2)
    for part in (split, split.select(np.array(rows), 'part'))
  }
  assert len(found) == 4
  assert split.select(np.array([0, 8]), 'other').digest in found
  # What has none can't give one.
  assert toy().select(np.array([0]), 'part').digest == ''


def test_bundled_archive_has_the_protocols_counts(data_dir):
  splits = datasets.load('emoji', data_dir=data_dir)
  counts = {k: (len(s), s.num_classes) for k, s in splits.items()}
  assert counts == {'train': (6_288, 713), 'test': (6_250, 713)}
  for split in splits.values():
    assert len(split.source) == len(split)
    assert len(split.names['label']) == 713
    # One image a class and style, from 4 to 11 a class.
    pairs = np.stack([split.labels, split.fields['style']], 1)
    assert len(np.unique(pairs, axis=0)) == len(split)
    sizes = np.bincount(split.labels)
    assert sizes.min() >= 4 and sizes.max() == 11
  index = np.concatenate([s.fields['index'] for s in splits.values()])
  np.testing.assert_array_equal(np.sort(index), np.arange(12_538))


def test_bundled_split_b_has_the_protocols_counts():
  with (emoji.Emoji.assets / 'classes.csv').open(encoding='utf-8') as file:
    rows = list(csv.DictReader(file))
  sides = [row['split_subgroup'] for row in rows]
  assert (sides.count('train'), sides.count('test')) == (719, 707)
  subgroups = {
    side: {r['subgroup'] for r in rows if r['split_subgroup'] == side}
    for side in ('train', 'test')
  }
  assert not subgroups['train'] & subgroups['test']
