"""Preparing is atomic and idempotent, whatever stops it."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

from hier_jax.data import builders, datasets, prepare
from hier_jax.data.builders import cub200, shards
from hier_jax.errors import UserError
from tests import archives


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
  root = pathlib.Path(__file__).parent.parent
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
