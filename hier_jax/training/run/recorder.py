"""What a run writes and shows of its steps: metrics, timing, progress."""

import math
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from hier_jax.training.logs import progress, records, tensorboard
from hier_jax.training.run.guard import Guard

__all__ = ['Recorder']


class Recorder:
  """Writes a run's logs and shows its progress, without waiting for its steps.

  The metrics of a step are read when a later step is recorded: by then they are
  there, and the devices have work.

  Args:
    workdir: where `metrics.jsonl`, `timing.jsonl` and `tensorboard` lie.
    guard: `guard.Guard`, which sees every step.
    step: the step that the run goes on from.
    total_steps: length of the run.
    steps_per_epoch: steps in an epoch.
    batch_size: images in a batch.
    log_every: steps from one record to the next.
    board: whether TensorBoard is shown the records too.
    enabled: False writes and shows nothing (processes other than 0).

  Attributes:
    log: `records.MetricsLog` of metrics.jsonl.
    clock: `progress.Clock`, which is told what time is spent on.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    guard: Guard,
    *,
    step: int,
    total_steps: int,
    steps_per_epoch: int,
    batch_size: int,
    log_every: int,
    board: bool,
    enabled: bool,
  ) -> None:
    # Without a checkpoint the run begins anew, first evaluations included.
    logged = step or -1
    shown = None
    if board and enabled:
      shown = tensorboard.TensorBoard(workdir / 'tensorboard', step=logged)
    self.log, self._timing = (
      records.MetricsLog(
        workdir / name, step=logged, enabled=enabled, board=shown
      )
      for name in ('metrics.jsonl', 'timing.jsonl')
    )
    self.clock = progress.Clock(step, batch_size)
    self._progress = progress.Progress(total_steps, start=step, enabled=enabled)
    self._guard, self._step = guard, step
    self._pending: tuple[int, Mapping[str, Any]] | None = None
    self._log_every, self._steps_per_epoch = log_every, steps_per_epoch

  def say(self, text: str) -> None:
    """Prints a line."""
    self._progress.say(text)

  def record(
    self, step: int, metrics: Mapping[str, jax.Array], *, is_last: bool
  ) -> None:
    """Takes a step's metrics, and writes the metrics of the log step before.

    Args:
      step: the number of steps taken.
      metrics: name -> scalar, which a device may be still at.
      is_last: whether the run ends with this step.
    """
    self._step = step
    self._guard.watch(step, metrics)
    if step % self._log_every == 0 or is_last:
      self.write_pending(is_last=is_last)
      self._pending = step, metrics

  def write_pending(self, *, is_last: bool) -> None:
    """Writes the metrics that wait, which are made by now."""
    if self._pending is None:
      return
    (step, waiting), self._pending = self._pending, None
    with self.clock.spent('step'):
      metrics = {k: float(v) for k, v in jax.device_get(waiting).items()}
    self.check_finite(step)
    # JSON knows neither NaN nor infinity.
    known = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
    epoch = step / self._steps_per_epoch
    self.log.write({'kind': 'train', 'step': step, 'epoch': epoch} | known)
    if self._step > self.clock.step:
      self.write_timing()
    timing = self._timing.records[-1]
    new_period = step % self._steps_per_epoch < self._log_every or is_last
    self._progress.update(step, metrics, timing, new_period=new_period)

  def check_finite(self, step: int) -> None:
    """Says which steps were skipped, or raises; see `Guard.check`."""
    for skipped in self._guard.check(step):
      self.say(f'step {skipped} was not finite: its update is left out')

  def write_timing(self) -> None:
    """Writes where the time went since the last such record."""
    self._timing.write(self.clock.lap(self._step))

  def flush(self) -> None:
    """Sees to it that the files hold all records."""
    self.log.flush()
    self._timing.flush()

  def close(self) -> None:
    """Leaves the progress bar as it stands."""
    self._progress.close()
