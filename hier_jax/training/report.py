"""What a run says: logs, TensorBoard, a progress bar, where its time went.

What a resumed run must repeat bitwise is in metrics.jsonl, what the wall clock
says in timing.jsonl.
"""

import contextlib
import importlib
import importlib.util
import json
import math
import os
import sys
import time

import tqdm

from hier_jax import json_files, paths
from hier_jax.errors import UserError, plain, shown
from hier_jax.paths import WriteError, writing

__all__ = [
  'Clock',
  'MetricsLog',
  'Progress',
  'TensorBoard',
  'WriteError',
  'check_tensorboard',
  'read',
  'writing',
]

# The keys of records that hold text.
TEXTS = frozenset({'distance', 'kind', 'name', 'ties'})
# What the time of a run goes into; the rest of it is not named.
PARTS = ('data', 'compile', 'step', 'evaluation', 'checkpoint')
# Those in which no images are trained on.
APART = ('compile', 'evaluation', 'checkpoint')
# Between two writes of a log in an object store.
_FLUSH_SECONDS = 30
# By which tensorboardX writes to an object store.
_BUCKET_WRITERS = {'gs': 'google.cloud.storage', 's3': 'boto3'}


def read(path):
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


def _record(path, number, line):
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


def check_values(record):
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

  def __init__(self, path, *, step=0, enabled=True, board=None):
    self._path = paths.as_path(path)
    self._enabled, self._board = enabled, board
    self.records = [r for r in read(path) if r['step'] <= step]
    self._flushed, self._whole = -math.inf, False
    self.flush()

  def write(self, record):
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

  def flush(self):
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

  def evaluations(self):
    """Evaluation records so far, by name, the latest of each."""
    return {r['name']: r for r in self.records if r['kind'] == 'eval'}


def check_tensorboard(workdir=''):
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

  def __init__(self, folder, *, step=0):
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

  def write(self, record):
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

  def _write(self, **fields):
    event = self._proto.event_pb2.Event(wall_time=time.time(), **fields)
    with writing(self._folder):
      self._writer.write_event(event)
    # In an object store it is written anew each time, as a `MetricsLog`.
    if not paths.is_remote(self._folder):
      self.flush()

  def flush(self):
    """Sees to it that the file holds all events."""
    with writing(self._folder):
      self._writer.flush()


class Clock:
  """Where the time of a run goes, period by period.

  Args:
    step: the run goes on from.
    batch_size: images a step.

  Attributes:
    step: the last one of the period before.
  """

  def __init__(self, step, batch_size):
    self.step, self._batch_size = step, batch_size
    self._start()

  def _start(self):
    self._began = time.monotonic()
    self._seconds = dict.fromkeys(PARTS, 0.0)

  @contextlib.contextmanager
  def spent(self, part):
    """Counts the block's time as spent on a part."""
    began = time.monotonic()
    try:
      yield
    finally:
      self._seconds[part] += time.monotonic() - began

  def waiting(self, batches):
    """Yields the batches; the time until each is there is that of 'data'."""
    batches = iter(batches)
    while True:
      with self.spent('data'):
        batch = next(batches, None)
      if batch is None:
        return
      yield batch

  def lap(self, step):
    """Ends a period.

    Args:
      step: the last one begun, which a device may be still at.

    Returns:
      A record: 'seconds' the period took, the 'share/<part>' of each part in
      them and, where it took steps, 'images_per_second' while it neither
      compiled, evaluated nor saved.
    """
    seconds, parts = time.monotonic() - self._began, self._seconds
    images = (step - self.step) * self._batch_size
    self.step = step
    self._start()
    record = {'kind': 'timing', 'step': step}
    if images:
      training = seconds - sum(parts[part] for part in APART)
      record['images_per_second'] = images / max(training, 1e-9)
    record['seconds'] = seconds
    for part, spent in parts.items():
      record[f'share/{part}'] = spent / max(seconds, 1e-9)
    return record


class Progress:
  """A bar on a terminal; elsewhere a line a period.

  Args:
    total: steps of the run.
    start: steps already taken.
    enabled: False says nothing.
    file: where to write.
  """

  def __init__(self, total, *, start=0, enabled=True, file=sys.stderr):
    self._total, self._file, self._enabled = total, file, enabled
    self._began, self._start = time.monotonic(), start
    self._bar = tqdm.tqdm(
      total=total,
      initial=start,
      unit='step',
      disable=not (enabled and file.isatty()),
      file=file,
      dynamic_ncols=True,
    )

  def say(self, text):
    """Prints a line without breaking the bar."""
    if not self._enabled:
      return
    if self._bar.disable:
      print(text, file=self._file, flush=True)
    else:
      self._bar.write(text, file=self._file)

  def update(self, step, metrics, timing, *, new_period):
    """Shows the losses of a step, its period's speed and the time left.

    Args:
      step: as far as the run is.
      metrics: of the step.
      timing: see `Clock.lap`.
      new_period: whether a line is due where there is no bar.
    """
    seconds = time.monotonic() - self._began
    rate = (step - self._start) / max(seconds, 1e-9)
    shown = {
      name: f'{metrics[name]:.4g}'
      for name in ('loss', 'metric', 'hier')
      if name in metrics
    }
    shown['img/s'] = f'{timing["images_per_second"]:.0f}'
    shown['data'] = f'{timing["share/data"]:.0%}'
    self._bar.set_postfix(shown, refresh=False)
    self._bar.update(step - self._bar.n)
    if self._bar.disable and new_period:
      left = math.ceil((self._total - step) / max(rate, 1e-9))
      figures = ' '.join(f'{name} {value}' for name, value in shown.items())
      eta = tqdm.tqdm.format_interval(left)
      self.say(f'step {step}/{self._total} {figures} left {eta}')

  def close(self):
    """Leaves the bar as it stands."""
    self._bar.close()
