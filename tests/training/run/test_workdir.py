"""A workdir belongs to one run and one process at a time."""

import collections
import dataclasses
import errno
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.training.config import default as config_lib
from hier_jax.training.run import workdir
from tests.support import training_data


def names(folder):
  return sorted(path.name for path in folder.iterdir())


def claim(folder):
  with workdir.claimed(folder, training_data.config(), {}):
    pass


def test_a_new_one_is_made_and_holds_the_config(tmp_path):
  folder = tmp_path / 'deep' / 'run'
  config = config_lib.resolve(training_data.config())
  with workdir.claimed(folder, config, {}):
    assert names(folder) == ['config.json', 'data.json', 'lock']
  stored = json.loads((folder / 'config.json').read_text())
  assert stored == json.loads(config.to_json())


def claim_with(folder, **settings):
  with workdir.claimed(
    folder, config_lib.resolve(training_data.config(**settings)), {}
  ):
    return json.loads((folder / 'config.json').read_text())


def log(folder, step):
  record = {'kind': 'train', 'step': step}
  (folder / 'metrics.jsonl').write_text(json.dumps(record) + '\n')


def test_a_run_without_a_step_blocks_nothing(tmp_path):
  claim_with(tmp_path)
  log(tmp_path, 0)
  assert claim_with(tmp_path, **{'optim.lr': 1.0})['optim']['lr'] == 1.0
  (tmp_path / 'config.json').write_text('{"damaged')
  assert claim_with(tmp_path, **{'optim.lr': 2.0})['optim']['lr'] == 2.0
  log(tmp_path, 1)
  found = r'optim.lr is 2.0 there and 1.0 here \(1 such keys\); choose another'
  with pytest.raises(UserError, match=found):
    claim_with(tmp_path, **{'optim.lr': 1.0})
  (tmp_path / 'config.json').write_text('{"damaged')
  with pytest.raises(UserError, match=r'config.json is no JSON'):
    claim_with(tmp_path, **{'optim.lr': 2.0})


def test_free_keys_are_stored_anew(tmp_path):
  claim_with(tmp_path, **{'data.data_dir': '/old'})
  log(tmp_path, 1)
  found = claim_with(tmp_path, **{'data.data_dir': '/new'})
  assert found['data']['data_dir'] == '/new'


def claim_for(folder, splits):
  config = config_lib.resolve(training_data.config())
  with workdir.claimed(folder, config, splits):
    pass


def test_a_run_goes_on_with_the_data_that_it_began_with(tmp_path):
  old, new = training_data.splits(), training_data.splits(classes=17)
  claim_for(tmp_path, new)
  # It has not taken a step, and any other takes its place.
  claim_for(tmp_path, old)
  log(tmp_path, 1)
  claim_for(tmp_path, old)
  found = 'split train is 48 records .* there and 51 records .* here;'
  with pytest.raises(UserError, match=found):
    claim_for(tmp_path, new)
  found = 'split val is None there and 48 records .* here;'
  with pytest.raises(UserError, match=found):
    workdir.check_splits(tmp_path, old | {'val': old['test']})
  with pytest.raises(UserError, match=r'split test is 48 records .* and None'):
    workdir.check_splits(tmp_path, {'train': old['train']})


def test_a_run_goes_on_where_its_data_got_a_taxonomy(tmp_path):
  splits = training_data.splits()
  bare = {
    name: dataclasses.replace(
      split, fields={}, names={'label': split.names['label']}, levels=()
    )
    for name, split in splits.items()
  }
  claim_for(tmp_path, bare)
  log(tmp_path, 1)
  claim_for(tmp_path, splits)


def test_a_run_without_a_record_of_its_data_gets_one(tmp_path):
  splits = training_data.splits()
  claim_for(tmp_path, splits)
  log(tmp_path, 1)
  record = tmp_path / 'data.json'
  written = record.read_text()
  record.unlink()
  workdir.check_splits(tmp_path, splits)
  claim_for(tmp_path, splits)
  assert record.read_text() == written
  record.write_text('[]')
  with pytest.raises(UserError, match=r'data.json holds a list'):
    claim_for(tmp_path, splits)


def test_results_of_a_shorter_run_are_not_those_of_a_longer(tmp_path):
  claim_with(tmp_path, epochs=4)
  log(tmp_path, 12)
  results = tmp_path / 'results.json'
  results.write_text('{}')
  claim_with(tmp_path, epochs=4, log_every=7)
  assert results.exists()
  assert claim_with(tmp_path, epochs=8)['epochs'] == 8
  assert not results.exists()
  with pytest.raises(UserError, match=r'epochs is 8 .* can only become longer'):
    claim_with(tmp_path, epochs=4)


def test_why_a_run_cannot_become_longer_is_said(tmp_path):
  claim_with(tmp_path, **{'optim.schedule': 'cosine'})
  log(tmp_path, 12)
  with pytest.raises(UserError, match=r"'cosine' spreads over all epochs: in"):
    claim_with(tmp_path, epochs=8, **{'optim.schedule': 'cosine'})


def test_two_writers_are_one_too_many(tmp_path):
  config = training_data.config()
  with workdir.claimed(tmp_path, config, {}):
    found = rf'in use by process {os.getpid()} on \S+: wait for it'
    with pytest.raises(UserError, match=found):
      claim(tmp_path)
  claim(tmp_path)


@pytest.mark.parametrize('name', ['lock', 'config.json', 'metrics.jsonl'])
def test_a_link_is_neither_followed_nor_replaced(tmp_path, name):
  target = tmp_path / 'precious'
  target.write_text('mine')
  folder = tmp_path / 'run'
  folder.mkdir()
  (folder / name).symlink_to(target)
  with pytest.raises(UserError, match=f'run holds links, {name}: a run writes'):
    claim(folder)
  assert target.read_text() == 'mine'
  assert (folder / name).is_symlink()


@pytest.mark.parametrize('make', ['link', 'pipe', 'device'])
def test_a_lock_is_a_file(tmp_path, make, monkeypatch):
  """Also where it becomes something else after the first look."""
  monkeypatch.setattr(workdir, 'check', lambda *_: None)
  lock, target = tmp_path / 'lock', tmp_path / 'precious'
  target.write_text('mine')
  if make == 'pipe':
    os.mkfifo(lock)
  else:
    lock.symlink_to(target if make == 'link' else '/dev/zero')
  with pytest.raises(UserError, match=r'lock cannot be written'):
    claim(tmp_path)
  assert target.read_text() == 'mine'


def test_a_lock_that_cannot_be_had_is_said(tmp_path, monkeypatch, capsys):
  def refuse(*_):
    raise OSError(errno.ENOLCK, 'No locks available')

  monkeypatch.setattr('fcntl.flock', refuse)
  claim(tmp_path)
  assert 'cannot be locked' in capsys.readouterr().err


_HOLD = """
import pathlib, sys, time
from hier_jax.training.run import workdir
from tests.support import training_data
with workdir.claimed(pathlib.Path(sys.argv[1]), training_data.config(), {}):
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
  with workdir.claimed(tmp_path, training_data.config(), {}):
    assert names(tmp_path) == ['config.json', 'data.json', 'lock']


def test_a_read_only_place_is_named(tmp_path):
  place = tmp_path / 'file'
  place.write_text('no folder')
  with pytest.raises(
    UserError, match=r'run lies below .*file, which is not a fo'
  ):
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
