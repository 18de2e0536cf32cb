"""Embeddings of a run's data set from its checkpoint, for evaluation."""

import functools
import os
import pathlib
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from ml_collections import ConfigDict

from hier_jax import paths, poincare
from hier_jax.data import builders, transforms
from hier_jax.data.datasets import Split
from hier_jax.errors import UserError
from hier_jax.evaluation.embedding_files import Embedded
from hier_jax.evaluation.files import Task
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.models import embedder
from hier_jax.training.config import checks
from hier_jax.training.distributed import mapping
from hier_jax.training.logs import names, records
from hier_jax.training.run import embedding, inputs, plan
from hier_jax.training.run import workdir as workdirs
from hier_jax.training.run.checkpoint import Checkpoints
from hier_jax.training.step import optim
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib

__all__ = [
  'Trained',
  'evaluations',
  'home',
  'is_run',
  'open_run',
  'read_task',
  'taxonomy',
]


class Trained(NamedTuple):
  """A run's model, with the weights of one of its checkpoints.

  Attributes:
    workdir: of the run.
    step: of the checkpoint.
    config: of the run, for the devices of this process.
    embed: maps this process's images `[b, H, W, 3]` uint8 to rows `[b, d]`; b
      is a multiple of the number of local devices.
    variables: the model's parameters and running statistics.
    proxies: hierarchical proxies `[P, d]` as points of the ball, or None.
    metrics: retrieval metrics of this step, as the run logged them.
  """

  workdir: pathlib.Path
  step: int
  config: Any
  embed: Callable[[np.ndarray], Any]
  variables: Any
  proxies: np.ndarray | None
  metrics: dict[str, float]

  @property
  def view(self) -> transforms.EvalView:
    """The view of an image that the model is evaluated on."""
    size = self.config.model.image_size
    return transforms.EvalView(size, self.config.data.eval_resize)

  def splits(self) -> dict[str, Split]:
    """Name -> split of the run's data set, validation as the run made it.

    Raises:
      UserError: it is not there, or not the one that the run began with.
    """
    return _splits(self.workdir, self.config)

  def embed_split(self, split: Split) -> tuple[np.ndarray, np.ndarray]:
    """Rows of a split and their classes, see `embedding.embed_split`."""
    return embedding.embed_split(
      split,
      self.embed,
      self.view,
      batch_size=self.config.eval.batch_size,
      num_threads=self.config.data.num_threads,
    )


def is_run(path: str | os.PathLike[str]) -> bool:
  """Whether this is the workdir of a run, or one of its checkpoints."""
  return (_workdir_and_step(paths.as_path(path))[0] / 'config.json').exists()


def open_run(
  path: str | os.PathLike[str],
  *,
  data_dir: str | os.PathLike[str] | None = None,
  num_classes: int | None = None,
) -> Trained:
  """Reads a run's model; its data set need not be there.

  Args:
    path: the run's workdir, for its latest checkpoint, or the folder of one
      checkpoint, `WORKDIR/checkpoints/STEP`.
    data_dir: where prepared data sets lie; None for where the run had them.
    num_classes: number of training classes that the checkpoint must have; None
      accepts any.

  Raises:
    UserError: no such run or checkpoint, and as loading them.
  """
  config, workdir, step = _config(path, data_dir)
  model = plan.create_model(config.model)
  state, step = _restored(config, model, num_classes, workdir, step)
  return Trained(
    workdir,
    step,
    config,
    functools.partial(
      mapping.map_embed(step_lib.make_embed(model)), state.eval_variables
    ),
    state.eval_variables,
    _proxies(config.model, state),
    _metrics(workdir, step),
  )


def read_task(
  path: str | os.PathLike[str],
  *,
  query: str | None = None,
  gallery: str | None = None,
  data_dir: str | os.PathLike[str] | None = None,
) -> Task:
  """Embeds splits of a run's data set with one of its checkpoints.

  Args:
    path: see `open_run`.
    query: name of the split of the queries, see `inputs.ranked_splits`.
    gallery: name of the split of the gallery.
    data_dir: where prepared data sets lie; None for where the run had them.

  Returns:
    The task: labels are numbers of classes, with their names, the data set's
    taxonomy if it has one, and the K of the config.

  Raises:
    UserError: no such run, checkpoint or split, and what loading them raises.
  """
  config, workdir, _ = _config(path, data_dir)
  if data_dir is None:
    _say_place(config.data)
  splits = _splits(workdir, config)
  ranked = inputs.ranked_splits(splits, query, gallery)
  run = open_run(
    path, data_dir=data_dir, num_classes=splits['train'].num_classes
  )
  c = config.model.c
  found = [
    Embedded(*run.embed_split(split), c, run.proxies) for split in ranked
  ]
  return Task(
    found[0],
    home(path),
    found[1] if len(found) == 2 else None,
    taxonomy(ranked),
    config.eval.recall_at,
    _names(ranked),
  )


def home(path: str | os.PathLike[str]) -> pathlib.Path:
  """The `Task.home` of a run or of one of its checkpoints."""
  return _workdir_and_step(paths.as_path(path))[0] / 'embeddings'


def _workdir_and_step(path: pathlib.Path) -> tuple[pathlib.Path, int | None]:
  if path.parent.name == 'checkpoints' and path.name.isdecimal():
    return path.parent.parent, int(path.name)
  return path, None


