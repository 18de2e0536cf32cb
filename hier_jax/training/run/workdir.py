"""The folder of a run: whose it is, who writes to it, what it has room for."""

import contextlib
import fcntl
import json
import os
import pathlib
import re
import shutil
import socket
import stat
import sys
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

import jax
from ml_collections import ConfigDict

from hier_jax import json_files, paths
from hier_jax.data.datasets import Split
from hier_jax.errors import UserError, listed, plain
from hier_jax.training.config import default as config_lib
from hier_jax.training.distributed import processes
from hier_jax.training.logs import names, records
from hier_jax.training.run import facts
from hier_jax.training.run.checkpoint import steps_in
from hier_jax.training.step import optim

__all__ = [
  'check',
  'check_room',
  'check_splits',
  'claimed',
  'read_config',
  'steps',
  'what_is_left',
]

_LOCK = 'lock'
# Fingerprints of the splits of the run's data set.
_DATA = 'data.json'
# What a writer that was killed leaves, see `paths.replacing`.
_UNFINISHED = re.compile(r'.+\.[0-9a-f]{32}\.tmp')


@contextlib.contextmanager
def claimed(
  workdir: pathlib.Path, config: ConfigDict, splits: Mapping[str, Split]
) -> Iterator[None]:
  """Makes the workdir this run's, and locks it while the block runs.

  Process 0 alone writes to it, and holds the lock, which ends with the process
  however that ends. An object store has no locks, and a line says so.

  Args:
    workdir: path of the folder, which is made.
    config: the whole config, resolved; written to `config.json`, also in the
      place of that of a run that may go on with it, see `check`.
    splits: name -> split of the run's data set; `data.json` gets their
      fingerprints, see `check_splits`.

  Raises:
    UserError: as `check` and `check_splits`, or another process writes to it.
    WriteError: it cannot be written.
  """
  check(workdir, config)
  if processes.index() != 0:
    yield
    return
  with paths.writing(workdir):
    workdir.mkdir(parents=True, exist_ok=True)
  with _locked(workdir):
    # Another process may have been here since.
    check(workdir, config)
    check_splits(workdir, splits)
    with paths.writing(workdir):
      for path in _children(workdir):
        if _UNFINISHED.fullmatch(path.name):
          path.unlink()
      _write_config(workdir, config)
      _write_splits(workdir, splits)
    yield


