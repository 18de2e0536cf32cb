"""A run from config to table."""

import contextlib
import functools
import json
import os
import pathlib
import sys
import time
from collections.abc import Iterator

import jax
from ml_collections import ConfigDict

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.evaluation import table
from hier_jax.training.distributed import mapping, processes
from hier_jax.training.distributed.preemption import Preemption
from hier_jax.training.run import first_step
from hier_jax.training.run import plan as plans
from hier_jax.training.run import workdir as workdirs
from hier_jax.training.run.checkpoint import Checkpoints
from hier_jax.training.run.evaluator import Evaluator, Table
from hier_jax.training.run.guard import Guard
from hier_jax.training.run.recorder import Recorder
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib

__all__ = ['train']


def train(config: ConfigDict, workdir: str | os.PathLike[str]) -> Table | None:
  """Trains as the config says, or continues the run in the workdir.

  Everything that can be checked is checked before anything is compiled or
  written. The workdir gets `config.json`, `data.json`, `metrics.jsonl`,
  `timing.jsonl`, `checkpoints/` and, at the end, `results.json`. All random
  choices are functions of (config.seed, step), so a resumed run ends like an
  uninterrupted one. If there is a validation split (config.eval.hold_out, or
  the data set's own 'val'), it chooses the best state, and the test split is
  evaluated only at the end.

  Args:
    config: see `default.default_config`.
    workdir: folder of this run alone, local or in an object store.

  Returns:
    name of a system -> its retrieval metrics on the test split, in the order of
    the printed table. None if SIGTERM came before the end: then all processes
    of the run have stopped after the same step, or the same batch of an
    evaluation, and the state is saved.

  Raises:
    UserError: for a wrong config, data set or workdir, for a loss that is not
      finite, and if the workdir cannot be written, for instance on a full disk.
  """
  workdir = paths.as_path(workdir)
  try:
    return _train(config, workdir)
  except paths.WriteError as error:
    left = workdirs.what_is_left(workdir)
    raise UserError(
      f'{error}: {left}. Make room or mend it, then the same command goes on'
      ' from there'
    ) from error
  except KeyboardInterrupt:
    left = workdirs.what_is_left(workdir)
    print(f'interrupted: {left}; the same command goes on', file=sys.stderr)
    raise


def _train(config: ConfigDict, workdir: pathlib.Path) -> Table | None:
  plan = plans.make(config, workdir)
  config, repetition = plan.config, plan.inputs.sampler.repetition
  if repetition and processes.index() == 0:
    print(repetition, file=sys.stderr)
  with (
    workdirs.claimed(workdir, config, plan.splits),
    _checkpoints(workdir, config.checkpoint.keep) as checkpoints,
    Preemption() as preemption,
  ):
    state = _first_state(plan, checkpoints)
    checkpoints.warm_up(state)
    return _Run(plan, workdir, state, checkpoints, preemption).finish()


def _first_state(
  plan: plans.Plan, checkpoints: Checkpoints
) -> state_lib.TrainState:
  """The state to go on from: the latest checkpoint's, else that of step 0."""
  state = plan.create_state()
  if checkpoints.latest_step is not None:
    return plan.restored(checkpoints.restore(plan.stored_shapes))
  loaded = plan.weights or plan.read_pretrained()
  if loaded is None:
    return state
  if processes.index() == 0:
    print(f'pretrained weights: {loaded.summary()}')
  return state_lib.with_pretrained(state, loaded, plan.config.optim)


@contextlib.contextmanager
def _checkpoints(workdir: pathlib.Path, keep: int) -> Iterator[Checkpoints]:
  """The run's checkpoints, all on disk when the block has ended."""
  folder = workdir / 'checkpoints'
  with paths.writing(folder):
    checkpoints = Checkpoints(folder, keep=keep)
  try:
    yield checkpoints
  finally:
    # What went wrong while one was written beside the steps shows only now.
    with paths.writing(folder, Exception), checkpoints:
      pass


class _Stopped(BaseException):
  """SIGTERM has come to a process of the run; no error, as an interrupt."""