def _config(
  path: str | os.PathLike[str], data_dir: str | os.PathLike[str] | None
) -> tuple[ConfigDict, pathlib.Path, int | None]:
  """A run's config for the devices of this process, its workdir, the step."""
  workdir, step = _workdir_and_step(paths.as_path(path))
  config = workdirs.read_config(workdir)
  if data_dir is not None:
    config.data.data_dir = str(data_dir)
  # The run's own rounds as the run did, but may be for other devices.
  if config.eval.batch_size % jax.device_count():
    config.eval.batch_size = None
  config = checks.validate(config, training=False)
  # Before a bundled data set is written where the config says.
  if not workdirs.steps(workdir):
    raise UserError(f'{workdir} holds no checkpoints: train it first')
  return config, workdir, step


def _say_place(data: ConfigDict) -> None:
  """Says where a run's config leads to, which a stranger may have written."""
  place, usual = (
    builders.place(data.name, where) for where in (data.data_dir, None)
  )
  if place != usual:
    print(
      f'data are read from {place}, as config.json says (--data_dir DIR reads'
      ' others)',
      file=sys.stderr,
    )


def _splits(workdir: pathlib.Path, config: ConfigDict) -> dict[str, Split]:
  """The splits of a run's data set, which may have been moved since."""
  data = config.data
  try:
    splits = inputs.load_splits(data, config.eval)
  except UserError as error:
    if builders.place(data.name, data.data_dir).exists():
      raise
    raise UserError(
      f'{error}. If the data was moved, name its place with --data_dir DIR'
    ) from error
  workdirs.check_splits(workdir, splits)
  return splits


def _restored(
  config: ConfigDict,
  model: embedder.Embedder,
  num_classes: int | None,
  workdir: pathlib.Path,
  step: int | None,
) -> tuple[state_lib.TrainState, int]:
  """The state that a checkpoint holds, and its step."""
  # The state's shapes do not depend on the schedule.
  optimizer = optim.optimizer(
    config.optim,
    batch_size=config.data.batch_size,
    steps_per_epoch=1,
    epochs=config.epochs,
  )
  with Checkpoints(workdir / 'checkpoints') as checkpoints:
    if num_classes is None:
      shapes = checkpoints.shapes(step)
      # One set of class proxies is `[C, d]`, several are `[C, centers, d]`.
      num_classes = shapes.get('params.loss.class_proxies', [1])[0]
    # Nothing is drawn, nor compiled: the checkpoint has all of it.
    state = jax.eval_shape(
      lambda: state_lib.create(config, model, optimizer, num_classes)
    )
    restored = checkpoints.restore(state, step)
    found = checkpoints.latest_step if step is None else step
    assert found is not None  # One was restored.
    return restored, found


def _metrics(workdir: pathlib.Path, step: int) -> dict[str, float]:
  """Test metrics that a run logged of a checkpoint; {} for none."""
  found = records.read(workdir / 'metrics.jsonl')
  row = (_of_checkpoint(found, 'eval', step) or [{}])[-1]
  return {key: x for key, x in row.items() if isinstance(x, float)}


def _of_checkpoint(
  found: Sequence[dict[str, Any]], kind: str, step: int
) -> list[dict[str, Any]]:
  """Records of a kind that are of this checkpoint; [] for step 0.

  The end of a run also logs metrics of a checkpoint before it, the best.
  """
  return [
    record
    for record in found
    if record.get('kind') == kind
    and record.get('checkpoint', record['step']) == step > 0
  ]


def evaluations(run: Trained) -> dict[str, dict[str, Any]]:
  """What a run's records say of this checkpoint, and of what it had to beat.

  Returns:
    Name -> record of `MetricsLog`, with its metrics and counts. The checkpoint
    is the last, of kind 'eval' on test classes or, where only those are there,
    'validation'; its baselines are before it. {} where it was not evaluated.
  """
  found = records.read(run.workdir / 'metrics.jsonl')
  own = [
    record
    for kind in (names.VALIDATION, 'eval')
    for record in _of_checkpoint(found, kind, run.step)
  ]
  if not own:
    return {}
  rows = {
    record['name']: record
    for record in found
    if record.get('kind') == 'eval' == own[-1]['kind'] and record['step'] == 0
  }
  return rows | {f'step {run.step}': own[-1]}


def _proxies(
  model: ConfigDict, state: state_lib.TrainState
) -> np.ndarray | None:
  """The hierarchical proxies `[P, d]` as points of the ball, or None."""
  tangent = state.eval_params['loss'].get('hierarchical_proxies')
  if tangent is None or not model.c:
    return None
  return np.asarray(
    poincare.to_ball(tangent, c=model.c, clip_radius=model.clip_radius)
  )


def _names(splits: Sequence[Split]) -> dict[int, str]:
  """Number -> name of the classes; their numbers where they have none."""
  names: dict[int, str] = {}
  for split in splits:
    numbers = split.numbers.tolist()
    named = split.names.get('label', map(str, numbers))
    names |= dict(zip(numbers, named, strict=True))
  return names


def taxonomy(splits: Sequence[Split]) -> Taxonomy | None:
  """The tree of the classes of all splits, or None."""
  if not splits[0].levels:
    return None
  rows: dict[int, list[str]] = {}
  for split in splits:
    numbers = split.numbers.tolist()
    rows |= dict(zip(numbers, split.ancestors(), strict=True))
  names = [_names(splits)[number] for number in rows]
  levels = [*splits[0].levels, 'class']
  return Taxonomy.from_levels(list(rows.values()), names, levels)
