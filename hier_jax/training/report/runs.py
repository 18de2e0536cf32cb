"""Runs as they lie on disk, grouped by config."""

import dataclasses
import itertools
import json
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from hier_jax import json_files, paths
from hier_jax.errors import UserError, plain, shown
from hier_jax.training.config import default as config_lib
from hier_jax.training.logs import names
from hier_jax.training.logs import records as records_lib

__all__ = ['Group', 'Run', 'groups', 'load']

_DAMAGE = ArithmeticError, AttributeError, LookupError, TypeError, ValueError
_WRITTEN = 'what `hier-jax train` writes'
# Kind of a record -> the keys that reports read, of which some are above 0.
_NEEDED = {
  'train': ('epoch', 'loss'),
  'eval': ('name',),
  names.VALIDATION: ('name',),
  'timing': ('seconds',),
}
_POSITIVE = ('epoch', 'seconds')
# A longer label says less than a folder's name.
_LABEL = 60


@dataclasses.dataclass(frozen=True)
class Run:
  """A run as its workdir records it.

  Attributes:
    folder: the workdir.
    seed: of its config.
    settings: key -> (default, value) where the config differs from its
      defaults, without the seed and keys that change no result.
    results: system -> its metrics; None if the run is unfinished.
    records: records of metrics.jsonl.
    timing: records of timing.jsonl.
  """

  folder: pathlib.Path
  seed: int
  settings: dict[str, tuple[Any, Any]]
  results: dict[str, dict[str, Any]] | None
  records: list[records_lib.Record]
  timing: list[records_lib.Record]

  def metrics_of(self, system: str) -> dict[str, float]:
    """Retrieval metrics of a system, without counts."""
    row = (self.results or {}).get(system, {})
    return {k: v for k, v in row.items() if isinstance(v, float)}


@dataclasses.dataclass(frozen=True)
class Group:
  """Finished runs of one config, by seed."""

  label: str
  runs: list[Run]


def load(dirs: Sequence[str | os.PathLike[str]]) -> list[Run]:
  """Reads runs.

  Args:
    dirs: workdirs, or folders of workdirs.

  Returns:
    The runs in the order of `dirs` and of the names in them, each once.

  Raises:
    UserError: folders without a run, files that cannot be read, no finished
      run, two finished runs of the same config and seed.
  """
  absent = [str(d) for d in dirs if not paths.as_path(d).exists()]
  if absent:
    verb = 'does' if len(absent) == 1 else 'do'
    raise UserError(
      f'{" and ".join(absent)} {verb} not exist;'
      ' expected the workdir of a run, as `hier-jax train --workdir` names it,'
      ' or a folder of workdirs'
    )
  found = {d: _workdirs(paths.as_path(d)) for d in dirs}
  empty = [str(d) for d, workdirs in found.items() if not workdirs]
  if empty:
    raise UserError(
      f'{len(empty)} of {len(found)} folders hold no run: {", ".join(empty)};'
      ' expected the workdir of a run, with its config.json, or a folder of'
      ' workdirs'
    )
  # Resolved: the same run named twice is one run.
  workdirs = {_resolved(w): w for ws in found.values() for w in ws}
  runs, wrong = [], []
  for workdir in workdirs.values():
    try:
      runs.append(_load(workdir))
    except UserError as error:
      wrong.append(str(error))
  if wrong:
    raise UserError(
      f'{len(wrong)} of {len(workdirs)} runs cannot be read: {"; ".join(wrong)}'
    )
  if all(run.results is None for run in runs):
    raise UserError(
      f'none of {len(runs)} runs is finished (has a results.json):'
      f' {_names(runs)}; the same `hier-jax train` command goes on with each'
    )
  _check_seeds(runs)
  return runs


def _workdirs(folder: pathlib.Path) -> list[pathlib.Path]:
  if (folder / 'config.json').is_file():
    return [folder]
  return sorted(path.parent for path in folder.glob('*/config.json'))


def _load(folder: pathlib.Path) -> Run:
  stored = json_files.read_object(folder / 'config.json', _WRITTEN)
  try:
    ours = config_lib.from_stored(stored)
    settings = config_lib.settings(ours)
  except _DAMAGE as error:
    raise UserError(
      f'{folder / "config.json"}: {plain(str(error))}; expected {_WRITTEN}'
    ) from error
  return Run(
    folder,
    ours.seed,
    settings,
    _results(folder / 'results.json'),
    _records(folder / 'metrics.jsonl'),
    _records(folder / 'timing.jsonl'),
  )


