"""A run from config to table."""

import contextlib
import json
import math
import pathlib

import jax

from hier_jax import atomic
from hier_jax.data import datasets
from hier_jax.errors import UserError
from hier_jax.evaluation import baselines, table
from hier_jax.evaluation.retrieval import metrics as retrieval
from hier_jax.training import config as config_lib
from hier_jax.training import embedding, optim, parallel, report, validation
from hier_jax.training import state as state_lib
from hier_jax.training import step as step_lib
from hier_jax.training.checkpoint import Checkpoints
from hier_jax.training.guard import Guard
from hier_jax.training.inputs import Inputs

__all__ = ['train']


def train(config, workdir):
  """Trains as the config says, or goes on where the workdir's run stopped.

  Writes `config.json`, `metrics.jsonl`, `timing.jsonl`, `checkpoints/` and, at
  the end, `results.json` into the workdir. All random choices are functions of
  (config.seed, step), so that a resumed run ends as the uninterrupted one.

  Args:
    config: see `config.default_config`.
    workdir: folder of this run alone.

  Returns:
    name of a system -> its retrieval metrics on the test split, in the order
    of the table that is printed.

  Raises:
    UserError: for a wrong config, data set or workdir, for a loss that is not
      finite, and where the workdir can't be written to, as on a full disk.
  """
  workdir = pathlib.Path(workdir)
  try:
    return _train(config, workdir)
  except report.WriteError as error:
    raise UserError(
      f'{error}: {_what_is_left(workdir)}. Make room or mend it, then the same'
      ' command goes on from there'
    ) from error


def _train(config, workdir):
  validation.validate(config)
  splits = datasets.load(config.data.name, data_dir=config.data.data_dir)
  inputs = Inputs(config, splits['train'])
  model = embedding.create_model(config)
  optimizer = optim.optimizer(
    config, steps_per_epoch=inputs.sampler.steps_per_epoch
  )
  state = state_lib.create(
    config, model, optimizer, splits['train'].num_classes
  )
  _claim(workdir, config)
  with _checkpoints(workdir, config.checkpoint.keep) as checkpoints:
    if checkpoints.latest_step is not None:
      state = checkpoints.restore(state)
    elif config.pretrained is not None:
      state, loaded = state_lib.with_pretrained(state, config, model)
      if jax.process_index() == 0:
        print(f'pretrained weights: {loaded.summary()}')
    run = _Run(config, workdir, splits, inputs, model, optimizer, state)
    return run.finish(checkpoints)


@contextlib.contextmanager
def _checkpoints(workdir, keep):
  """The run's checkpoints, all on disk when the block has ended."""
  folder = workdir / 'checkpoints'
  with report.writing(folder):
    checkpoints = Checkpoints(folder, keep=keep)
  try:
    yield checkpoints
  finally:
    # What went wrong while one was written beside the steps shows only now.
    with report.writing(folder, Exception), checkpoints:
      pass


def _what_is_left(workdir):
  """The latest checkpoint in words; other processes need not be asked."""
  names = (path.name for path in workdir.glob('checkpoints/*'))
  steps = [int(name) for name in names if name.isdigit()]
  if not steps:
    return 'the run has no checkpoint yet'
  return f'the checkpoint of step {max(steps)} is intact'


def _claim(workdir, config):
  """Makes the workdir this run's, or raises where it is another's."""
  path = workdir / 'config.json'
  ours = json.loads(config.to_json())
  if path.exists():
    theirs = json.loads(path.read_text())
    differing = config_lib.differences(theirs, ours)
    differing = {
      k: v for k, v in differing.items() if k not in config_lib.FREE_KEYS
    }
    if differing:
      key, (old, new) = next(iter(differing.items()))
      raise UserError(
        f'workdir {workdir} holds a run of another config: {key} is {old!r}'
        f' there and {new!r} here ({len(differing)} such keys); choose another'
        ' workdir or remove that one'
      )
    return
  if workdir.exists() and any(workdir.iterdir()):
    raise UserError(
      f'workdir {workdir} is not empty and holds no config.json of a run:'
      ' choose another'
    )
  if jax.process_index() == 0:
    with report.writing(path):
      workdir.mkdir(parents=True, exist_ok=True)
      atomic.write_text(path, json.dumps(ours, indent=2) + '\n')


