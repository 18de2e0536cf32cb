"""Lists and links of strangers' archives: nothing outside of them is read."""

import multiprocessing
import os
import re
import shutil

import numpy as np
import pytest

from hier_jax.data import datasets, prepare
from hier_jax.data.builders import inside
from hier_jax.errors import UserError
from tests.support import archives

WRITERS = {
  'cub200': archives.write_cub,
  'cars196': archives.write_cars,
  'sop': archives.write_sop,
  'inshop': archives.write_inshop,
}
# One image of each, and its folder, relative to the source.
IMAGES = {
  'cub200': ('images', '004.Cardinal/Cardinal_0000_0.jpg'),
  'cars196': ('.', 'car_ims/000003.jpg'),
  'sop': ('.', 'cabinet_final/14_0.JPG'),
  'inshop': ('Img', 'img/MEN/Shorts/id_00000004/01_2_side.jpg'),
}
LISTS = {
  'cub200': ['images.txt', 'image_class_labels.txt', 'classes.txt'],
  'cars196': ['cars_annos.mat'],
  'sop': ['Ebay_train.txt', 'Ebay_test.txt'],
  'inshop': ['Eval/list_eval_partition.txt'],
}


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  archives.shrink(monkeypatch)


@pytest.fixture
def secret(tmp_path):
  """An image of somebody else."""
  path = tmp_path / 'private' / 'secret.jpg'
  archives.write_image(path)
  return path


def written(name, tmp_path):
  source = tmp_path / 'source'
  WRITERS[name](source)
  return source


def refusal(name, source):
  """The message, and that no record was written."""
  data_dir = source.parent / 'prepared'
  with pytest.raises(UserError) as error:
    prepare.prepare(name, source, data_dir=data_dir)
  assert not list(data_dir.rglob('*.array_record*'))
  assert '\n' not in str(error.value)
  return str(error.value)


def to_zeros(path):
  path.symlink_to('/dev/zero')


def in_time(make, *args):
  """Fails, instead of waiting for ever for who writes into a pipe."""
  process = multiprocessing.get_context('fork').Process(target=make, args=args)
  process.start()
  process.join(20)
  alive = process.is_alive()
  process.kill()
  process.join()
  assert not alive and process.exitcode == 0


@pytest.mark.parametrize('name', IMAGES)
def test_an_image_that_is_a_link_out_of_the_source(name, tmp_path, secret):
  source = written(name, tmp_path)
  folder, path = IMAGES[name]
  (source / folder / path).unlink()
  (source / folder / path).symlink_to(secret)
  message = refusal(name, source)
  assert f'1 images of {name} lie outside of {source}: ' in message
  assert f'{path} ({secret}); copy them there' in message
  assert 'dvc checkout --relink' in message


@pytest.mark.parametrize('name', IMAGES)
def test_a_folder_that_is_a_link_out_of_the_source(name, tmp_path):
  source = written(name, tmp_path)
  folder, path = IMAGES[name]
  parent = (source / folder / path).parent
  parent.rename(tmp_path / 'elsewhere')
  parent.symlink_to(tmp_path / 'elsewhere')
  assert f'images of {name} lie outside of {source}: ' in refusal(name, source)


def test_a_list_that_names_what_is_above(tmp_path, secret, monkeypatch):
  source = written('sop', tmp_path)
  for number, split, name in ((8, 'train', 'x.jpg'), (9, 'test', 'secret.jpg')):
    (source / f'Ebay_{split}.txt').write_text(
      'image_id class_id super_class_id path\n'
      f'{number} {number} 1 ../private/{name}\n'
    )
  counts = {'train': (1, 1), 'test': (1, 1)}
  monkeypatch.setattr(archives.sop.Sop, 'counts', counts)
  message = refusal('sop', source)
  assert f'outside of {source}: ../private/secret.jpg ({secret})' in message


def test_a_list_that_names_an_absolute_path(tmp_path, secret):
  source = written('inshop', tmp_path)
  path = source / LISTS['inshop'][0]
  text = path.read_text()
  path.write_text(text.replace(IMAGES['inshop'][1], f'img/{secret}'))
  message = refusal('inshop', source)
  assert f'outside of {source}: img/{secret} ({secret})' in message


