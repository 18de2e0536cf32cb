"""A run from config to table."""

import json
import math
import pathlib

import jax

from hier_jax import atomic
from hier_jax.data import datasets, pipeline, transforms
from hier_jax.data.sampler import Sampler
from hier_jax.errors import UserError
from hier_jax.evaluation import baselines, table
from hier_jax.evaluation.retrieval import metrics as retrieval
from hier_jax.training import config as config_lib
from hier_jax.training import embedding, optim, parallel, report
from hier_jax.training import state as state_lib
from hier_jax.training import step as step_lib
from hier_jax.training.checkpoint import Checkpoints

__all__ = ['train']

# Keys that say where or how fast, never what: a run may go on with others.
_FREE_KEYS = ('data.data_dir', 'data.num_threads')


def train(config, workdir):
  """Trains as the config says, or goes on where the workdir's run stopped.

  Writes `config.json`, `metrics.jsonl`, `checkpoints/` and, at the end,
  `results.json` into the workdir. All random choices are functions of
  (config.seed, step), so that a resumed run ends as the uninterrupted one.

  Args:
    config: see `config.default_config`.
    workdir: folder of this run alone.

  Returns:
    name of a system -> its retrieval metrics on the test split, in the order
    of the table that is printed.

  Raises:
    UserError: for a wrong config, data set or workdir, and for a loss that is
      not finite.
  """
  config_lib.validate(config)
  workdir = pathlib.Path(workdir)
  splits = datasets.load(config.data.name, data_dir=config.data.data_dir)
  sampler = Sampler(
    splits['train'].labels,
    batch_size=config.data.batch_size,
    images_per_class=config.data.images_per_class,
    seed=config.seed,
  )
  model = embedding.create_model(config)
  optimizer = optim.optimizer(config, steps_per_epoch=sampler.steps_per_epoch)
  state = state_lib.create(
    config, model, optimizer, splits['train'].num_classes
  )
  _claim(workdir, config)
  checkpoints = Checkpoints(
    workdir / 'checkpoints', keep=config.checkpoint.keep
  )
  with checkpoints:
    if checkpoints.latest_step is not None:
      state = checkpoints.restore(state)
    elif config.pretrained is not None:
      state, loaded = state_lib.with_pretrained(state, config, model)
      if jax.process_index() == 0:
        print(f'pretrained weights: {loaded.summary()}')
    run = _Run(config, workdir, splits, sampler, model, optimizer, state)
    return run.finish(checkpoints)


def _claim(workdir, config):
  """Makes the workdir this run's, or raises where it is another's."""
  path = workdir / 'config.json'
  ours = json.loads(config.to_json())
  if path.exists():
    theirs = json.loads(path.read_text())
    differing = config_lib.differences(theirs, ours)
    differing = {k: v for k, v in differing.items() if k not in _FREE_KEYS}
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
    workdir.mkdir(parents=True, exist_ok=True)
    atomic.write_text(path, json.dumps(ours, indent=2) + '\n')


class _Run:
  """The moving parts of one run, between its start and its table."""

  def __init__(self, config, workdir, splits, sampler, model, optimizer, state):
    self.config, self.workdir, self.splits = config, workdir, splits
    self.sampler, self.state = sampler, state
    self.step = int(state.step)
    self.total_steps = config.epochs * sampler.steps_per_epoch
    self.train_step = parallel.map_step(
      step_lib.make_train_step(config, model, optimizer)
    )
    self.embed = parallel.map_embed(step_lib.make_embed(model))
    first = jax.process_index() == 0
    self.log = report.MetricsLog(
      workdir / 'metrics.jsonl',
      # Without a checkpoint the run begins anew, first evaluations included.
      step=self.step or -1,
      enabled=first,
    )
    self.progress = report.Progress(
      self.total_steps,
      start=self.step,
      batch_size=config.data.batch_size,
      enabled=first,
    )
    self.pending = None

  def finish(self, checkpoints):
    """Runs what is left of the run; returns and prints its table."""
    if self.step == 0:
      self._evaluate_start()
    for batch in self._batches():
      self.state, metrics = self.train_step(self.state, batch)
      self.step += 1
      if self.step % self.config.log_every == 0 or self._is_last():
        self._log_pending()
        self.pending = self.step, metrics
      if self._ends_epoch(self.config.eval.every_epochs):
        self._log_pending()
        self._evaluate(f'step {self.step}')
      if self._ends_epoch(self.config.checkpoint.every_epochs):
        self._log_pending()
        self._check_finite(self.step, float(metrics['loss']))
        checkpoints.save(self.step, self.state)
    self.progress.close()
    return self._results()

  def _batches(self):
    batches = pipeline.train_batches(
      self.splits['train'],
      self.sampler,
      _train_view(self.config),
      seed=self.config.seed,
      start_step=self.step,
      num_steps=self.total_steps - self.step,
      process_index=jax.process_index(),
      process_count=jax.process_count(),
      num_threads=self.config.data.num_threads,
    )
    return ({'image': b['image'], 'label': b['label']} for b in batches)

  def _is_last(self):
    return self.step == self.total_steps

  def _ends_epoch(self, every):
    epoch, rest = divmod(self.step, self.sampler.steps_per_epoch)
    return self._is_last() or (rest == 0 and epoch % every == 0)

  def _log_pending(self):
    """Writes the metrics of the log step before, which are made by now."""
    if self.pending is None:
      return
    step, metrics = self.pending
    self.pending = None
    metrics = {k: float(v) for k, v in jax.device_get(metrics).items()}
    self._check_finite(step, metrics['loss'])
    epoch = step / self.sampler.steps_per_epoch
    self.log.write({'kind': 'train', 'step': step, 'epoch': epoch} | metrics)
    period = self.sampler.steps_per_epoch
    new_period = step % period < self.config.log_every or self._is_last()
    self.progress.update(step, metrics, new_period=new_period)

  def _check_finite(self, step, loss):
    if not math.isfinite(loss):
      raise UserError(
        f'the loss is {loss} at step {step}: lower config.optim.lr or set'
        f' config.optim.clip_norm; the checkpoints in {self.workdir} are from'
        ' before'
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
      variables = {
        'params': self.state.params['model'],
        'batch_stats': self.state.batch_stats,
      }
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
      atomic.write_text(
        self.workdir / 'results.json', json.dumps(rows, indent=2) + '\n'
      )
      print(table.format_table(rows, self.config.eval.recall_at))
    return rows


def _train_view(config):
  settings = config.data.train_view.to_dict()
  affine = transforms.Affine(**settings.pop('affine'))
  return transforms.TrainView(
    config.model.image_size,
    affine=None if affine == transforms.Affine() else affine,
    **settings,
  )
