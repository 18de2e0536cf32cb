"""Preparing is atomic and idempotent, whatever stops it."""

import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from hier_jax.data import builders, datasets, prepare
from hier_jax.data.builders import cub200, shards
from hier_jax.errors import UserError
from tests.support import archives, places


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


def test_it_says_nothing_without_a_terminal(tmp_path, data_dir, capfd, caplog):
  for name in ('cat', 'dog'):
    archives.write_image(tmp_path / 'pets' / name / '1.png')
  prepare.prepare('folder/pets', tmp_path / 'pets', data_dir=data_dir)
  assert capfd.readouterr() == ('', '') and not caplog.records


def test_again_is_as_once(source, data_dir, monkeypatch):
  place = prepare.prepare('cub200', source, data_dir=data_dir)
  before = {x.name: x.stat().st_mtime_ns for x in place.iterdir()}
  monkeypatch.setattr(cub200.Cub200, '_read', None)
  assert prepare.prepare('cub200', source, data_dir=data_dir) == place
  assert before == {x.name: x.stat().st_mtime_ns for x in place.iterdir()}


def test_other_images_of_the_same_name_are_refused(tmp_path, data_dir):
  pets, birds = tmp_path / 'pets', tmp_path / 'birds'
  for name in ('cat', 'dog'):
    archives.write_image(pets / name / '1.png')
    archives.write_image(birds / name / '2.png')
  place = prepare.prepare('folder/mine', pets, data_dir=data_dir)
  message = (
    f'{place} was prepared from other images or names than those of {birds}'
  )
  with pytest.raises(UserError, match=message):
    prepare.prepare('folder/mine', birds, data_dir=data_dir)
  other = prepare.prepare('folder/yours', birds, data_dir=data_dir)
  assert other.parent.parent == place.parent.parent


def pets(folder, value=0, mtime=None):
  for name in ('cat', 'dog'):
    archives.write_image(folder / name / '1.png', value, (300, 300))
    if mtime is not None:
      os.utime(folder / name / '1.png', ns=(mtime, mtime))
  return folder


def test_an_image_replaced_in_place_is_noticed(tmp_path, data_dir):
  source = pets(tmp_path / 'pets')
  place = prepare.prepare('folder/pets', source, data_dir=data_dir)
  archives.write_image(source / 'dog/1.png', 200, (300, 300))
  message = (
    f'{place} was prepared from 1 other images of the same names than those of '
    f'{source}: dog/1.png; remove that folder'
  )
  with pytest.raises(UserError, match=message):
    prepare.prepare('folder/pets', source, data_dir=data_dir)
  shutil.rmtree(place)
  prepare.prepare('folder/pets', source, data_dir=data_dir)
  split = datasets.load('folder/pets', data_dir=data_dir)['test']
  assert split.source[0]['image'] == (source / 'dog/1.png').read_bytes()


@pytest.mark.parametrize('config', ['original', 'short256'])
def test_the_same_names_of_another_folder(source, tmp_path, data_dir, config):
  name, other = f'cub200/{config}', tmp_path / 'other'
  prepare.prepare(name, source, data_dir=data_dir)
  # The same images, at another time and place.
  archives.write_cub(other)
  for path in other.rglob('*.jpg'):
    os.utime(path, ns=(0, 0))
  prepare.prepare(name, other, data_dir=data_dir)
  path = next((other / 'images').rglob('*.jpg'))
  archives.write_image(path, 250)
  with pytest.raises(UserError, match=f'1 other images .* {other}: .*.jpg;'):
    prepare.prepare(name, other, data_dir=data_dir)


def test_an_image_that_broke_is_noticed(source, data_dir):
  prepare.prepare('cub200', source, data_dir=data_dir)
  next((source / 'images').rglob('*.jpg')).write_bytes(b'')
  with pytest.raises(UserError, match='from 1 other images of the same names'):
    prepare.prepare('cub200', source, data_dir=data_dir)