def test_annotations_that_name_what_is_outside(tmp_path, secret):
  source = written('cars196', tmp_path)
  rows = [(f'car_ims/{i + 1:06d}.jpg', i // 2 + 1) for i in range(7)]
  rows += [('../private/secret.jpg', 4)]
  archives.save_mat(
    source / 'cars_annos.mat', 'relative_im_path', rows, archives.CARS
  )
  assert f'../private/secret.jpg ({secret})' in refusal('cars196', source)


@pytest.mark.parametrize(
  ('name', 'listed'), [(n, x) for n, names in LISTS.items() for x in names]
)
def test_a_list_that_is_a_link_out_of_the_source(name, listed, tmp_path):
  source = written(name, tmp_path)
  shutil.move(source / listed, tmp_path / 'list')
  (source / listed).symlink_to(tmp_path / 'list')
  message = refusal(name, source)
  assert f'1 lists of {name} lie outside of {source}: {listed} (' in message


@pytest.mark.parametrize('name', IMAGES)
@pytest.mark.parametrize('make', [os.mkfifo, to_zeros])
def test_an_image_that_is_a_pipe_or_a_device(name, make, tmp_path):
  source = written(name, tmp_path)
  folder, path = IMAGES[name]
  (source / folder / path).unlink()
  make(source / folder / path)

  def check():
    assert re.search('no regular files|outside of', refusal(name, source))

  in_time(check)


@pytest.mark.parametrize('name', LISTS)
@pytest.mark.parametrize('make', [os.mkfifo, to_zeros])
def test_a_list_that_is_a_pipe_or_a_device(name, make, tmp_path):
  source = written(name, tmp_path)
  (source / LISTS[name][0]).unlink()
  make(source / LISTS[name][0])
  in_time(refusal, name, source)


def test_lists_and_images_without_end(tmp_path):
  source = written('sop', tmp_path)
  os.truncate(source / IMAGES['sop'][1], 2**40)
  assert (
    f'1 images of sop have more than 512,000,000 bytes: {IMAGES["sop"][1]};'
  ) in refusal('sop', source)
  os.truncate(source / 'Ebay_train.txt', 2**40)
  assert '1 lists of sop have more than 67,108,864 bytes' in refusal(
    'sop', source
  )


def test_a_name_with_a_zero_byte_is_missing(tmp_path):
  source = written('sop', tmp_path)
  text = (source / 'Ebay_test.txt').read_text()
  (source / 'Ebay_test.txt').write_text(text.replace('14_0', '14\0_0'))
  assert r'cabinet_final/14\x00_0.JPG' in refusal('sop', source)


def folder_of(tmp_path):
  source = tmp_path / 'pets'
  for name in 'abcd':
    archives.write_image(source / name / '1.png')
  return source


def test_a_link_to_a_file_outside_of_a_folder_of_ones_own(tmp_path, secret):
  source = folder_of(tmp_path)
  (source / 'a/2.jpg').symlink_to(secret)
  assert f'outside of {source}: a/2.jpg ({secret})' in refusal(
    'folder/pets', source
  )


@pytest.mark.parametrize(
  'make',
  [
    os.mkfifo,
    lambda p: p.symlink_to('/dev/zero'),
    lambda p: p.symlink_to('/etc/passwd'),
  ],
)
def test_a_taxonomy_that_is_no_file_of_the_folder(make, tmp_path):
  source = folder_of(tmp_path)
  make(source / 'taxonomy.csv')

  def check():
    message = refusal('folder/pets', source)
    assert re.search('lists of folder (are no regular|lie outside)', message)

  in_time(check)


def test_git_annex_is_inside(tmp_path):
  source = folder_of(tmp_path)
  key = source / '.git/annex/objects/Xz/SHA256E-s1.png'
  key.parent.mkdir(parents=True)
  (source / 'a/1.png').rename(key)
  (source / 'a/1.png').symlink_to('../.git/annex/objects/Xz/SHA256E-s1.png')
  link = tmp_path / 'link'
  link.symlink_to(source)
  data_dir = tmp_path / 'prepared'
  prepare.prepare('folder/pets', link, data_dir=data_dir)
  record = datasets.load('folder/pets', data_dir=data_dir)['train'].source[0]
  assert (record['path'], record['image']) == ('a/1.png', key.read_bytes())


@pytest.mark.parametrize(
  ('path', 'expected'),
  [('a', True), ('.', True), ('a/..', True), ('..', False), ('../xy', False)],
)
def test_holds(path, expected, tmp_path):
  root = tmp_path / 'x'
  (root / 'a').mkdir(parents=True)
  (tmp_path / 'xy').mkdir()
  assert inside.Inside(root).holds(root / path) == expected
  assert inside.Inside('/').holds(root / path)


def test_many_files_take_a_call_each(tmp_path, monkeypatch):
  """As SOP's 120,000, most of the time of which were the folders above."""
  files = {tmp_path / f'{i}.jpg': str(i) for i in range(100)}
  for file in files:
    file.touch()
  calls = []
  lstat = os.lstat
  monkeypatch.setattr(os, 'lstat', lambda p, **k: calls.append(p) or lstat(p))
  within = inside.Inside(tmp_path)
  assert len(within.stats(files, 'files', 9)) == 100
  assert len(calls) < 100 + 4 * len(tmp_path.parts)


def test_a_list_in_one_line_is_not_quoted_whole(tmp_path):
  source = written('sop', tmp_path)
  for text in (
    'x' * 10**7,
    'x ' * 10**6,
    'image_id class_id super_class_id path\n' + 'x' * 10**7,
  ):
    (source / 'Ebay_train.txt').write_text(text)
    assert len(refusal('sop', source)) < 1500
  (source / 'Ebay_train.txt').write_text(
    'image_id class_id super_class_id path\n'
    + ''.join(f'{i} {i} 1 {"y" * 10**5}{i}/x.jpg\n' for i in range(9))
  )
  assert len(refusal('sop', source)) < 1500


@pytest.mark.parametrize(
  'text',
  [
    'class,' + 'x' * 10**5,
    'x' * 10**7,
    'class' + ',x' * 10**5,
    'class,a,b\na,x,' + 'y' * 10**5 + '\nb,z,' + 'y' * 10**5 + '\nc,,\nd,,\n',
  ],
)
def test_a_taxonomy_is_not_quoted_whole(text, tmp_path):
  source = folder_of(tmp_path)
  (source / 'taxonomy.csv').write_text(text)
  message = refusal('folder/pets', source)
  assert len(message) < 1500


@pytest.mark.parametrize('label', ['abc', 1.5, np.nan, [1, 2], {'a': 1}, 1e300])
def test_classes_that_are_no_integers(label, tmp_path):
  source = written('cars196', tmp_path)
  rows = [(f'car_ims/{i + 1:06d}.jpg', i // 2 + 1) for i in range(8)]
  rows[3] = (rows[3][0], label)
  archives.save_mat(
    source / 'cars_annos.mat', 'relative_im_path', rows, archives.CARS
  )
  assert re.search('no integers|name classes', refusal('cars196', source))
