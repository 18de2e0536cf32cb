"""Facts and pictures of a prepared data set."""

import json

import numpy as np
import pytest
from PIL import Image

from hier_jax.data import cache, datasets, info, prepare
from hier_jax.errors import UserError
from tests.support import archives

SIZES = [(10, 20), (30, 20), (20, 50), (12, 8), (12, 8)]


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  """A data set whose five training images have sizes and modes of their own."""
  root = tmp_path_factory.mktemp('info')
  source = root / 'pets'
  for i, size in enumerate(SIZES):
    mode = 'L' if i == 0 else 'RGB'
    name = f'cat/{i}.png' if i < 4 else 'cow/4.jpg'
    archives.write_image(source / name, 40 * i, size, mode)
  archives.write_image(source / 'ant/1.png')
  archives.write_image(source / 'bee/1.png')
  (source / 'taxonomy.csv').write_text(
    'class,kind\nant,small\nbee,small\ncat,large\ncow,large\n'
  )
  for name in ('ant', 'bee', 'cat', 'cow'):
    split = 'train' if name in ('cat', 'cow') else 'test'
    (source / split).mkdir(exist_ok=True)
    (source / name).rename(source / split / name)
  prepare.prepare('folder/pets', source, data_dir=root / 'prepared')
  return root / 'prepared'


def test_facts_are_those_of_the_images(data_dir):
  facts = info.describe('folder/pets', data_dir=data_dir)
  train = facts['splits']['train']
  source = data_dir.parent / 'pets/train'
  assert train == {
    'images': 5,
    'classes': 2,
    'bytes': sum(path.stat().st_size for path in source.rglob('*.*')),
    'images_per_class': (1, 2.5, 4),
    'width': (10, 12.0, 30),
    'height': (8, 20.0, 50),
    'modes': {'RGB': 4, 'L': 1},
    'formats': {'PNG': 4, 'JPEG': 1},
    'single': ['cow'],
    'animated': 0,
  }
  assert facts['splits']['test']['classes'] == 2
  assert facts['layout'] == 'train and test'
  assert facts['levels'] == ['kind']
  assert facts['short_side'] is None
  # It may be written down as it is.
  assert json.loads(json.dumps(facts))['name'] == 'folder/pets'


def test_text_says_it_all(data_dir):
  text = info.as_text(info.describe('folder/pets', data_dir=data_dir))
  for line in (
    f'folder/pets in {data_dir}/folder/pets/1.1.0',
    '  images    as published',
    '  taxonomy  kind > class',
    '  license   that of your images',
    'train: 5 images of 2 classes, 0.0 MB',
    '  images a class  1 to 4, median 2.5',
    '  height          8 to 50, median 20',
    '  color modes     RGB 4, L 1',
    '  formats         PNG 4, JPEG 1',
    '  one image       1 classes: cow (other views of it are its positives)',
    '  one image       2 classes: ant, bee (it is no query, but others may '
    'retrieve it)',
  ):
    assert line in text.splitlines()
  resized = info.describe('folder/pets', data_dir=data_dir) | {'short_side': 9}
  assert '  images    short side 9' in info.as_text(resized)


def test_a_sheet_takes_the_place_of_a_sheet_alone(data_dir, tmp_path):
  path = tmp_path / 'photo.png'
  Image.new('RGB', (4, 4)).save(path)
  content = path.read_bytes()
  with pytest.raises(UserError, match='is there and no contact sheet'):
    info.contact_sheet('folder/pets', path, data_dir=data_dir)
  assert path.read_bytes() == content
  for _ in range(2):
    info.contact_sheet('folder/pets', tmp_path / 's.png', data_dir=data_dir)


def test_sheet_shows_the_images(data_dir, tmp_path):
  path = tmp_path / 'sheet.png'
  info.contact_sheet('folder/pets', path, data_dir=data_dir)
  assert [x.name for x in tmp_path.iterdir()] == ['sheet.png']
  with Image.open(path) as image:
    sheet = np.asarray(image)
  # A row for each of the 2 + 2 classes, 100 pixels each and a margin of 4.
  assert sheet.shape == (404, 180 + 8 * 100, 3)
  # cat's images 0 .. 3, in the first row; 4 x 1 class's end it.
  np.testing.assert_array_equal(sheet[6, 182], [0, 0, 0])
  np.testing.assert_array_equal(sheet[6, 282], [40, 90, 215])
  np.testing.assert_array_equal(sheet[6, 482], [120, 90, 135])
  np.testing.assert_array_equal(sheet[6, 582], [255, 255, 255])
  # Its name stands at the left.
  assert (sheet[4:104, :180] < 128).any()


def test_sheet_takes_images_evenly_from_many():
  assert info._spread(100, 4) == [0, 25, 50, 75]
  assert info._spread(3, 8) == [0, 1, 2]


def test_names_no_font_knows_are_drawn_all_the_same(tmp_path):
  source, data_dir = tmp_path / 'in', tmp_path / 'out'
  for name in ('\U0001f600', '猫'):
    archives.write_image(source / name / '1.png')
  prepare.prepare('folder/wide', source, data_dir=data_dir)
  info.contact_sheet('folder/wide', tmp_path / 'sheet.png', data_dir=data_dir)


def test_several_frames_are_told(tmp_path):
  frames = [Image.new('RGB', (4, 4), (40 * i, 0, 0)) for i in range(3)]
  for name in ('cat/1.gif', 'cat/2.tiff', 'dog/1.webp'):
    archives.write_image(tmp_path / 'pets' / name)
    path = tmp_path / 'pets' / name
    frames[0].save(path, save_all=True, append_images=frames[1:])
  archives.write_image(tmp_path / 'pets/cat/3.gif')
  out = tmp_path / 'out'
  prepare.prepare('folder/pets', tmp_path / 'pets', data_dir=out)
  facts = info.describe('folder/pets', data_dir=out)
  assert [x['animated'] for x in facts['splits'].values()] == [2, 1]
  assert '  several frames  2 images (the first is used)' in info.as_text(facts)


def test_what_is_not_prepared_has_no_facts(tmp_path):
  with pytest.raises(UserError, match='cub200 is not prepared'):
    info.describe('cub200', data_dir=tmp_path)
  with pytest.raises(UserError, match='cub200 is not prepared'):
    info.contact_sheet('cub200', tmp_path / 'x.png', data_dir=tmp_path)
  assert not list(tmp_path.iterdir())


def test_images_above_the_limit_are_refused_wherever_they_are_read(data_dir):
  """The largest has 30 x 20 pixels in train, the others 96."""
  limit, message = 599e-6, 'pixels, more than max_megapixels, 0.000599, allows'
  options = {'data_dir': data_dir, 'max_megapixels': limit}
  with pytest.raises(UserError, match=f'image 1 of .*pets:train .*{message}'):
    info.describe('folder/pets', **options)
  with pytest.raises(UserError, match=message):
    info.contact_sheet('folder/pets', data_dir.parent / 'x.png', **options)
  train = datasets.load('folder/pets', **options)['train']
  for split in (train, train.select(np.arange(5), 'all')):
    assert cache.Decoded(split).image(0).size == (10, 20)
    with pytest.raises(UserError, match=message):
      cache.Decoded(split).image(1)
  options['data_dir'] = data_dir.parent / 'more'
  with pytest.raises(
    UserError, match=rf'2 of 7 .*: train/cat/1.png .*{message}'
  ):
    prepare.prepare('folder/pets', data_dir.parent / 'pets', **options)
  prepare.prepare(
    'folder/pets',
    data_dir.parent / 'pets',
    **options | {'max_megapixels': 1000e-6},
  )
