"""What all builders share: contents, shards, names."""

import io
import itertools

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from hier_jax.data import builders, datasets, prepare
from hier_jax.data.builders import contents, cub200, folder, shards, tables
from hier_jax.errors import UserError
from tests.support import archives


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  archives.shrink(monkeypatch)


@pytest.fixture
def source(tmp_path):
  path = tmp_path / 'CUB_200_2011'
  archives.write_cub(path)
  return path


@pytest.fixture
def data_dir(tmp_path):
  return tmp_path / 'prepared'


def bytes_of(split):
  return [split.source[i]['image'] for i in range(len(split))]


def test_records_are_the_files_themselves(source, data_dir):
  prepare.prepare('cub200', source, data_dir=data_dir)
  test = datasets.load('cub200', data_dir=data_dir)['test']
  assert bytes_of(test) == [
    (source / 'images' / test.source[i]['path']).read_bytes()
    for i in range(len(test))
  ]
  np.testing.assert_array_equal(test.fields['index'], [5, 6, 7, 8])


def test_tfds_itself_reads_them(source, data_dir):
  place = prepare.prepare('cub200', source, data_dir=data_dir)
  assert place == data_dir / 'cub200/original/1.0.0'
  builder = tfds.builder_from_directory(place)
  records = builder.as_data_source('train')
  assert [r['label'] for r in records] == [0, 0, 0, 1, 1]
  assert (
    records[3]['path'] == b'002.Groove_billed_Ani/Groove_billed_Ani_0000_0.jpg'
  )
  assert builder.info.features['label'].names[3] == 'Cardinal'
  about = builder.info.metadata['about']
  assert about['licence'] == cub200.Cub200.license
  assert about['short_side'] is None


def test_tfds_own_data_set_of_the_same_name_may_stand_beside():
  from tensorflow_datasets.image_classification import cars196

  assert cars196.Cars196 is not builders.cars196.Cars196


def test_tensorflow_reading_is_refused_with_a_way_out(source, data_dir):
  builder = builders.create('cub200', source=source, data_dir=data_dir)
  prepare.prepare('cub200', source, data_dir=data_dir)
  with pytest.raises(NotImplementedError, match='as_data_source'):
    builder._as_dataset('train')


@pytest.mark.parametrize(
  ('size', 'expected'),
  [((600, 300), (512, 256)), ((257, 500), (256, 498)), ((256, 900), None)],
)
def test_short_side_is_resized(source, data_dir, size, expected):
  file = source / 'images/003.Sooty_Albatross/Sooty_Albatross_0000_0.jpg'
  archives.write_image(file, 7, size, 'L')
  place = prepare.prepare('cub200/short256', source, data_dir=data_dir)
  split = datasets.load('cub200/short256', data_dir=data_dir)['test']
  data = split.source[0]['image']
  if expected is None:
    assert data == file.read_bytes()
  else:
    with Image.open(io.BytesIO(data)) as image:
      assert (image.size, image.mode) == (expected, 'RGB')
      # JPEG at this quality moves a flat grey by a level at most.
      np.testing.assert_allclose(np.asarray(image), 7, atol=1)
  # Small ones stay as they are.
  assert split.source[1]['image'] == (
    (source / 'images' / split.source[1]['path']).read_bytes()
  )
  metadata = tfds.builder_from_directory(place).info.metadata
  assert metadata['about']['short_side'] == 256


def test_ancestors_are_rows_of_classes(source, data_dir):
  prepare.prepare('cub200', source, data_dir=data_dir)
  splits = datasets.load('cub200', data_dir=data_dir)
  assert splits['train'].levels == ['order', 'family']
  assert splits['train'].ancestors() == [
    ['Procellariiformes', 'Diomedeidae'],
    ['Cuculiformes', 'Cuculidae'],
  ]
  held = splits['test'].select(np.array([3]), 'held')
  assert held.names['label'] == ['Cardinal']
  assert held.ancestors() == [['Passeriformes', 'Cardinalidae']]
  assert held.ancestors(['family']) == [['Cardinalidae']]


def test_levels_that_are_no_tree_are_named():
  with pytest.raises(
    UserError, match=r"1 values of 'kind'.*'x' below \['a', 'b'\]"
  ):
    contents.of_classes(
      {},
      ['one', 'two'],
      {'group': ['a', 'b'], 'kind': ['x', 'x']},
      levels=('group', 'kind'),
      layout='',
    )


def interrupt(monkeypatch, after):
  """Lets so many images be read, then stops as Ctrl-C does."""
  monkeypatch.setattr(shards, '_THREADS', 1)
  read = cub200.Cub200._read
  reads = []

  def limited(self, record):
    if len(reads) >= after:
      raise KeyboardInterrupt
    reads.append(record.path)
    return read(self, record)

  monkeypatch.setattr(cub200.Cub200, '_read', limited)
  return reads


