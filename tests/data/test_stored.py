"""Prepared data sets of strangers: nothing that they name is imported."""

import json
import re
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from hier_jax.data import datasets, info, prepare
from hier_jax.errors import UserError


@pytest.fixture
def prepared(tmp_path):
  """A data directory with a small set, and the set's own folder."""
  for label in 'abcd':
    split = 'train' if label in 'ac' else 'test'
    folder = tmp_path / 'images' / split / label
    folder.mkdir(parents=True)
    for i in range(2):
      pixels = np.full((4, 4, 3), i, np.uint8)
      Image.fromarray(pixels).save(folder / f'{i}.png')
  (tmp_path / 'images/taxonomy.csv').write_text(
    'class,kind\na,x\nb,x\nc,y\nd,\n'
  )
  data_dir = tmp_path / 'data'
  place = prepare.prepare('folder/mine', tmp_path / 'images', data_dir=data_dir)
  return data_dir, place


@pytest.mark.parametrize(
  'forge',
  [
    lambda features: features | {'pythonClassName': 'payload.Features'},
    lambda features: features | {'python_class_name': 'payload.Features'},
    lambda features: {'type': 'payload.Features', 'content': {}},
    lambda features: features | {'type': 'payload.Features', 'content': {}},
    lambda features: (
      features
      | {
        'featuresDict': {
          'features': features['featuresDict']['features']
          | {'image': {'pythonClassName': 'payload.Image', 'image': {}}}
        }
      }
    ),
  ],
)
def test_a_module_that_it_names_is_not_imported(
  prepared, forge, tmp_path, monkeypatch
):
  data_dir, place = prepared
  path = place / 'features.json'
  path.write_text(json.dumps(forge(json.loads(path.read_text()))))
  (tmp_path / 'payload.py').write_text('raise SystemExit("ran")')
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(UserError, match=r'not imported|cannot be read'):
    datasets.load('folder/mine', data_dir=data_dir)
  assert 'payload' not in sys.modules


@pytest.mark.parametrize('name', ['features.json', 'dataset_info.json'])
@pytest.mark.parametrize('content', ['', '[]', 'null', '{', '{}', '{"a": 1}'])
def test_damaged_metadata_is_the_users_to_mend(prepared, name, content):
  data_dir, place = prepared
  (place / name).write_text(content)
  with pytest.raises(UserError, match=r'folder.mine.*prepare'):
    datasets.load('folder/mine', data_dir=data_dir)


def refusal(data_dir):
  with pytest.raises(UserError, match='prepare') as error:
    info.describe('folder/mine', data_dir=data_dir)
  message = str(error.value)
  assert len(message) < 700 and message.isprintable()
  return message


def forge(place, change, name='metadata.json'):
  metadata = json.loads((place / name).read_text())
  change(metadata)
  (place / name).write_text(json.dumps(metadata))


def put(*keys):
  """A change of what lies under some keys."""
  *keys, last, value = keys

  def change(metadata):
    for key in keys:
      metadata = metadata[key]
    metadata[last] = value

  return change


LIES = {
  'longer': (put('train', 'label', [0] * 5), "no 4 values of 'label'"),
  'shorter': (put('test', 'kind', [0] * 3), "no 4 values of 'kind'"),
  'no list': (put('train', 'label', 3), "no 4 values of 'label'"),
  'above': (put('train', 'label', [0, 0, 2, 4]), '1 values .* from 0 to 3'),
  'below': (put('train', 'label', [0, -1, 0, -1]), '2 values .*as -1'),
  'too low': (put('train', 'kind', [-2] * 4), '4 values .* from -1 to 1'),
  'huge': (put('train', 'label', 0, 10**30), r"'label' .* as 10+"),
  'infinite': (put('train', 'label', 0, float('inf')), 'such as inf'),
  'part': (put('train', 'label', 0, 0.5), 'such as 0.5'),
  'bool': (put('train', 'label', 0, True), 'such as True'),
  'text': (put('train', 'label', 0, 'x' * 10**6), 'such as .xxx'),
  'none': (put('train', 'index', 0, None), 'such as None'),
  'nested': (put('train', 'label', 0, [[[[]]]]), 'such as'),
  'index': (put('train', 'index', 0, 8), "'index' .* from 0 to 7"),
  'field': (put('train', 'other', [0] * 4), "no values of 'other'"),
  'path': (put('train', 'path', [0] * 4), "no values of 'path'"),
  'split': (put('train', [1]), "lack the labels of 'train'"),
  'unlabelled': (put('train', {'index': [0] * 4}), 'lack the labels'),
  'tree': (put('train', 'kind', [0, 1, 1, 1]), "several of 'kind'"),
  'about': (put('about', None), "lack 'about'"),
  'about list': (put('about', []), "lack 'about'"),
  'licence': (put('about', 'licence', 7), "say 7 as 'licence'"),
  'side': (put('about', 'short_side', 'x'), "as 'short_side'"),
  'levels': (put('about', 'levels', 'kind'), "say 'kind' as 'levels'"),
  'level': (put('about', 'levels', ['other']), "no values of 'other'"),
  'no level': (put('about', 'levels', [[]]), 'for a text'),
  'notes': (put('about', 'notes', [7]), 'for a text'),
  'content': (put('about', 'content', 'train', 7), 'for a hash'),
}


