"""A workdir belongs to one run and one process at a time."""

import collections
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.training import report, workdir
from tests import training_data


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def claim(folder):
  with workdir.claimed(folder, training_data.config()):
    pass


def test_a_new_one_is_made_and_holds_the_config(tmp_path):
  folder, config = tmp_path / 'deep' / 'run', training_data.config()
  with workdir.claimed(folder, config):
    assert names(folder) == ['config.json', 'lock']
  stored = json.loads((folder / 'config.json').read_text())
  assert stored == json.loads(config.to_json())


def test_two_writers_are_one_too_many(tmp_path):
  config = training_data.config()
  with workdir.claimed(tmp_path, config):
    found = rf'in use by process {os.getpid()} on \S+: wait for it'
    with pytest.raises(UserError, match=found):
      claim(tmp_path)
  claim(tmp_path)


_HOLD = """
import pathlib, sys, time
from hier_jax.training import workdir
from tests import training_data
with workdir.claimed(pathlib.Path(sys.argv[1]), training_data.config()):
  print('claimed', flush=True)
  time.sleep(600)
"""


def test_a_writer_that_was_killed_holds_it_no_longer(tmp_path):
  with subprocess.Popen(
    [sys.executable, '-c', _HOLD, str(tmp_path)],
    stdout=subprocess.PIPE,
    text=True,
  ) as child:
    assert child.stdout.readline() == 'claimed\n'
    with pytest.raises(UserError, match=f'in use by process {child.pid} on'):
      claim(tmp_path)
    child.kill()
  claim(tmp_path)


def test_what_a_killed_writer_left_is_swept(tmp_path, monkeypatch):
  # A process that is killed doesn't come to remove its temporary file.
  monkeypatch.setattr('pathlib.Path.unlink', lambda self, missing_ok: None)
  with (
    pytest.raises(RuntimeError),
    paths.replacing(tmp_path / 'config.json') as path,
  ):
    path.write_text('{')
    raise RuntimeError
  monkeypatch.undo()
  (tmp_path / 'lock').touch()
  assert len(names(tmp_path)) == 2
  with workdir.claimed(tmp_path, training_data.config()):
    assert names(tmp_path) == ['config.json', 'lock']


def test_a_read_only_place_is_named(tmp_path):
  place = tmp_path / 'file'
  place.write_text('no folder')
  with pytest.raises(report.WriteError, match='run cannot be written'):
    claim(place / 'run')


def test_a_disk_without_room_for_the_checkpoints_is_named(
  tmp_path, monkeypatch
):
  usage = collections.namedtuple('usage', 'free')
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(2_999_999))
  state = {'a': np.zeros(200_000, np.float32), 'b': np.zeros(50_000, np.int32)}
  # Two are kept, and a third is there while the next is written.
  with pytest.raises(UserError, match=r'has 3 MB free, .*keep 2. need 3 MB'):
    workdir.check_room(tmp_path, state, keep=2)
  (tmp_path / 'checkpoints' / '10').mkdir(parents=True)
  workdir.check_room(tmp_path, state, keep=2)
  for step in (20, 30, 40):
    (tmp_path / 'checkpoints' / str(step)).mkdir()
  monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage(999_999))
  with pytest.raises(UserError, match=r'has 1 MB free, .* need 1 MB more'):
    workdir.check_room(tmp_path, state, keep=2)