@pytest.mark.parametrize('after', [0, 1, 3, 4, 7, 8])
def test_stopped_work_goes_on_and_ends_the_same(
  source, tmp_path, monkeypatch, after
):
  # Shards of 2, 2, 1 and 2, 2 images.
  monkeypatch.setattr(shards, '_SHARD_SIZE', 2)
  whole, resumed = tmp_path / 'whole', tmp_path / 'resumed'
  prepare.prepare('cub200', source, data_dir=whole)
  with monkeypatch.context() as patch:
    interrupt(patch, after)
    with pytest.raises(KeyboardInterrupt):
      prepare.prepare('cub200', source, data_dir=resumed)
  place = builders.place('cub200', resumed)
  assert not place.exists()
  finished = list(resumed.rglob('*.array_record'))
  assert len(finished) == {0: 0, 1: 0, 3: 1, 4: 2, 7: 4, 8: 4}[after]
  assert not list(resumed.rglob('*.tmp'))
  with monkeypatch.context() as patch:
    reads = interrupt(patch, 100)
    prepare.prepare('cub200', source, data_dir=resumed)
  done = {0: 0, 1: 0, 3: 2, 4: 4, 7: 7, 8: 7}[after]
  assert len(reads) == 9 - done
  # Bit for bit, the files of the records and all that lies beside them.
  other = builders.place('cub200', whole)
  files = sorted(path.name for path in other.iterdir())
  assert files == sorted(path.name for path in place.iterdir())
  assert sum(name.endswith('-of-00003') for name in files) == 3
  for name in files:
    assert (place / name).read_bytes() == (other / name).read_bytes()
  assert [path.name for path in place.parent.iterdir()] == ['1.0.0']


def test_changed_images_and_options_are_not_taken_from_before(
  source, data_dir, monkeypatch
):
  monkeypatch.setattr(shards, '_SHARD_SIZE', 1)
  file = source / 'images/001.Black_footed_Albatross'
  file /= 'Black_footed_Albatross_0001_1.jpg'
  with monkeypatch.context() as patch:
    interrupt(patch, 4)
    with pytest.raises(KeyboardInterrupt):
      prepare.prepare('cub200', source, data_dir=data_dir)
  archives.write_image(file, 200, (9, 9))
  with monkeypatch.context() as patch:
    reads = interrupt(patch, 100)
    prepare.prepare('cub200', source, data_dir=data_dir)
  # The changed one, and the 5 that had not been read.
  assert len(reads) == 6
  train = datasets.load('cub200', data_dir=data_dir)['train']
  assert train.source[1]['image'] == file.read_bytes()
  # Another option, another data set.
  prepare.prepare('cub200/short256', source, data_dir=data_dir)
  assert len(datasets.load('cub200/short256', data_dir=data_dir)['test']) == 4


