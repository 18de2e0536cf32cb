"""What a run shows of itself: where its time went, and a progress bar."""

import contextlib
import math
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TextIO, TypeVar

import tqdm

__all__ = ['APART', 'PARTS', 'Clock', 'Progress']

Batch = TypeVar('Batch')

# What the time of a run goes into; the rest of it is not named.
PARTS = ('data', 'compile', 'step', 'evaluation', 'checkpoint')


# Those in which no images are trained on.
APART = ('compile', 'evaluation', 'checkpoint')


class Clock:
  """Where the time of a run goes, period by period.

  Args:
    step: the run goes on from.
    batch_size: images a step.

  Attributes:
    step: the last one of the period before.
  """

  def __init__(self, step: int, batch_size: int) -> None:
    self.step, self._batch_size = step, batch_size
    self._start()

  def _start(self) -> None:
    self._began = time.monotonic()
    self._seconds = dict.fromkeys(PARTS, 0.0)

  @contextlib.contextmanager
  def spent(self, part: str) -> Iterator[None]:
    """Counts the block's time as spent on a part."""
    began = time.monotonic()
    try:
      yield
    finally:
      self._seconds[part] += time.monotonic() - began

  def waiting(
    self,
    batches: Iterable[Batch],
    busy: Callable[[], bool] = lambda: False,
  ) -> Iterator[Batch]:
    """Yields the batches, and counts the time until each is there.

    That is time of 'data', an upper bound of what the devices waited. While
    they are still at an earlier step it costs nothing, and is time of 'step'.

    Args:
      batches: an iterable.
      busy: whether the devices are at a step, asked when a batch is there.
    """
    batches = iter(batches)
    while True:
      began = time.monotonic()
      batch = next(batches, None)
      part = 'step' if busy() else 'data'
      self._seconds[part] += time.monotonic() - began
      if batch is None:
        return
      yield batch

  def lap(self, step: int) -> dict[str, Any]:
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
    file: where to write; stderr by default.
  """

  def __init__(
    self,
    total: int,
    *,
    start: int = 0,
    enabled: bool = True,
    file: TextIO | None = None,
  ) -> None:
    # Not as a default argument, which would be the stderr of the import.
    file = sys.stderr if file is None else file
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

  def say(self, text: str) -> None:
    """Prints a line without breaking the bar."""
    if not self._enabled:
      return
    if self._bar.disable:
      print(text, file=self._file, flush=True)
    else:
      self._bar.write(text, file=self._file)

  def update(
    self,
    step: int,
    metrics: Mapping[str, float],
    timing: Mapping[str, Any],
    *,
    new_period: bool,
  ) -> None:
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
      for name in ('loss', 'metric', 'second', 'hier')
      if name in metrics
    }
    shown['img/s'] = f'{timing["images_per_second"]:.0f}'
    shown['data'] = f'{timing["share/data"]:.0%}'
    self._bar.set_postfix(shown, refresh=False)
    self._bar.update(step - self._bar.n)
    if self._bar.disable and new_period:
      left = math.ceil((self._total - step) / max(rate, 1e-9))
      values = ' '.join(f'{name} {value}' for name, value in shown.items())
      eta = tqdm.tqdm.format_interval(left)
      self.say(f'step {step}/{self._total} {values} left {eta}')

  def close(self) -> None:
    """Leaves the bar as it stands."""
    self._bar.close()
