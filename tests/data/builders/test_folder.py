"""A user's own folder of folders of images."""

import os
import pathlib
import re

import pytest
from PIL import Image

from hier_jax.data import datasets, info, prepare
from hier_jax.errors import UserError
from hier_jax.evaluation.taxonomy import Taxonomy
from tests.support import archives


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


@pytest.mark.parametrize('split', ['Test', 'val'])
def test_splits_share_no_class(tmp_path, split):
  source = tmp_path / 'pets'
  for path in ('train/dog', 'train/cat', 'Test/ant', 'val/bee', f'{split}/dog'):
    archives.write_image(source / path / '1.jpg')
  refuse(source, f'1 classes are in both train/ and {split}/: dog')


@pytest.mark.parametrize(
  'folders',
  [
    ('Train', 'Test', 'Valid'),
    ('training', 'testing', 'validation'),
    ('TRAIN', 'eval', 'dev'),
    ('train', 'test', 'val'),
  ],
)
def test_usual_spellings_of_splits(tmp_path, folders):
  source = tmp_path / 'pets'
  for folder, names in zip(folders, ('ad', 'be', 'cf'), strict=True):
    for name in names:
      archives.write_image(source / folder / name / '1.png')
  splits = load(source)
  found = {split: splits[split].names['label'] for split in splits}
  assert found == {'train': ['a', 'd'], 'val': ['c', 'f'], 'test': ['b', 'e']}
  assert splits['val'].source[0]['path'] == f'{folders[2]}/c/1.png'
  numbers = {split: splits[split].numbers.tolist() for split in splits}
  assert numbers == {'train': [0, 3], 'val': [2, 5], 'test': [1, 4]}


@pytest.mark.parametrize(
  'folders',
  [
    ('train', 'val'),
    ('val', 'test'),
    ('train', 'Train', 'test'),
    ('train', 'test', 'extra'),
  ],
)
def test_folders_of_splits_that_are_not_clear(tmp_path, folders):
  source = tmp_path / 'pets'
  for folder in folders:
    archives.write_image(source / folder / f'of {folder}' / '1.png')
  names = ', '.join(sorted(folders))
  refuse(source, rf'folders of splits, {names}; expected one .*\(test\)')


def test_super_classes_are_no_classes(tmp_path):
  source = tmp_path / 'pets'
  for path in ('pet/cat', 'pet/dog', 'wild/cow', 'wild/elk', 'ant'):
    archives.write_image(source / path / '1.png')
  refuse(
    source, r'2 class folders hold only folders .*taxonomy.csv\): pet, wild'
  )


def test_one_class_is_too_few(source):
  for name in ('ant', 'bee', 'cat'):
    for path in sorted((source / name).rglob('*'), reverse=True):
      path.rmdir() if path.is_dir() else path.unlink()
    (source / name).rmdir()
  refuse(source, 'holds 1 folders of images.*expected a class for each')


def notes(source):
  data_dir = source.parent / 'prepared'
  return info.describe('folder/pets', data_dir=data_dir)['notes']


def test_what_is_left_out_is_told(source):
  for name in ('Thumbs.db', 'readme.txt', 'list.TXT', 'b\nc.mp4'):
    (source / 'dog' / name).touch()
  os.mkfifo(source / 'dog/pipe.jpg')
  archives.write_image(source / 'dog/@eaDir/b.JPG')
  archives.write_image(source / '__MACOSX/dog/b.JPG')
  archives.write_image(source / 'lone.png')
  splits = load(source)
  assert sum(map(len, splits.values())) == 5
  assert splits['test'].names['label'] == ['bee', 'dog']
  assert notes(source) == [
    r"skipped 4 files that are no images by name: 'dog/b\nc.mp4', "
    'dog/list.TXT, dog/pipe.jpg, dog/readme.txt',
    'skipped 6 hidden or system files and folders: .cache, __MACOSX, '
    'dog/.DS_Store, dog/.thumbs, dog/@eaDir, dog/Thumbs.db',
    'skipped 2 files outside of class folders: README, lone.png',
    'took 1 images from folders within class folders: cat/more/c.webp',
  ]


