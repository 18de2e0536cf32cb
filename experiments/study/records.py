"""Runs as lines of JSON: what was asked, and what came out."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping

import numpy as np

from experiments.study import metrics
from hier_jax import json_files, paths
from hier_jax.errors import UserError

__all__ = ['Job', 'Lines', 'by_job', 'ints', 'read']

# A per-class value is kept in ten-thousandths.
SCALE = 10_000


@dataclasses.dataclass(frozen=True)
class Job:
  """A run that is asked for.

  Attributes:
    regime: its name.
    split: 'A', 'B' or 'icons'.
    arm: its name.
    point: a value of every hyperparameter, sorted by name.
    fold: 0 to 4, or 'test'.
    seed: of the run.
    why: 'search', 'ablation', 'test' or 'front'.
  """

  regime: str
  split: str
  arm: str
  point: tuple[tuple[str, float | int | str], ...]
  fold: int | str
  seed: int
  why: str = dataclasses.field(default='search', compare=False)

  @classmethod
  def of(
    cls, regime: str, split: str, arm: str, point: Mapping, fold, seed, why
  ) -> Job:
    """A job of a point as a dictionary."""
    return cls(
      regime, split, arm, tuple(sorted(point.items())), fold, seed, why
    )

  @classmethod
  def of_line(cls, line: Mapping) -> Job:
    """The job that a line answers."""
    names = 'regime', 'split', 'arm', 'point', 'fold', 'seed', 'why'
    return cls.of(*(line[name] for name in names))


class Lines:
  """The lines of a file; a run that is there is not run again.

  Attributes:
    path: the file.
    found: job -> line.
  """

  def __init__(self, path: pathlib.Path):
    """Reads what is there.

    Raises:
      UserError: the file cannot be read or written, or holds other things.
    """
    self.path = paths.check_output(path, suffixes=['.jsonl'])
    self.found = by_job(read([self.path]))

  def check_same(self, about: Mapping):
    """Checks that the runs that are there had the data of those to come.

    Features may differ: processors round them differently. The first lines of
    the study do not say what images they had.

    Args:
      about: what new lines say of the data, 'images' and 'weights'.

    Raises:
      UserError: they had other images or weights.
    """
    for name in 'images', 'weights':
      found = {v[name] for v in self.found.values() if name in v}
      if others := found - {about[name]}:
        raise UserError(
          f'{self.path} holds runs with the {name} {min(others)}, and these'
          f' have {about[name]}, which cannot be compared: give features of'
          f' those {name} as --features, or another folder as --results'
        )

  def add(self, job: Job, outcome: Mapping) -> dict:
    """Appends a line at once, whole or, after a crash, in a part that is cut.

    Raises:
      UserError: it is not what `read` takes.
      WriteError: the file cannot be written.
    """
    line = {**dataclasses.asdict(job), 'point': dict(job.point), **outcome}
    _check_metrics(line)
    text = json.dumps(line, separators=(',', ':')) + '\n'
    with paths.writing(self.path):
      self.path.parent.mkdir(parents=True, exist_ok=True)
      with self.path.open('ab+') as file:
        whole = _whole(self.path.read_bytes())
        file.truncate(whole)
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())
    self.found[job] = line
    return line


def read(files: Iterable[pathlib.Path]) -> list[dict]:
  """The lines of some files; one that a crash has cut off is left out.

  Raises:
    UserError: a file cannot be read, or a line is none of a run.
  """
  found = []
  for path in files:
    try:
      data = path.read_bytes()
    except FileNotFoundError:
      continue
    except OSError as error:
      raise UserError(
        f'{path} cannot be read ({error.strerror}); expected lines of runs:'
        ' move it away, or make it readable'
      ) from error
    for number, text in enumerate(data[: _whole(data)].splitlines(), 1):
      try:
        line = json_files.parse(text)
        Job.of_line(line)
        _check_metrics(line)
      except (ValueError, KeyError, TypeError, AttributeError) as error:
        why = error if isinstance(error, UserError) else repr(error)
        raise UserError(
          f'line {number} of {path} is none of a run ({why}); expected what'
          ' `python -m experiments.study search` writes: restore the file'
        ) from error
      found.append(line)
  return found


def by_job(lines: Iterable[dict]) -> dict[Job, dict]:
  """Job -> line.

  Raises:
    UserError: two lines of a job have other metrics.
  """
  found: dict[Job, dict] = {}
  for line in lines:
    job = Job.of_line(line)
    before = found.setdefault(job, line)
    if before['metrics'] != line['metrics']:
      raise UserError(
        f'{job.arm} of split {job.split}, regime {job.regime}, fold {job.fold},'
        f' seed {job.seed}, {dict(job.point)} has two lines of other metrics;'
        ' expected one: remove one of them'
      )
  return found


def _check_metrics(line: Mapping):
  """Checks that a line can be selected by: NaN is neither more nor less.

  Raises:
    UserError: a primary metric is no number.
  """
  rankings = line['metrics']
  if not rankings:
    raise UserError('it has no metrics')
  for ranking, values in rankings.items():
    for name in metrics.PRIMARY:
      value = values[name]
      if not isinstance(value, int | float) or not math.isfinite(value):
        raise UserError(f'{name} by {ranking} is {value!r}, no number')


def ints(values: np.ndarray) -> list[int | None]:
  """Values in [0, 1] as ten-thousandths; None for NaN."""
  return [None if np.isnan(v) else round(SCALE * v) for v in values.tolist()]


def floats(values: list[int | None]) -> np.ndarray:
  """What `ints` made, float64 with NaN for None."""
  return np.array([np.nan if v is None else v / SCALE for v in values])


def _whole(data: bytes) -> int:
  """Bytes up to the end of the last whole line."""
  return data.rfind(b'\n') + 1
