"""A run's records as events for TensorBoard."""

import importlib
import importlib.util
import os
import time
from collections.abc import Mapping
from typing import Any

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.paths import writing

__all__ = ['TensorBoard', 'check_tensorboard']

# By which tensorboardX writes to an object store.
_BUCKET_WRITERS = {'gs': 'google.cloud.storage', 's3': 'boto3'}


def check_tensorboard(workdir: str | os.PathLike[str] = '') -> None:
  """Raises UserError where what writes TensorBoard's files is not installed.

  Args:
    workdir: where they lie; an object store takes another package.
  """
  if importlib.util.find_spec('tensorboardX') is None:
    raise UserError(
      'config.tensorboard is True, but tensorboardX is not installed: pip'
      " install 'hier_jax[tensorboard]', or set it to False"
    )
  package = _BUCKET_WRITERS.get(os.fspath(workdir).partition('://')[0])
  try:
    if package is not None:
      importlib.import_module(package)
  except ImportError as error:
    raise UserError(
      f'config.tensorboard is True, but tensorboardX writes to {workdir} by'
      f' {package}, which is not installed: install it, or set'
      ' config.tensorboard to False'
    ) from error


class TensorBoard:
  """Scalars of a run's records for TensorBoard.

  Events are written as they come and not by `SummaryWriter`, whose thread dies
  of a full disk and leaves the run waiting for it.

  Args:
    folder: where event files lie, one for each start of the run.
    step: the step the run goes on from; TensorBoard forgets what earlier files
      hold of later ones.
  """

  def __init__(self, folder: str | os.PathLike[str], *, step: int = 0) -> None:
    from tensorboardX import event_file_writer, proto

    self._folder, self._proto = paths.as_path(folder), proto
    with writing(self._folder):
      self._folder.mkdir(exist_ok=True)
      self._writer = event_file_writer.EventsWriter(
        # The library tells files by the second alone.
        str(self._folder / 'events'),
        f'.{time.time_ns()}',
      )
    started = proto.event_pb2.SessionLog(
      status=proto.event_pb2.SessionLog.START
    )
    self._write(step=step + 1, session_log=started)

  def write(self, record: Mapping[str, Any]) -> None:
    """Writes the numbers of a record at its step."""
    kind = record['kind']
    if kind == 'eval' and record['step'] == 0:
      kind = record['name']
    scalars = {k: v for k, v in record.items() if isinstance(v, float)}
    proto = self._proto.summary_pb2
    values = [
      proto.Summary.Value(
        tag=key if '/' in key else f'{kind}/{key}', simple_value=value
      )
      for key, value in scalars.items()
    ]
    self._write(step=record['step'], summary=proto.Summary(value=values))

  def _write(self, **fields: Any) -> None:
    event = self._proto.event_pb2.Event(wall_time=time.time(), **fields)
    with writing(self._folder):
      self._writer.write_event(event)
    # In an object store it is written anew each time, as a `MetricsLog`.
    if not paths.is_remote(self._folder):
      self.flush()

  def flush(self) -> None:
    """Sees to it that the file holds all events."""
    with writing(self._folder):
      self._writer.flush()