def _results(path: pathlib.Path) -> dict[str, dict[str, Any]] | None:
  """The table of a finished run, None where there is none."""
  try:
    found = json_files.read_object(path, _WRITTEN)
  except FileNotFoundError:
    return None
  if names.TRAINED not in found:
    raise UserError(
      f'{path} has no row {names.TRAINED!r}, which a finished run writes'
    )
  for system, row in found.items():
    try:
      if not isinstance(row, dict):
        raise ValueError('it is no object')
      records_lib.check_values(row)
      if not any(isinstance(value, float) for value in row.values()):
        raise ValueError('it holds no metric')
    except ValueError as error:
      raise UserError(
        f'{path}, row {shown(system)}: {plain(str(error))}; expected {_WRITTEN}'
      ) from error
  return found


def _records(path: pathlib.Path) -> list[records_lib.Record]:
  """The records of a log, with the keys that reports read."""
  records = records_lib.read(path)
  for number, record in enumerate(records, 1):
    needed = _NEEDED.get(record.get('kind', ''))
    lacking = [
      key
      for key in needed or ()
      if key not in record or (key in _POSITIVE and not (record[key] or 0) > 0)
    ]
    if needed is None or lacking:
      what = f'no {lacking[0]}' if lacking else 'an unknown kind'
      raise UserError(
        f'{path}, line {number} is a record with {what}; expected {_WRITTEN}'
      )
  return records


def _names(runs: Iterable[Run]) -> str:
  return ', '.join(str(run.folder) for run in runs)


def _finished(runs: Iterable[Run]) -> list[list[Run]]:
  """The finished runs by group, each in the order of seeds."""
  groups: dict[str, list[Run]] = {}
  for run in runs:
    if run.results is not None:
      groups.setdefault(json.dumps(run.settings), []).append(run)
  return [sorted(group, key=lambda run: run.seed) for group in groups.values()]


def _check_seeds(runs: Sequence[Run]) -> None:
  twice = [
    f'{_names([a, b])} (seed {a.seed})'
    for group in _finished(runs)
    for a, b in itertools.pairwise(group)
    if a.seed == b.seed
  ]
  if twice:
    raise UserError(
      f'{len(twice)} pairs of runs have the same config and seed, which are no'
      f' two trials: {"; ".join(twice)}; name one of each'
    )


def groups(runs: Sequence[Run]) -> list[Group]:
  """Groups finished runs by config, ignoring seed and keys that change nothing.

  A group is labeled by the settings in which groups differ, if that is short,
  else by the folder of its runs.
  """
  found = _finished(runs)
  labels = [_settings_label(group, found) for group in found]
  if not all(0 < len(label) <= _LABEL for label in labels):
    labels = [_folder_label(group).name for group in found]
  if len(set(labels)) < len(labels):
    labels = [str(_folder_label(group)) for group in found]
  if len(set(labels)) < len(labels):
    labels = [str(group[0].folder) for group in found]
  return [Group(*both) for both in zip(labels, found, strict=True)]


def _settings_label(
  group: Sequence[Run], every: Sequence[Sequence[Run]]
) -> str:
  """The settings in which a group differs from others, '' if in none."""
  settings = [runs[0].settings for runs in every]
  defaults = {k: old for of in settings for k, (old, _) in of.items()}

  def value(of: dict[str, tuple[Any, Any]], key: str) -> object:
    return of[key][1] if key in of else defaults[key]

  keys = [
    key
    for key in sorted(defaults)
    if any(value(of, key) != value(settings[0], key) for of in settings)
  ]
  short = [key.rpartition('.')[2] for key in keys]
  return ', '.join(
    f'{name if short.count(name) == 1 else key}={value(group[0].settings, key)}'
    for key, name in zip(keys, short, strict=True)
  )


def _folder_label(group: Sequence[Run]) -> pathlib.Path:
  """The folder that holds a group's runs, or its only run."""
  first, *others = (_resolved(run.folder) for run in group)
  return next(
    folder
    for folder in (first, *first.parents)
    if all(folder in (other, *other.parents) for other in others)
  )


def _resolved(folder: pathlib.Path) -> pathlib.Path:
  return folder if paths.is_remote(folder) else folder.resolve()
