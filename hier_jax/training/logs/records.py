"""Records of a run: metrics.jsonl and timing.jsonl, one JSON object a line.

What a resumed run must repeat bitwise is in metrics.jsonl, what the wall clock
says in timing.jsonl.
"""

import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

from hier_jax import json_files, paths
from hier_jax.errors import UserError, plain, shown
from hier_jax.paths import writing
from hier_jax.training.logs.tensorboard import TensorBoard

__all__ = ['TEXTS', 'MetricsLog', 'check_values', 'read']

# Of a log, see `read`: text, numbers or None by key.
Record = dict[str, Any]

# The keys of records that hold text.
TEXTS = frozenset({'distance', 'kind', 'name', 'ties'})


# Between two writes of a log in an object store.
_FLUSH_SECONDS = 30


def read(path: str | os.PathLike[str]) -> list[Record]:
  """Records of a log, of a file that is not there none.

  Each is a dict with a 'step', text under the keys of `TEXTS`, and finite
  numbers or None under all others. A last line that a crash cut short is left
  out.

  Raises:
    UserError: another line is no such record.
  """
  path = paths.as_path(path)
  # Each record ends with a newline: what comes after the last one is cut short.
  lines = path.read_bytes().split(b'\n')[:-1] if path.exists() else []
  return [_record(path, i, line) for i, line in enumerate(lines, 1)]


def _record(path: pathlib.Path, number: int, line: bytes) -> Record:
  try:
    record = json_files.parse(line)
    if not isinstance(record, dict):
      raise ValueError('it is no object')
    check_values(record)
    if not (isinstance(record.get('step'), int) and record['step'] >= 0):
      raise ValueError('it has no step')
  except ValueError as error:
    raise UserError(
      f'{path}, line {number} is no record of a run ({plain(str(error))}):'
      ' remove that line'
    ) from error
  return record


def check_values(record: Mapping[str, object]) -> None:
  """Raises ValueError for values that a record never has, see `read`."""
  for key, value in record.items():
    if key in TEXTS:
      if not isinstance(value, str):
        raise ValueError(f'{key} is {shown(value)}, expected text')
    elif value is not None and not (
      isinstance(value, int | float) and abs(value) <= sys.float_info.max
    ):
      raise ValueError(f'{plain(key)} is {shown(value)}, expected a number')


class MetricsLog:
  """Records of a run, one JSON object a line, in the order of steps.

  An object store cannot append: there the file is written anew, at most twice a
  minute and whenever `flush` is called.

  Args:
    path: the file; records of steps after `step` are dropped from it, so that a
      run that went on past its last checkpoint before it was killed leaves no
      line twice.
    step: the step the run goes on from.
    enabled: False keeps the records in memory alone (processes other than 0).
    board: a `TensorBoard` that is shown the records too.
  """

  def __init__(
    self,
    path: str | os.PathLike[str],
    *,
    step: int = 0,
    enabled: bool = True,
    board: TensorBoard | None = None,
  ) -> None:
    self._path = paths.as_path(path)
    self._enabled, self._board = enabled, board
    self.records = [r for r in read(path) if r['step'] <= step]
    self._flushed, self._whole = -math.inf, False
    self.flush()

  def write(self, record: Record) -> None:
    """Appends a record, which has a 'kind' and a 'step'.

    Raises:
      WriteError: the file cannot be written.
    """
    self.records.append(record)
    self._whole = False
    if self._board is not None:
      self._board.write(record)
    if paths.is_remote(self._path):
      if time.monotonic() - self._flushed > _FLUSH_SECONDS:
        self.flush()
    elif self._enabled:
      with writing(self._path), self._path.open('a') as file:
        file.write(json.dumps(record) + '\n')
      self._whole = True

  def flush(self) -> None:
    """Sees to it that the file holds all records.

    Raises:
      WriteError: it cannot be written.
    """
    if self._whole or not self._enabled:
      return
    lines = ''.join(json.dumps(r) + '\n' for r in self.records)
    with writing(self._path):
      paths.write_text(self._path, lines)
    self._flushed, self._whole = time.monotonic(), True
    if self._board is not None:
      self._board.flush()

  def evaluations(self) -> dict[str, Record]:
    """Evaluation records so far, by name, the latest of each."""
    return {r['name']: r for r in self.records if r['kind'] == 'eval'}
