"""A user's own folder of folders of images."""

import pytest
from PIL import Image

from hier_jax.data import datasets, prepare
from hier_jax.errors import UserError
from hier_jax.evaluation.taxonomy import Taxonomy
from tests import archives


@pytest.fixture
def source(tmp_path):
  """Four classes, images of several kinds and depths."""
  path = tmp_path / 'pets'
  archives.write_image(path / 'dog/b.JPG')
  archives.write_image(path / 'dog/a.png', mode='L')
  archives.write_image(path / 'cat/more/c.webp')
  archives.write_image(path / 'ant/1.gif')
  archives.write_image(path / 'bee/1.tiff')
  (path / '.cache').mkdir()
  (path / 'dog/.DS_Store').touch()
  archives.write_image(path / 'dog/.thumbs/a.png')
  (path / 'README').touch()
  return path


def load(source):
  data_dir = source.parent / 'prepared'
  prepare.prepare('folder/pets', source, data_dir=data_dir)
  return datasets.load('folder/pets', data_dir=data_dir)


def refuse(source, message):
  with pytest.raises(UserError, match=message):
    load(source)


def test_classes_alternate(source):
  splits = load(source)
  assert splits['train'].names['label'] == ['ant', 'cat']
  assert splits['test'].names['label'] == ['bee', 'dog']
  test = splits['test']
  assert [test.source[i]['path'] for i in range(3)] == [
    *('bee/1.tiff', 'dog/a.png', 'dog/b.JPG')
  ]
  assert splits['train'].source[1]['path'] == 'cat/more/c.webp'
  assert test.levels == [] and test.ancestors() == []


def test_folders_of_splits_are_the_splits(source):
  for split, names in (('train', ['dog', 'bee']), ('test', ['ant', 'cat'])):
    (source / split).mkdir()
    for name in names:
      (source / name).rename(source / split / name)
  splits = load(source)
  assert splits['train'].names['label'] == ['bee', 'dog']
  assert splits['test'].source[0]['path'] == 'test/ant/1.gif'


def test_splits_share_no_class(source):
  for split in ('train', 'test'):
    archives.write_image(source / split / 'dog/1.jpg')
  refuse(source, '1 classes are in both train/ and test/: dog')


def test_one_class_is_too_few(source):
  for name in ('ant', 'bee', 'cat'):
    for path in sorted((source / name).rglob('*'), reverse=True):
      path.rmdir() if path.is_dir() else path.unlink()
    (source / name).rmdir()
  refuse(source, 'holds 1 folders of images.*expected a class for training')


def test_what_is_no_image_is_not_dropped_in_silence(source):
  (source / 'dog/c.heic').touch()
  (source / 'cow').mkdir()
  refuse(source, r'1 folders .*: .*/cow; 1 files are none: .*/dog/c.heic; exp')


def test_broken_image(source):
  (source / 'dog/c.jpg').write_bytes(b'GIF')
  refuse(source, r'1 of 6 images of folder cannot be read: dog/c.jpg \(')


def test_taxonomy(source):
  text = 'class,phylum,order\ndog,chordata,carnivora\nant,arthropoda,\n'
  text += 'bee,arthropoda, \ncat,chordata,carnivora\n\n'
  (source / 'taxonomy.csv').write_text(text)
  splits = load(source)
  assert splits['train'].levels == ['phylum', 'order']
  assert splits['train'].ancestors() == [
    ['arthropoda', ''],
    ['chordata', 'carnivora'],
  ]
  # It means what it does where evaluation reads it.
  ours = Taxonomy.from_levels(
    splits['test'].ancestors(),
    splits['test'].names['label'],
    [*splits['test'].levels, 'class'],
  )
  theirs = Taxonomy.from_csv(source / 'taxonomy.csv')
  rows = theirs.codes(['bee', 'dog'])
  assert ours.level_names == theirs.level_names
  assert ours.depth.tolist() == theirs.depth[rows].tolist()


@pytest.mark.parametrize(
  ('text', 'message'),
  [
    ('class,kind\nant,i\nbee,i\ncat,p\n', 'lacks 1 classes: dog; and holds 0'),
    (
      'class,kind\nant,i\nbee,i\ncat,p\ndog,p\ncow,p\nelk,p\n',
      'lacks 0 classes: ; and holds 2 that have no folder: cow, elk',
    ),
    ('class,kind\nant,i\nant,i\n', 'taxonomy.csv holds 1 twice: ant'),
    ('class,a,b\nant,,x\n', '1 rows of another length .*a gap .*: ant,,x'),
    ('class,a,b\nant,x\n', '1 rows of another length .*: ant,x'),
    ('class\nant\n', r"begins with \['class'\]; expected the word class"),
    ('class,a,a\nant,x,y\n', 'expected the word class'),
    ('class,index\nant,x\n', 'expected the word class'),
    ('', 'cannot be read as CSV'),
    (
      'class,a,b\nant,x,k\nbee,y,k\ncat,y,l\ndog,y,l\n',
      "1 values of 'b' lie below several others, 'k' below",
    ),
  ],
)
def test_taxonomy_at_odds(source, text, message):
  (source / 'taxonomy.csv').write_text(text)
  refuse(source, message)


def test_taxonomy_in_another_encoding(source):
  (source / 'taxonomy.csv').write_bytes('class,é\n'.encode('latin-1'))
  refuse(source, 'taxonomy.csv cannot be read as CSV')


def test_transparency_and_palettes_are_images_too(source):
  Image.new('P', (4, 4)).save(source / 'dog/p.png')
  Image.new('RGBA', (4, 4)).save(source / 'dog/t.png')
  assert len(load(source)['test']) == 5