def test_broken_images_are_all_named_before_any_training(
  source, data_dir, monkeypatch
):
  monkeypatch.setattr(shards, '_SHARD_SIZE', 2)
  images = sorted((source / 'images').rglob('*.jpg'))
  images[0].write_bytes(b'')
  whole = images[5].read_bytes()
  images[5].write_bytes(whole[: len(whole) // 2])
  with pytest.raises(UserError) as error:
    prepare.prepare('cub200', source, data_dir=data_dir)
  text = str(error.value)
  assert text.startswith('2 of 9 images of cub200 cannot be read: ')
  assert (
    '001.Black_footed_Albatross/Black_footed_Albatross_0000_0.jpg (' in text
  )
  assert '003.Sooty_Albatross/Sooty_Albatross_0000_0.jpg (' in text
  assert not builders.place('cub200', data_dir).exists()
  # Mended, only their shards are made anew.
  archives.write_image(images[0])
  archives.write_image(images[5])
  reads = interrupt(monkeypatch, 100)
  prepare.prepare('cub200', source, data_dir=data_dir)
  assert len(reads) == 4


def test_missing_images_are_counted_at_once(source, data_dir, monkeypatch):
  reads = interrupt(monkeypatch, 100)
  for path in itertools.islice((source / 'images').rglob('*.jpg'), 3):
    path.unlink()
  with pytest.raises(UserError, match='3 images of cub200 are listed but not'):
    prepare.prepare('cub200', source, data_dir=data_dir)
  assert not reads


def test_file_systems_without_links_get_copies(source, data_dir, monkeypatch):
  def refuse(*_):
    raise PermissionError

  monkeypatch.setattr('os.link', refuse)
  prepare.prepare('cub200', source, data_dir=data_dir)
  assert len(datasets.load('cub200', data_dir=data_dir)['train']) == 5


def test_counts_are_those_of_the_protocol(source, data_dir, monkeypatch):
  counts = {'train': (5, 2), 'test': (5, 3)}
  monkeypatch.setattr(cub200.Cub200, 'counts', counts)
  message = 'test holds 4 images of 2 classes, expected 5 of 3'
  with pytest.raises(UserError, match=message) as error:
    prepare.prepare('cub200', source, data_dir=data_dir)
  assert 'train holds' not in str(error.value)
  assert 'data.caltech.edu' in str(error.value)


def test_images_are_needed_where_none_are_bundled(tmp_path, data_dir):
  with pytest.raises(UserError, match=r'--from DIR.*data.caltech.edu'):
    prepare.prepare('cub200', data_dir=data_dir)
  with pytest.raises(UserError, match=r'there is no folder .*nowhere'):
    prepare.prepare('cub200', tmp_path / 'nowhere', data_dir=data_dir)


def test_images_of_the_package_come_from_nowhere_else(tmp_path, data_dir):
  with pytest.raises(UserError, match=r'emoji comes .* leave --from out'):
    prepare.prepare('emoji', tmp_path, data_dir=data_dir)


@pytest.mark.parametrize('name', ['birds', 'cub200/short512', 'emoji/x'])
def test_unknown_names_list_the_known_ones(name):
  known = 'emoji, emoji/subgroup, cub200, cub200/short256, .*folder/NAME'
  with pytest.raises(UserError, match=f"unknown data set '{name}'.*{known}"):
    builders.place(name, None)


def test_place_is_where_tfds_looks(tmp_path, monkeypatch):
  monkeypatch.setenv('TFDS_DATA_DIR', str(tmp_path))
  place = builders.place('sop/short256', None)
  assert place == tmp_path / 'sop/short256/1.0.0'


def test_archives_still_packed_are_told_how_to_unpack(tmp_path):
  (tmp_path / 'CUB_200_2011.tgz').touch()
  (tmp_path / 'other.zip').touch()
  with pytest.raises(UserError) as error:
    tables.locate(
      tmp_path,
      ('images', 'classes.txt'),
      folder='CUB',
      archives=('CUB_200_2011.tgz', 'other.zip', 'third.zip'),
      instructions='Get it there.',
    )
  text = str(error.value)
  assert f'{tmp_path} lacks images, classes.txt; expected' in text
  assert f'run `tar -xf {tmp_path}/CUB_200_2011.tgz -C {tmp_path}`' in text
  assert f'run `unzip {tmp_path}/other.zip -d {tmp_path}`' in text
  assert 'third.zip' not in text and text.endswith('Get it there.')


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('', 'begins with .*expected the number of rows'),
    ('3\nid name\n1 a\n2 b\n', r"begins with \['3', 'id name'\].*\(2\)"),
    ('1\nname id\n1 a\n', "begins with .*the columns 'id name'"),
    ('0\nid name\n', "0 of 0 lines that are not 'id name'"),
    ('3\nid name\n1 a\nx b\n2 b c\n', '2 of 3 lines .*: lines 4, 5'),
  ],
)
def test_lists_that_do_not_fit_are_explained(tmp_path, text, message):
  path = tmp_path / 'list.txt'
  path.write_text(text)
  columns = {'id': int, 'name': str}
  with pytest.raises(UserError, match=message):
    tables.read_table(path, columns, header=True, counted=True)


def test_lists_are_read_whole_or_not_at_all(tmp_path):
  path = tmp_path / 'list.txt'
  path.write_text('2\nid name\n1 a\n\n2   b \n')
  columns = {'id': int, 'name': str}
  rows = tables.read_table(path, columns, header=True, counted=True)
  assert rows == [(1, 'a'), (2, 'b')]
  path.write_bytes(b'\xff\xfe')
  with pytest.raises(UserError, match=r'list.txt cannot be read'):
    tables.read_table(path, columns)
  with pytest.raises(UserError, match=r'none.txt cannot be read'):
    tables.read_table(tmp_path / 'none.txt', columns)
  with pytest.raises(UserError, match='x holds 1 twice: b'):
    tables.unique(['a', 'b', 'b', 'b'], 'x')


def test_at_most_ten_are_listed():
  assert tables.listed([str(i) for i in range(10)]).endswith('8, 9')
  assert tables.listed([str(i) for i in range(11)]).endswith('9, ...')


def test_folder_names_are_checked():
  with pytest.raises(UserError, match='expected folder/NAME'):
    folder.Folder.config('a b')
  with pytest.raises(UserError, match='expected folder/NAME'):
    builders.place('folder', None)


def test_the_license_of_a_data_set_is_known_without_it():
  assert 'ATTRIBUTION.md' in builders.license_of('emoji/subgroup')
  assert builders.license_of('folder/mine') == 'that of your images'
  with pytest.raises(UserError, match='unknown data set'):
    builders.license_of('none')