@pytest.mark.parametrize(
  ('make', 'message'),
  [
    (
      lambda dog: (dog / 'c.jpg').symlink_to('../.git/annex/c'),
      r'1 links lead nowhere \(.*git annex get.*\): dog/c.jpg',
    ),
    (
      lambda dog: (dog.parent / 'cow').symlink_to('/nowhere'),
      r'1 links lead nowhere .*: cow',
    ),
    (lambda dog: (dog / 'up').symlink_to('..'), '1 folders are .*: dog/up'),
    (
      lambda dog: (dog.parent / 'hound').symlink_to(dog),
      '1 fol.*again.*: hound',
    ),
    (
      lambda dog: (dog / 'linked').symlink_to('/usr'),
      '1 links lead to folders outside of it: .*git annex unlock.*: dog/linked',
    ),
    (
      lambda dog: (dog / 'c.heic').touch(),
      '1 images are of formats that are not read .*: dog/c.heic',
    ),
    (
      lambda dog: (dog.parent / 'cow').mkdir(),
      '1 class fol.* no image .*: cow',
    ),
  ],
)
def test_what_can_be_neither_taken_nor_left_out(source, make, message):
  make(source / 'dog')
  refuse(source, message.replace('again', 'once more'))


def test_linked_folders_are_followed(source):
  for name in ('c', 'd'):
    archives.write_image(source / f'.store/{name}.png')
  (source / 'dog/linked').symlink_to(source / '.store')
  test = load(source)['test']
  assert [test.source[i]['path'] for i in range(1, len(test))] == [
    *('dog/a.png', 'dog/b.JPG', 'dog/linked/c.png', 'dog/linked/d.png')
  ]


def test_folder_that_cannot_be_read(source, monkeypatch):
  iterdir = pathlib.Path.iterdir

  def refused(path):
    if path.name == 'dog':
      raise PermissionError(13, 'Permission denied')
    return iterdir(path)

  monkeypatch.setattr(pathlib.Path, 'iterdir', refused)
  refuse(source, 'dog cannot be read: Permission denied')


@pytest.mark.parametrize(
  'name',
  ['x ', ' x', 'a\nb', 'a\rb', '\xa0x', 'x\u2028', 'x\x85', '\x0b', '\x1c'],
)
def test_names_that_would_change_are_refused(source, name):
  archives.write_image(source / name / '1.png')
  archives.write_image(source / 'x' / '1.png')
  refuse(source, f'1 classes have names .*: {re.escape(repr(name))}; expected')


def test_names_that_are_kept(source):
  names = ['a\x0bb', 'a\x85b', 'a\xa0b', '"q"', 'a,b', 'é', '猫', '-1']
  for name in names:
    archives.write_image(source / name / '1.png')
  splits = load(source)
  found = {
    split.names['label'][split.labels[i]]: split.source[i]['path'].split('/')[0]
    for split in splits.values()
    for i in range(len(split))
  }
  assert found.keys() >= {*names}
  assert all(name == folder for name, folder in found.items())


def test_names_that_are_not_utf_8(source):
  image = (source / 'ant/1.gif').read_bytes()
  path = os.fsdecode(b'ant/caf\xe9.gif')
  (source / path).write_bytes(image)
  (source / os.fsdecode(b'ant/caf\xe9.txt')).touch()
  train = load(source)['train']
  assert [train.source[i]['path'] for i in range(2)] == ['ant/1.gif', path]
  assert (
    r"skipped 1 files that are no images by name: 'ant/caf\udce9.txt'"
    in notes(source)
  )
  (source / 'ant').rename(source / os.fsdecode(b'caf\xe9'))
  refuse(source, r"1 classes have names .*: 'caf\\udce9'; expected UTF-8")


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
    ('class,a,a\nant,x,y\n', "2 levels with names that are taken.*: 'a', 'a'"),
    ('class,index\nant,x\n', "1 levels .*: 'index'; rename them"),
    ('class,class\nant,x\n', "1 levels .*: 'class'; rename"),
    ('class,../up\nant,x\n', "1 levels .*: '../up'; rename"),
    ('class,a\nant,"b\nc"\nbee,\ncat,\ndog,\n', r"1 values of 'a' .*'b\\nc'"),
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