def test_content_has_a_digest(tmp_path, data_dir):
  def digests(name, value, mtime):
    source = pets(tmp_path / name, value, mtime)
    prepare.prepare(f'folder/{name}', source, data_dir=data_dir)
    splits = datasets.load(f'folder/{name}', data_dir=data_dir)
    return [split.digest for split in splits.values()]

  first = digests('first', 1, 10**9)
  assert first == digests('later', 1, 10**10) and len({*first}) == 2
  assert not {*first} & {*digests('other', 2, 10**9)}


def test_another_taxonomy_is_another_data_set(tmp_path, data_dir):
  pets = tmp_path / 'pets'
  for name in ('cat', 'dog'):
    archives.write_image(pets / name / '1.png')
  for kind in ('pet', 'beast'):
    (pets / 'taxonomy.csv').write_text(f'class,kind\ncat,{kind}\ndog,{kind}\n')
    if kind == 'pet':
      prepare.prepare('folder/pets', pets, data_dir=data_dir)
  with pytest.raises(UserError, match='was prepared from other images'):
    prepare.prepare('folder/pets', pets, data_dir=data_dir)


def test_disk_that_refuses_is_named(source, data_dir, monkeypatch):
  class Full:
    def __init__(self, *_):
      raise RuntimeError('No space left on device')

  monkeypatch.setattr(shards.array_record_module, 'ArrayRecordWriter', Full)
  message = f'cannot prepare data set cub200 in {data_dir}.*No space left'
  with pytest.raises(UserError, match=message):
    prepare.prepare('cub200', source, data_dir=data_dir)


# A process of its own, in which each image takes its time.
_SLOW = """
import sys, time
from hier_jax.data import prepare
from hier_jax.data.builders import cub200, shards
read = cub200.Cub200._read
cub200.Cub200._read = lambda *args: (time.sleep(.1), read(*args))[1]
cub200.Cub200.counts = {'train': (5, 2), 'test': (4, 2)}
shards._SHARD_SIZE, shards._THREADS = 2, 1
prepare.prepare('cub200', sys.argv[1], data_dir=sys.argv[2])
"""


def test_a_killed_process_leaves_nothing_that_misleads(
  source, data_dir, monkeypatch
):
  root = places.ROOT
  process = subprocess.Popen(
    [sys.executable, '-c', _SLOW, source, data_dir], cwd=root
  )
  try:
    deadline = time.monotonic() + 60
    while not list(data_dir.rglob('*.array_record')):
      assert process.poll() is None and time.monotonic() < deadline
      time.sleep(0.01)
  finally:
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
  place = builders.place('cub200', data_dir)
  assert not place.exists()
  with pytest.raises(UserError, match='not prepared'):
    datasets.load('cub200', data_dir=data_dir)
  # What it finished is taken over, what it was about to write is not.
  monkeypatch.setattr(shards, '_SHARD_SIZE', 2)
  read, reads = cub200.Cub200._read, []
  monkeypatch.setattr(
    cub200.Cub200, '_read', lambda *args: (reads.append(1), read(*args))[1]
  )
  prepare.prepare('cub200', source, data_dir=data_dir)
  assert 0 < len(reads) < 9
  for split in datasets.load('cub200', data_dir=data_dir).values():
    for i in range(len(split)):
      file = source / 'images' / split.source[i]['path']
      assert split.source[i]['image'] == file.read_bytes()
  assert not (data_dir / 'cub200/original/1.0.0.unfinished').exists()


def test_home_is_expanded(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  pets(tmp_path / 'pets')
  place = prepare.prepare('folder/pets', '~/pets', data_dir='~/prepared')
  assert place == tmp_path / 'prepared/folder/pets/1.1.0'
  monkeypatch.setenv('TFDS_DATA_DIR', '~/prepared')
  assert len(datasets.load('folder/pets')['test']) == 1


def test_remote_folders_are_refused_at_once(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(
    UserError, match=r'data_dir gs://b/d is remote; .*gcsfuse'
  ):
    datasets.load('emoji', data_dir='gs://b/d')
  with pytest.raises(UserError, match='folder of images s3://b/x is remote'):
    prepare.prepare('folder/pets', 's3://b/x', data_dir=tmp_path / 'out')
  assert not list(tmp_path.rglob('*:*'))
