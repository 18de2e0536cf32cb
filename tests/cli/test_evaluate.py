"""`hier-jax evaluate`: outputs and runs that are not trained."""

import errno
import os
import pathlib

import numpy as np
import pytest

from tests.support import training_data
from tests.support.command_line import run


def write_embeddings(path):
  np.savez(path, embeddings=np.eye(4), labels=[0, 0, 1, 1])
  return path


def test_what_evaluate_found_is_not_lost(tmp_path, capsys, monkeypatch):
  path = write_embeddings(tmp_path / 'a b é.npz')
  monkeypatch.setattr(pathlib.Path, 'replace', no_room)
  out = tmp_path / 'new' / 'out.json'
  assert run('evaluate', path, '--out', out) == 2
  told = capsys.readouterr()
  assert 'recall@1' in told.out
  assert f'{out} cannot be written (OSError: No space left' in told.err
  assert told.err.count('\n') == 1


def no_room(*_):
  raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize('folder', [None, 'empty', '5.orbax-checkpoint-tmp'])
def test_evaluate_of_an_untrained_run_writes_nothing(tmp_path, capsys, folder):
  """Nor the bundled data set where a stranger's config says."""
  workdir, data_dir = tmp_path / 'run', tmp_path / 'data'
  workdir.mkdir()
  if folder is not None:
    (workdir / 'checkpoints' / folder).mkdir(parents=True)
  config = training_data.config(**{'data.data_dir': str(data_dir)})
  (workdir / 'config.json').write_text(config.to_json())
  before = sorted(tmp_path.rglob('*'))
  assert run('evaluate', workdir) == 2
  assert 'holds no checkpoints: train it first' in capsys.readouterr().err
  assert sorted(tmp_path.rglob('*')) == before