@pytest.mark.parametrize('lie', LIES)
def test_metadata_that_lie(prepared, lie):
  data_dir, place = prepared
  change, message = LIES[lie]
  forge(place, change)
  assert re.search(message, refusal(data_dir))


@pytest.mark.parametrize('key', ['layout', 'levels', 'licence', 'short_side'])
def test_metadata_that_lack_something(prepared, key):
  data_dir, place = prepared
  forge(place, lambda metadata: metadata['about'].pop(key))
  assert f'as {key!r} of what it is' in refusal(data_dir)


def test_metadata_of_older_versions(prepared):
  data_dir, place = prepared
  for key in ('notes', 'stamp', 'content'):
    forge(place, lambda metadata, key=key: metadata['about'].pop(key))
  assert info.describe('folder/mine', data_dir=data_dir)['notes'] == []


@pytest.mark.parametrize(
  'content', [None, '', '[]', 'null', '{', '[' * 10**5, '{"train": NaN}']
)
def test_metadata_that_are_damaged(prepared, content):
  data_dir, place = prepared
  path = place / 'metadata.json'
  path.unlink() if content is None else path.write_text(content)
  refusal(data_dir)


@pytest.mark.parametrize(
  ('keys', 'value', 'message'),
  [
    (('splits', 0, 'shardLengths'), ['5'], 'no 5 values'),
    (
      ('splits', 0, 'shardLengths'),
      [str(2**62)],
      'no 4,611,686,018,427,3',
    ),
    (('splits', 0, 'shardLengths'), ['9' * 30], 'cannot be read'),
    (('splits', 0, 'shardLengths'), ['2', '2'], 'listed but not there'),
    (('splits', 0, 'shardLengths'), [], 'no 0 values'),
    (('splits', 0, 'name'), 'other', 'not there'),
    (
      ('splits', 0, 'filepathTemplate'),
      '../../../../private.{FILEFORMAT}-{SHARD_X_OF_Y}',
      'lie outside',
    ),
    (('name',), '../../../../private', 'not there: .*private-train'),
    (('fileFormat',), 'tfrecord', 'not there|cannot be read'),
  ],
)
def test_splits_that_lie(prepared, tmp_path, keys, value, message):
  data_dir, place = prepared
  record = place / 'folder-train.array_record-00000-of-00001'
  shutil.copy(record, tmp_path / 'private.array_record-00000-of-00001')
  forge(place, put(*keys, value), 'dataset_info.json')
  assert re.search(message, refusal(data_dir))


def test_records_that_are_fewer_than_said(prepared):
  data_dir, place = prepared
  forge(place, put('splits', 0, 'shardLengths', ['5']), 'dataset_info.json')
  for field in ('label', 'index', 'kind'):
    forge(place, put('train', field, [0] * 5))
  assert '00000-of-00001 holds 4 images, expected 5' in refusal(data_dir)


@pytest.mark.parametrize(
  'damage', [lambda data: b'', lambda data: b'x' * 10**6]
)
def test_records_that_are_damaged(prepared, damage):
  data_dir, place = prepared
  path = place / 'folder-train.array_record-00000-of-00001'
  path.write_bytes(damage(path.read_bytes()))
  refusal(data_dir)


def test_a_record_that_is_damaged_is_named(prepared):
  data_dir, place = prepared
  path = place / 'folder-train.array_record-00000-of-00001'
  data = bytearray(path.read_bytes())
  # Of the first record: 100 bytes after the header of the file.
  data[200] ^= 255
  path.write_bytes(data)
  message = refusal(data_dir)
  assert message.startswith('record 0 of folder/mine:train is damaged (')


def test_names_that_are_lost(prepared):
  data_dir, place = prepared
  (place / 'label.labels.txt').unlink()
  assert "name no values of 'label'" in refusal(data_dir)


def test_more_classes_than_memory(prepared):
  data_dir, place = prepared
  change = put(
    *('featuresDict', 'features', 'label', 'classLabel', 'numClasses'),
    str(2**40),
  )
  forge(place, change, 'features.json')
  (place / 'label.labels.txt').unlink()
  refusal(data_dir)


@pytest.mark.parametrize(
  'name',
  ['metadata.json', 'features.json', 'label.labels.txt', 'dataset_info.json'],
)
def test_files_that_are_links_out_of_it(prepared, name, tmp_path):
  data_dir, place = prepared
  (place / name).rename(tmp_path / 'private')
  (place / name).symlink_to(tmp_path / 'private')
  message = refusal(data_dir)
  assert f'lie outside of {place}: {name} ({tmp_path / "private"})' in message


def test_text_for_a_terminal_is_shown_as_it_is_written(prepared):
  data_dir, place = prepared
  for key in ('layout', 'licence', 'homepage'):
    forge(place, put('about', key, '\x1b[2J\x1b]0;x\x07\n'))
  forge(place, put('about', 'notes', ['\x1b[31m' + 'a' * 300, 'b' * 300]))
  text = info.as_text(info.describe('folder/mine', data_dir=data_dir))
  assert all(line.isprintable() for line in text.splitlines())
  assert 'b' * 300 in text
