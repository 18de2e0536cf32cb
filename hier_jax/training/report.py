"""What a run says: metrics.jsonl, a progress bar, a line a period."""

import json
import math
import pathlib
import sys
import time

import tqdm

from hier_jax import atomic

__all__ = ['MetricsLog', 'Progress']


class MetricsLog:
  """Records of a run, one JSON object a line, in the order of steps.

  Args:
    path: the file; records of steps after `step` are dropped from it, so that a
      run that went on past its last checkpoint before it was killed leaves no
      line twice.
    step: the step the run goes on from.
    enabled: False keeps the records in memory alone (processes other than 0).
  """

  def __init__(self, path, *, step=0, enabled=True):
    self._path = pathlib.Path(path)
    self._enabled = enabled
    self.records = [r for r in self._read() if r['step'] <= step]
    if enabled:
      lines = ''.join(json.dumps(r) + '\n' for r in self.records)
      atomic.write_text(self._path, lines)

  def _read(self):
    if not self._path.exists():
      return
    for line in self._path.read_text().splitlines():
      try:
        yield json.loads(line)
      except json.JSONDecodeError:
        return  # cut short by a crash; all that follows is lost with it

  def write(self, record):
    """Appends a record, which has a 'step'."""
    self.records.append(record)
    if self._enabled:
      with self._path.open('a') as file:
        file.write(json.dumps(record) + '\n')

  def evaluations(self):
    """Evaluation records so far, by name, the latest of each."""
    return {r['name']: r for r in self.records if r['kind'] == 'eval'}


class Progress:
  """A bar on a terminal; elsewhere a line a period.

  Args:
    total: steps of the run.
    start: steps already taken.
    batch_size: images a step.
    enabled: False says nothing.
    file: where to write.
  """

  def __init__(
    self, total, *, start=0, batch_size, enabled=True, file=sys.stderr
  ):
    self._total, self._batch_size, self._file = total, batch_size, file
    self._enabled = enabled
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

  def update(self, step, metrics, *, new_period):
    """Shows the losses of a step, images a second and the time left."""
    seconds = time.monotonic() - self._began
    rate = (step - self._start) / max(seconds, 1e-9)
    shown = {
      name: f'{metrics[name]:.4g}'
      for name in ('loss', 'metric', 'hier')
      if name in metrics
    }
    shown['img/s'] = f'{rate * self._batch_size:.0f}'
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
