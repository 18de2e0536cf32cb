"""What a run's checkpoint makes of its data set, for evaluation."""

import functools
import os
import pathlib
import sys
from collections.abc import Sequence

import jax
import numpy as np
from ml_collections import ConfigDict

from hier_jax import paths, poincare
from hier_jax.data import builders, transforms
from hier_jax.data.datasets import Split
from hier_jax.errors import UserError
from hier_jax.evaluation.files import Embedded, Task
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.models import embedder
from hier_jax.training.config import checks
from hier_jax.training.distributed import mapping
from hier_jax.training.run import embedding, inputs, plan
from hier_jax.training.run import workdir as workdirs
from hier_jax.training.run.checkpoint import Checkpoints
from hier_jax.training.step import optim
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib

__all__ = ['home', 'read_task']


def read_task(
  path: str | os.PathLike[str],
  *,
  query: str | None = None,
  gallery: str | None = None,
  data_dir: str | os.PathLike[str] | None = None,
) -> Task:
  """Embeds splits of a run's data set with one of its checkpoints.

  Args:
    path: the run's workdir, for its latest checkpoint, or the folder of one:
      `WORKDIR/checkpoints/STEP`.
    query: name of the split of the queries, see `inputs.ranked_splits`.
    gallery: name of the split of the gallery.
    data_dir: where prepared data sets lie; None for where the run had them.

  Returns:
    The task, labels being the numbers of classes, with their names, the data
    set's taxonomy where it has one and the K of the config.

  Raises:
    UserError: no such run, checkpoint or split, and what loading them raises.
  """
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
  if data_dir is None:
    _say_place(config.data)
  splits = _splits(config.data, config.eval)
  ranked = inputs.ranked_splits(splits, query, gallery)
  model = plan.create_model(config.model)
  state = _restored(config, model, splits['train'], workdir, step)
  embed = functools.partial(
    mapping.map_embed(step_lib.make_embed(model)), state.eval_variables
  )
  proxies = _proxies(config.model, state)
  view = transforms.EvalView(config.model.image_size, config.data.eval_resize)
  found = []
  for split in ranked:
    rows, numbers = embedding.embed_split(
      split,
      embed,
      view,
      batch_size=config.eval.batch_size,
      num_threads=config.data.num_threads,
    )
    found.append(Embedded(rows, numbers, config.model.c, proxies))
  return Task(
    found[0],
    home(path),
    found[1] if len(found) == 2 else None,
    _taxonomy(ranked),
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


def _splits(data: ConfigDict, settings: ConfigDict) -> dict[str, Split]:
  """The splits of a run's data set, which may have been moved since."""
  try:
    return inputs.load_splits(data, settings)
  except UserError as error:
    if builders.place(data.name, data.data_dir).exists():
      raise
    raise UserError(
      f'{error}. If the data was moved, name its place with --data_dir DIR'
    ) from error


def _restored(
  config: ConfigDict,
  model: embedder.Embedder,
  train: Split,
  workdir: pathlib.Path,
  step: int | None,
) -> state_lib.TrainState:
  """The state that a checkpoint holds."""
  # The state's shapes do not depend on the schedule.
  optimizer = optim.optimizer(
    config.optim,
    batch_size=config.data.batch_size,
    steps_per_epoch=1,
    epochs=config.epochs,
  )
  state = state_lib.create(config, model, optimizer, train.num_classes)
  with Checkpoints(workdir / 'checkpoints') as checkpoints:
    return checkpoints.restore(state, step)


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


def _taxonomy(splits: Sequence[Split]) -> Taxonomy | None:
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