def check(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Checks that a run may begin or go on in a workdir; writes nothing.

  It may go on with the differences that `default.conflicts` lets be. Of a run
  that has not taken a step there is nothing to go on with: any other takes its
  place.

  Args:
    workdir: path of the folder, which may not exist.
    config: the whole config, resolved.

  Raises:
    UserError: it cannot be written to, or holds a run of another config or
      other things.
  """
  if processes.index() == 0:
    paths.check_output(workdir, folder=True)
  with paths.writing(workdir):
    children = _children(workdir)
  if not paths.is_remote(workdir):
    links = sorted(path.name for path in children if path.is_symlink())
    if links:
      raise UserError(
        f'workdir {workdir} holds links, {listed(links)}: a run writes to files'
        ' of its own folder alone; remove them, or link the whole workdir'
      )
  found = {path.name for path in children}
  found = {n for n in found - {_LOCK} if not _UNFINISHED.fullmatch(n)}
  if not found:
    return
  if 'config.json' not in found:
    raise UserError(
      f'workdir {workdir} is not empty and holds no config.json of a run:'
      ' choose another'
    )
  if not _has_begun(workdir):
    return
  logged = records.read(workdir / 'metrics.jsonl')
  validated = any(record.get('kind') == names.VALIDATION for record in logged)
  conflicts = config_lib.conflicts(
    read_config(workdir), config, validated=validated
  )
  if conflicts:
    key, (old, new) = next(iter(conflicts.items()))
    why = _why(key, config.optim.schedule)
    raise UserError(
      f'workdir {workdir} holds a run of another config: {key} is {old!r}'
      f' there and {new!r} here ({len(conflicts)} such keys){why};'
      ' choose another workdir or remove that one'
    )


def check_splits(workdir: pathlib.Path, splits: Mapping[str, Split]) -> None:
  """Checks that the data set of a run is the one that it began with.

  In one that was prepared anew, trained classes may be test classes. A run that
  has not taken a step, or is older than its record, may have any.

  Args:
    workdir: path of the folder, which may not exist.
    splits: name -> split of the run's data set, as it is now.

  Raises:
    UserError: a split differs.
  """
  path = workdir / _DATA
  if not path.exists() or not _has_begun(workdir):
    return
  theirs = json_files.read_object(path, 'the splits of a run')
  ours = facts.class_fingerprints(splits)
  if theirs == ours:
    return
  name = next(k for k in (ours | theirs) if ours.get(k) != theirs.get(k))
  old, new = (plain(str(found.get(name))) for found in (theirs, ours))
  raise UserError(
    f'workdir {workdir} holds a run of other data: {name} is {old} there and'
    f' {new} here; its classes may have moved between splits. Prepare the data'
    ' set from the same images as then, name the place of the old one'
    ' (--data_dir, for training --config.data.data_dir), or train anew in'
    ' another workdir'
  )


def _why(key: str, schedule: str) -> str:
  """Why a run cannot go on with another value of a key, where that is asked."""
  if key != 'epochs':
    return ''
  if schedule in optim.SPANNING:
    return (
      f'. The schedule {schedule!r} spreads over all epochs: in a longer run'
      ' the steps that were taken would have had other learning rates'
    )
  return '. A run can only become longer'


def _has_begun(workdir: pathlib.Path) -> bool:
  """Whether a run has taken a step that it has told or saved."""
  logged = records.read(workdir / 'metrics.jsonl')
  return bool(steps(workdir)) or any(record['step'] > 0 for record in logged)


def read_config(workdir: pathlib.Path) -> ConfigDict:
  """The config of a run, resolved; keys that it lacks are at their defaults.

  Raises:
    UserError: there is none, or it is not as a run writes it.
  """
  path = workdir / 'config.json'
  try:
    stored = json_files.read_object(path, 'the config of a run')
  except FileNotFoundError:
    raise UserError(
      f'{workdir} holds no config.json: expected the workdir of a run, or'
      ' WORKDIR/checkpoints/STEP'
    ) from None
  try:
    return config_lib.resolve(config_lib.from_stored(stored))
  except (AttributeError, TypeError, ValueError) as error:
    raise UserError(f'{path}: {error}') from error


def _write_config(workdir: pathlib.Path, config: ConfigDict) -> None:
  """Writes `config.json`, unless it says the same."""
  path, results = workdir / 'config.json', workdir / 'results.json'
  ours = config_lib.as_stored(config)
  if path.exists() and _has_begun(workdir):
    theirs = config_lib.as_stored(read_config(workdir))
    if theirs == ours:
      return
    # Of the shorter run; its evaluations stay in metrics.jsonl.
    if theirs['epochs'] != ours['epochs']:
      results.unlink(missing_ok=True)
  paths.write_text(path, json.dumps(ours, indent=2) + '\n')


def _write_splits(workdir: pathlib.Path, splits: Mapping[str, Split]) -> None:
  """Writes `data.json`, unless the run has gone on from it."""
  path = workdir / _DATA
  if path.exists() and _has_begun(workdir):
    return
  found = facts.class_fingerprints(splits)
  paths.write_text(path, json.dumps(found, indent=2) + '\n')


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
  if paths.is_remote(workdir):
    _say_unlocked(workdir)
    yield
    return
  path = workdir / _LOCK
  with paths.writing(path):
    file = _open_lock(path)
  with file:
    try:
      fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
      holder = plain(file.read(200).strip()) or 'another process'
      raise UserError(
        f'workdir {workdir} is in use by {holder}: wait for it, stop it, or'
        ' choose another workdir'
      ) from None
    except OSError:
      # Some network file systems have none.
      _say_unlocked(workdir)
    with paths.writing(path):
      file.truncate(0)
      file.write(f'process {os.getpid()} on {socket.gethostname()}')
      file.flush()
    yield


def _open_lock(path: pathlib.Path) -> TextIO:
  """Opens a regular file, made if need be, and nothing that a link leads to."""
  flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK
  file = os.fdopen(os.open(path, flags, 0o666), 'r+')
  if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
    file.close()
    raise OSError('it is no regular file')
  return file


def _say_unlocked(workdir: pathlib.Path) -> None:
  print(
    f'workdir {workdir} cannot be locked, as one on a local disk is: see that'
    ' no other process writes to it',
    file=sys.stderr,
  )


def check_room(workdir: pathlib.Path, state: Any, keep: int) -> None:
  """Raises UserError where the disk cannot hold the run's checkpoints.

  Args:
    workdir: of the run, which may not exist.
    state: what a checkpoint holds, or its shapes.
    keep: how many stay; one more is there while the next is written.
  """
  if processes.index() != 0 or paths.is_remote(workdir):
    return
  leaves = jax.tree.leaves(state)
  size = sum(leaf.size * leaf.dtype.itemsize for leaf in leaves)
  needed = max(keep + 1 - len(steps(workdir)), 1) * size
  disk = workdir.absolute()
  while not disk.exists():
    disk = disk.parent
  free = shutil.disk_usage(disk).free
  if free < needed:
    raise UserError(
      f'workdir {workdir} has {free / 1e6:,.0f} MB free, but its checkpoints'
      f' (config.checkpoint.keep {keep}) need {needed / 1e6:,.0f} MB more: make'
      ' room, keep fewer, or choose another workdir'
    )


def what_is_left(workdir: pathlib.Path) -> str:
  """The latest checkpoint in words; other processes need not be asked."""
  found = steps(workdir)
  if not found:
    return 'the run has no checkpoint yet'
  return f'the checkpoint of step {max(found)} is intact'


def steps(workdir: pathlib.Path) -> list[int]:
  """Those of the checkpoints that are whole."""
  return steps_in(workdir / 'checkpoints')


def _children(folder: pathlib.Path) -> list[pathlib.Path]:
  """What lies in a folder; an object store has no empty ones."""
  try:
    return list(folder.iterdir())
  except FileNotFoundError:
    return []
