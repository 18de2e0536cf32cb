"""A run from config to table."""

import contextlib
import json
import math
import sys
import time

import jax

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.evaluation import baselines, table
from hier_jax.evaluation.retrieval import metrics as retrieval
from hier_jax.training.distributed import agreement, mapping
from hier_jax.training.distributed.preemption import Preemption
from hier_jax.training.logs import (
  names,
  progress,
  records,
  selection,
  tensorboard,
)
from hier_jax.training.run import embedding, first_step
from hier_jax.training.run import plan as plans
from hier_jax.training.run import workdir as workdirs
from hier_jax.training.run.checkpoint import Checkpoints
from hier_jax.training.run.guard import Guard
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib

__all__ = ['train']


def train(config, workdir):
  """Trains as the config says, or goes on where the workdir's run stopped.

  What can be checked is checked before anything is compiled or written. Writes
  `config.json`, `metrics.jsonl`, `timing.jsonl`, `checkpoints/` and, at the
  end, `results.json` into the workdir. All random choices are functions of
  (config.seed, step), so that a resumed run ends as the uninterrupted one.

  Where there is a validation split (config.eval.hold_out, or the data set's own
  'val'), it chooses the best state, and the test split is evaluated at the end
  alone.

  Args:
    config: see `config.default_config`.
    workdir: folder of this run alone, local or in an object store.

  Returns:
    name of a system -> its retrieval metrics on the test split, in the order
    of the table that is printed. None where SIGTERM came before the end: then
    all processes of the run have stopped after the same step, or the same batch
    of an evaluation, and its state is saved.

  Raises:
    UserError: for a wrong config, data set or workdir, for a loss that is not
      finite, and where the workdir can't be written to, as on a full disk.
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


def _train(config, workdir):
  plan = plans.make(config, workdir)
  config = plan.config
  with (
    workdirs.claimed(workdir, config),
    _checkpoints(workdir, config.checkpoint.keep) as checkpoints,
    Preemption() as preemption,
  ):
    state = plan.create_state()
    if checkpoints.latest_step is not None:
      state = checkpoints.restore(state)
    elif config.pretrained is not None:
      state, loaded = state_lib.with_pretrained(
        state, config, plan.model, plan.weights
      )
      if agreement.index() == 0:
        print(f'pretrained weights: {loaded.summary()}')
    checkpoints.warm_up(state)
    return _Run(plan, workdir, state, preemption).finish(checkpoints)


@contextlib.contextmanager
def _checkpoints(workdir, keep):
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
  """The moving parts of one run, between its start and its table."""

  def __init__(self, plan, workdir, state, preemption):
    config, inputs = plan.config, plan.inputs
    self.config, self.workdir, self.splits = config, workdir, plan.splits
    self.inputs, self.state, self.preemption = inputs, state, preemption
    self.steps_per_epoch = inputs.sampler.steps_per_epoch
    # Step 0 needs no saving: a run without a checkpoint begins with it.
    self.step = self.saved = int(state.step)
    self.train_step = mapping.map_step(
      inputs.with_views(
        step_lib.make_train_step(config, plan.model, plan.optimizer)
      ),
      by=config.parallel,
    )
    self.embed = mapping.map_embed(
      step_lib.make_embed(plan.model), by=config.parallel
    )
    first = agreement.index() == 0
    # Without a checkpoint the run begins anew, first evaluations included.
    logged = self.step or -1
    board = None
    if config.tensorboard and first:
      board = tensorboard.TensorBoard(workdir / 'tensorboard', step=logged)
    self.log, self.timing = (
      records.MetricsLog(
        workdir / name, step=logged, enabled=first, board=board
      )
      for name in ('metrics.jsonl', 'timing.jsonl')
    )
    self.total_steps = plan.total_steps
    self._stop_early()
    self.clock = progress.Clock(self.step, config.data.batch_size)
    self.progress = progress.Progress(
      self.total_steps, start=self.step, enabled=first
    )
    self.pending, self.compiled = None, False
    self.guard = Guard(
      config, workdir, inputs.sampler, skipped=int(state.skipped)
    )

  def finish(self, checkpoints):
    """Runs what is left of the run; returns and prints its table.

    Returns None after SIGTERM.
    """
    try:
      self._take_steps(checkpoints)
      self.progress.close()
      return self._results(checkpoints)
    except _Stopped:
      self._save(checkpoints)
      self.timing.write(self.clock.lap(self.step))
      self.progress.close()
      self.progress.say(
        f'stopped by SIGTERM after step {self.step}, which is saved: the same'
        ' command goes on'
        if self.step
        else 'stopped by SIGTERM before step 1: the same command begins anew'
      )
      return None
    finally:
      self._flush()

  def _flush(self):
    for log in (self.log, self.timing):
      log.flush()

  def _take_steps(self, checkpoints):
    self._evaluate_due()
    for batch in self.clock.waiting(self._batches()):
      with self.clock.spent('step' if self.compiled else 'compile'):
        metrics = self._step(batch)
      self.step += 1
      self.guard.watch(self.step, metrics)
      if self.step % self.config.log_every == 0 or self._is_last():
        self._log_pending()
        self.pending = self.step, metrics
      better = self._evaluate_due()
      # A resumed run knows the best by the log, and must find it.
      if better or self._ends_epoch(self.config.checkpoint.every_epochs):
        self._save(checkpoints)
      if self._is_last():
        # The last evaluation and checkpoint came after the last metrics.
        self.timing.write(self.clock.lap(self.step))
        break
      self._stop_if_asked()

  def _step(self, batch):
    if not self.compiled:
      first_step.check(self.config, self.embed, self.state, batch)
      self.progress.say('compiling the training step ...')
    began = time.monotonic()
    self.state, metrics = self.train_step(self.state, batch)
    if not self.compiled:
      seconds = time.monotonic() - began
      self.progress.say(f'compiled the training step in {seconds:.1f} s')
      self.compiled = True
    return metrics

  def _stop_if_asked(self):
    if self.preemption.reached():
      raise _Stopped

  def _batches(self):
    return self.inputs.batches(self.step, self.total_steps - self.step)

  def _is_last(self):
    return self.step == self.total_steps

  def _ends_epoch(self, every):
    epoch, rest = divmod(self.step, self.steps_per_epoch)
    return self._is_last() or (rest == 0 and epoch % every == 0)

  def _best(self):
    return selection.best(self.log.records, self.config.eval.select)

  def _stop_early(self):
    """Makes this step the last where it is no use to go on."""
    settings = self.config.eval
    if selection.exhausted(
      self.log.records, settings.select, settings.patience
    ):
      self.total_steps = self.step

  def _log_pending(self):
    """Writes the metrics of the log step before, which are made by now."""
    if self.pending is None:
      return
    step, metrics = self.pending
    self.pending = None
    with self.clock.spent('step'):
      metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
    self._check_finite(step)
    epoch = step / self.steps_per_epoch
    # JSON knows neither NaN nor infinity.
    known = {k: v if math.isfinite(v) else None for k, v in metrics.items()}
    self.log.write({'kind': 'train', 'step': step, 'epoch': epoch} | known)
    period = self.steps_per_epoch
    new_period = step % period < self.config.log_every or self._is_last()
    if self.step > self.clock.step:
      self.timing.write(self.clock.lap(self.step))
    timing = self.timing.records[-1]
    self.progress.update(step, metrics, timing, new_period=new_period)

  def _save(self, checkpoints):
    """Saves the state, if that has not been done."""
    if self.saved == self.step:
      return
    self._log_pending()
    self._check_finite(self.step)
    # A run that goes on from it must find all that was logged before.
    self._flush()
    self.saved = self.step
    writing = paths.writing(self.workdir / 'checkpoints', Exception)
    with self.clock.spent('checkpoint'), writing:
      checkpoints.save(self.step, self.state, self._best().get('step'))

  def _check_finite(self, step):
    for skipped in self.guard.check(step):
      self.progress.say(
        f'step {skipped} was not finite: its update is left out'
      )

  def _evaluate_due(self):
    """Evaluates the state where its step asks for it and the log lacks it.

    Returns whether it then is the best on classes held out.
    """
    if self.step == 0:
      self._evaluate_start()
      return False
    if not self._ends_epoch(self.config.eval.every_epochs) or any(
      record['step'] == self.step and record['kind'] != 'train'
      for record in self.log.records
    ):
      return False
    self._log_pending()
    self._evaluate_now()
    self._stop_early()
    return self._best().get('step') == self.step

  def _evaluate_start(self):
    """What there is to beat: the pixels, and the untrained network."""
    with self.clock.spent('evaluation'):
      if self.config.eval.pixels:
        found = self._over(self._test(), lambda image: image)
        pixels = [(baselines.pixel_embedding(x), y) for x, y in found]
        self._record('eval', 'raw pixels', self._ranked(pixels, c=None))
      self._evaluate(self._test(), 'eval', 'before training')

  def _evaluate_now(self):
    """Evaluates the state, on classes held out where there are any."""
    if 'val' not in self.splits:
      splits, kind = self._test(), 'eval'
    else:
      splits, kind = [self.splits['val']], names.VALIDATION
    with self.clock.spent('evaluation'):
      self._evaluate(splits, kind, f'step {self.step}')

  def _test(self):
    """The queries and, where there is one, the gallery."""
    return embedding.chosen(self.splits)

  def _over(self, splits, embed):
    """Embeds splits; SIGTERM ends it before a batch."""

    def unless_asked(image):
      self._stop_if_asked()
      return embed(image)

    return [
      embedding.over(self.config, split, unless_asked) for split in splits
    ]

  def _evaluate(self, splits, kind, name, state=None, **others):
    """Retrieval on splits, logged under a name."""
    variables = (self.state if state is None else state).eval_variables
    found = self._over(splits, lambda image: self.embed(variables, image))
    return self._record(
      kind, name, self._ranked(found, c=self.config.model.c) | others
    )

  def _ranked(self, embedded, c):
    (queries, labels), *others = embedded
    gallery, gallery_labels = others[0] if others else (None, None)
    return retrieval.retrieval_metrics(
      queries,
      labels,
      gallery=gallery,
      gallery_labels=gallery_labels,
      c=c,
      recall_at=self.config.eval.recall_at,
    )

  def _record(self, kind, name, metrics):
    record = {'kind': kind, 'step': self.step, 'name': name} | metrics
    self.log.write(record)
    first = self.config.eval.recall_at[0]
    shown = name if kind == 'eval' else f'{name}, {kind}'
    self.progress.say(
      f'{shown}: R@{first} {metrics[f"recall@{first}"]:.1%}'
      f' MAP@R {metrics["map@r"]:.1%}'
    )
    return record

  def _results(self, checkpoints):
    if 'val' in self.splits:
      self._evaluate_end(checkpoints)
    evaluations = self.log.evaluations()
    rows = {
      name: evaluations[name]
      for name in ('raw pixels', 'before training')
      if name in evaluations
    }
    rows[names.TRAINED] = evaluations[f'step {self.total_steps}']
    if names.BEST in evaluations:
      rows[names.BEST] = evaluations[names.BEST]
    if agreement.index() == 0:
      path = self.workdir / 'results.json'
      with paths.writing(path):
        paths.write_text(path, json.dumps(rows, indent=2) + '\n')
      print(table.format_table(rows, self.config.eval.recall_at))
    return rows

  def _evaluate_end(self, checkpoints):
    """The test split, by the last state and by the best on validation."""
    done, best = self.log.evaluations(), self._best()['step']
    last = f'step {self.step}'
    if last not in done:
      self._evaluate(self._test(), 'eval', last)
    # A run that became longer has that of its shorter self.
    if done.get(names.BEST, {}).get('step') != self.step:
      state = self.state
      if best != self.step:
        state = checkpoints.restore(state, best)
      self._evaluate(
        self._test(), 'eval', names.BEST, state=state, checkpoint=best
      )