class _Run:
  """The moving parts of one run, between its start and its table."""

  def __init__(self, config, workdir, splits, inputs, model, optimizer, state):
    self.config, self.workdir, self.splits = config, workdir, splits
    self.inputs, self.state = inputs, state
    self.steps_per_epoch = inputs.sampler.steps_per_epoch
    self.step = int(state.step)
    self.total_steps = config.epochs * self.steps_per_epoch
    self.train_step = parallel.map_step(
      inputs.with_views(step_lib.make_train_step(config, model, optimizer))
    )
    self.embed = parallel.map_embed(step_lib.make_embed(model))
    first = jax.process_index() == 0
    # Without a checkpoint the run begins anew, first evaluations included.
    logged = self.step or -1
    board = None
    if config.tensorboard and first:
      board = report.TensorBoard(workdir / 'tensorboard', step=logged)
    self.log, self.timing = (
      report.MetricsLog(workdir / name, step=logged, enabled=first, board=board)
      for name in ('metrics.jsonl', 'timing.jsonl')
    )
    self.clock = report.Clock(self.step, config.data.batch_size)
    self.progress = report.Progress(
      self.total_steps, start=self.step, enabled=first
    )
    self.pending = None
    self.guard = Guard(
      config, workdir, inputs.sampler, skipped=int(state.skipped)
    )

  def finish(self, checkpoints):
    """Runs what is left of the run; returns and prints its table."""
    if self.step == 0:
      with self.clock.spent('evaluation'):
        self._evaluate_start()
    for batch in self.clock.waiting(self._batches()):
      with self.clock.spent('step'):
        self.state, metrics = self.train_step(self.state, batch)
      self.step += 1
      self.guard.watch(self.step, metrics)
      if self.step % self.config.log_every == 0 or self._is_last():
        self._log_pending()
        self.pending = self.step, metrics
      if self._ends_epoch(self.config.eval.every_epochs):
        self._log_pending()
        with self.clock.spent('evaluation'):
          self._evaluate(f'step {self.step}')
      if self._ends_epoch(self.config.checkpoint.every_epochs):
        self._log_pending()
        self._check_finite(self.step)
        self._save(checkpoints)
      if self._is_last():
        # The last evaluation and checkpoint came after the last metrics.
        self.timing.write(self.clock.lap(self.step))
    self.progress.close()
    return self._results()

  def _batches(self):
    return self.inputs.batches(self.step, self.total_steps - self.step)

  def _is_last(self):
    return self.step == self.total_steps

  def _ends_epoch(self, every):
    epoch, rest = divmod(self.step, self.steps_per_epoch)
    return self._is_last() or (rest == 0 and epoch % every == 0)

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
    writing = report.writing(self.workdir / 'checkpoints', Exception)
    with self.clock.spent('checkpoint'), writing:
      checkpoints.save(self.step, self.state)

  def _check_finite(self, step):
    for skipped in self.guard.check(step):
      self.progress.say(
        f'step {skipped} was not finite: its update is left out'
      )

  def _evaluate_start(self):
    """What there is to beat: the pixels, and the untrained network."""
    if self.config.eval.pixels:
      found = self._over_test(lambda image: image)
      pixels = [(baselines.pixel_embedding(x), labels) for x, labels in found]
      self._evaluate('raw pixels', pixels)
    self._evaluate('before training')

  def _over_test(self, embed):
    """`embed` over the queries and, where there is one, the gallery."""
    return [
      embedding.over(self.config, split, embed)
      for split in embedding.chosen(self.splits)
    ]

  def _evaluate(self, name, embedded=None):
    """Retrieval on the test split, logged under a name."""
    c = 0.0
    if embedded is None:
      c = self.config.model.c
      variables = self.state.eval_variables
      embedded = self._over_test(lambda image: self.embed(variables, image))
    (queries, labels), *others = embedded
    gallery, gallery_labels = others[0] if others else (None, None)
    metrics = retrieval.retrieval_metrics(
      queries,
      labels,
      gallery=gallery,
      gallery_labels=gallery_labels,
      c=c,
      recall_at=self.config.eval.recall_at,
    )
    record = {'kind': 'eval', 'step': self.step, 'name': name} | metrics
    self.log.write(record)
    first = self.config.eval.recall_at[0]
    self.progress.say(
      f'{name}: R@{first} {metrics[f"recall@{first}"]:.1%}'
      f' MAP@R {metrics["map@r"]:.1%}'
    )

  def _results(self):
    evaluations = self.log.evaluations()
    last = evaluations[f'step {self.total_steps}']
    names = [n for n in ('raw pixels', 'before training') if n in evaluations]
    rows = {name: evaluations[name] for name in names}
    rows['after training'] = last
    if jax.process_index() == 0:
      path = self.workdir / 'results.json'
      with report.writing(path):
        atomic.write_text(path, json.dumps(rows, indent=2) + '\n')
      print(table.format_table(rows, self.config.eval.recall_at))
    return rows