class _Run:
  """One run between its first state and its table."""

  def __init__(
    self,
    plan: plans.Plan,
    workdir: pathlib.Path,
    state: state_lib.TrainState,
    checkpoints: Checkpoints,
    preemption: Preemption,
  ) -> None:
    config = plan.config
    self.plan = plan
    self.config, self.workdir, self.inputs = config, workdir, plan.inputs
    self.state, self.checkpoints = state, checkpoints
    self.preemption = preemption
    # Step 0 needs no saving: a run without a checkpoint begins with it.
    self.step = self.saved = int(state.step)
    self.total_steps, self.compiled = plan.total_steps, False
    self._metrics: step_lib.Metrics = {}
    self.steps_per_epoch = plan.inputs.sampler.steps_per_epoch
    self.train_step = mapping.map_step(
      plan.inputs.with_views(plan.make_step()),
      by=config.parallel,
      specs=plan.specs,
    )
    self.embed = mapping.map_embed(
      step_lib.make_embed(plan.model), by=config.parallel
    )
    guard = Guard(
      workdir,
      plan.inputs.sampler,
      seed=config.seed,
      mode=config.nonfinite,
      skipped=int(state.skipped),
    )
    self.recorder = Recorder(
      workdir,
      guard,
      step=self.step,
      total_steps=self.total_steps,
      steps_per_epoch=self.steps_per_epoch,
      batch_size=config.data.batch_size,
      log_every=config.log_every,
      board=config.tensorboard,
      enabled=processes.index() == 0,
    )
    self.clock = self.recorder.clock
    self.evaluator = Evaluator(
      plan.splits,
      self.embed,
      self.recorder.log,
      say=self.recorder.say,
      before_batch=self._stop_if_asked,
      settings=config.eval,
      model=config.model,
      data=config.data,
    )

  def finish(self) -> Table | None:
    """Runs what is left of the run; returns and prints its table.

    Returns None after SIGTERM.
    """
    try:
      self._take_steps()
      self.recorder.close()
      return self._results()
    except _Stopped:
      self._save()
      self.recorder.write_timing()
      self.recorder.close()
      self.recorder.say(
        f'stopped by SIGTERM after step {self.step}, which is saved: the same'
        ' command goes on'
        if self.step
        else 'stopped by SIGTERM before step 1: the same command begins anew'
      )
      return None
    finally:
      self.recorder.flush()

  def _take_steps(self) -> None:
    # It may have been interrupted in its last evaluation.
    self._stop_early()
    self._evaluate_due()
    for batch in self.clock.waiting(self._batches(), self._is_busy):
      with self.clock.spent('step' if self.compiled else 'compile'):
        metrics = self._metrics = self._step(batch)
      self.step += 1
      self.recorder.record(self.step, metrics, is_last=self._is_last())
      is_best = self._evaluate_due()
      # A resumed run knows the best by the log, and must find it.
      if is_best or self._ends_epoch(self.config.checkpoint.every_epochs):
        self._save()
      if self._is_last():
        # The last evaluation and checkpoint came after the last metrics.
        self.recorder.write_timing()
        break
      self._stop_if_asked()

  def _is_busy(self) -> bool:
    """Whether the devices are still at the last step, which runs by itself."""
    # JAX's type of its arrays leaves the method out.
    return not all(
      metric.is_ready()  # type: ignore[attr-defined]
      for metric in self._metrics.values()
    )

  def _batches(self) -> Iterator[dict[str, jax.Array]]:
    return self.inputs.batches(self.step, self.total_steps - self.step)

  def _step(self, batch: dict[str, jax.Array]) -> step_lib.Metrics:
    if not self.compiled:
      first_step.check(
        self.embed,
        self.state,
        batch,
        eval_rows=self.config.eval.batch_size,
        c=self.config.model.c,
      )
      self.recorder.say('compiling the training step ...')
    began = time.monotonic()
    self.state, metrics = self.train_step(self.state, batch)
    if not self.compiled:
      seconds = time.monotonic() - began
      self.recorder.say(f'compiled the training step in {seconds:.1f} s')
      self.compiled = True
    return metrics

  def _is_last(self) -> bool:
    return self.step == self.total_steps

  def _ends_epoch(self, every: int) -> bool:
    epoch, rest = divmod(self.step, self.steps_per_epoch)
    return self._is_last() or (rest == 0 and epoch % every == 0)

  def _stop_if_asked(self) -> None:
    if self.preemption.reached():
      raise _Stopped

  def _stop_early(self) -> None:
    """Makes this step the last where it is no use to go on."""
    if self.evaluator.patience_ended:
      self.total_steps = self.step

  def _evaluate_due(self) -> bool:
    """Evaluates the state where its step asks for it and the log lacks it.

    Returns whether it then is the best on classes held out.
    """
    if self.step == 0:
      with self.clock.spent('evaluation'):
        self.evaluator.evaluate_start(self.state)
      return False
    due = self._ends_epoch(self.config.eval.every_epochs)
    if not due or self.evaluator.has_evaluated(self.step):
      return False
    self.recorder.write_pending(is_last=self._is_last())
    with self.clock.spent('evaluation'):
      self.evaluator.evaluate(self.state, self.step)
    self._stop_early()
    return self.evaluator.best_step == self.step

  def _save(self) -> None:
    """Saves the state, if that has not been done."""
    if self.saved == self.step:
      return
    self.recorder.write_pending(is_last=self._is_last())
    self.recorder.check_finite(self.step)
    # A run that goes on from it must find all that was logged before.
    self.recorder.flush()
    self.saved = self.step
    writing = paths.writing(self.workdir / 'checkpoints', Exception)
    with self.clock.spent('checkpoint'), writing:
      stored = self.plan.stored(self.state)
      self.checkpoints.save(self.step, stored, self.evaluator.best_step)

  def _results(self) -> Table:
    restore = functools.partial(
      self.checkpoints.restore, self.plan.stored_shapes
    )
    self.evaluator.evaluate_end(self.state, self.step, restore)
    rows = self.evaluator.table(self.total_steps)
    if processes.index() == 0:
      path = self.workdir / 'results.json'
      with paths.writing(path):
        paths.write_text(path, json.dumps(rows, indent=2) + '\n')
      print(table.format_table(rows, self.config.eval.recall_at))
    return rows
