"""The folder of a run: whose it is, who writes to it, what it has room for."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import socket

import jax

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.training import agreement, report
from hier_jax.training import config as config_lib

__all__ = ['check_room', 'claimed', 'what_is_left']

_LOCK = 'lock'
# What a writer that was killed leaves, see `paths.replacing`.
_UNFINISHED = re.compile(r'.+\.[0-9a-f]{32}\.tmp')


@contextlib.contextmanager
def claimed(workdir, config):
  """Makes the workdir this run's, and locks it while the block runs.

  Process 0 alone writes to it, and holds the lock, which ends with the process
  however that ends.

  Args:
    workdir: path of the folder, which is made.
    config: the whole config, written to `config.json`.

  Raises:
    UserError: the folder holds a run of another config or other things, or
      another process writes to it.
    WriteError: it cannot be written.
  """
  config = json.loads(config.to_json())
  _check(workdir, config)
  if agreement.index() != 0:
    yield
    return
  with report.writing(workdir):
    workdir.mkdir(parents=True, exist_ok=True)
  with _locked(workdir):
    # Another process may have been here since.
    _check(workdir, config)
    with report.writing(workdir):
      for path in workdir.iterdir():
        if _UNFINISHED.fullmatch(path.name):
          path.unlink()
    path = workdir / 'config.json'
    if not path.exists():
      with report.writing(path):
        paths.write_text(path, json.dumps(config, indent=2) + '\n')
    yield


def _check(workdir, ours):
  """Raises UserError where a workdir is another's."""
  path = workdir / 'config.json'
  if not path.exists():
    names = {p.name for p in workdir.iterdir()} if workdir.exists() else set()
    names = {n for n in names - {_LOCK} if not _UNFINISHED.fullmatch(n)}
    if names:
      raise UserError(
        f'workdir {workdir} is not empty and holds no config.json of a run:'
        ' choose another'
      )
    return
  differing = {
    key: values
    for key, values in config_lib.differences(
      json.loads(path.read_text()), ours
    ).items()
    if key not in config_lib.FREE_KEYS
  }
  if differing:
    key, (old, new) = next(iter(differing.items()))
    raise UserError(
      f'workdir {workdir} holds a run of another config: {key} is {old!r}'
      f' there and {new!r} here ({len(differing)} such keys); choose another'
      ' workdir or remove that one'
    )


@contextlib.contextmanager
def _locked(workdir):
  path = workdir / _LOCK
  with report.writing(path):
    file = path.open('a+')
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      file.seek(0)
      holder = file.read().strip() or 'another process'
      raise UserError(
        f'workdir {workdir} is in use by {holder}: wait for it, stop it, or'
        ' choose another workdir'
      ) from None
    except OSError:
      # Some network file systems have no locks.
      pass
    with report.writing(path):
      file.truncate(0)
      file.write(f'process {os.getpid()} on {socket.gethostname()}')
      file.flush()
    yield


def check_room(workdir, state, keep):
  """Raises UserError where the disk cannot hold the run's checkpoints.

  Args:
    workdir: of the run.
    state: what a checkpoint holds.
    keep: how many stay; one more is there while the next is written.
  """
  if agreement.index() != 0:
    return
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
  needed = max(keep + 1 - len(_steps(workdir)), 1) * size
  free = shutil.disk_usage(workdir).free
  if free < needed:
    raise UserError(
      f'workdir {workdir} has {free / 1e6:,.0f} MB free, but its checkpoints'
      f' (config.checkpoint.keep {keep}) need {needed / 1e6:,.0f} MB more: make'
      ' room, keep fewer, or choose another workdir'
    )


def what_is_left(workdir):
  """The latest checkpoint in words; other processes need not be asked."""
  steps = _steps(workdir)
  if not steps:
    return 'the run has no checkpoint yet'
  return f'the checkpoint of step {max(steps)} is intact'


def _steps(workdir):
  """Those of the checkpoints that are whole."""
  names = (path.name for path in pathlib.Path(workdir).glob('checkpoints/*'))
  return [int(name) for name in names if name.isdigit()]
