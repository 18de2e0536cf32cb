"""Embeddings of a split of images, in a run and from what a run left."""

import functools
import sys

import jax
import numpy as np

from hier_jax import paths, poincare
from hier_jax.data import builders, pipeline, transforms
from hier_jax.errors import UserError
from hier_jax.evaluation.files import Embedded, Task
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.models import embedder
from hier_jax.training.config import checks
from hier_jax.training.distributed import mapping, processes
from hier_jax.training.run import workdir as workdirs
from hier_jax.training.run.checkpoint import Checkpoints
from hier_jax.training.run.inputs import load_splits
from hier_jax.training.step import optim
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib

__all__ = ['chosen', 'create_model', 'from_checkpoint', 'home', 'over']


def create_model(config):
  """The `embedder.Embedder` of a config, to be mapped over devices."""
  settings = config.model.to_dict()
  settings['dtype'] = np.dtype(settings['dtype'])
  return embedder.create(**settings, axis_name=mapping.AXIS)


def over(config, split, embed):
  """Rows `[n, d]` of `embed(images)` over a split, and `split.numbers` `[n]`.

  Args:
    config: the whole config.
    split: `datasets.Split`.
    embed: maps this process's images `[b, H, W, 3]` uint8 to rows `[b, d]`.
  """
  rows, labels = [], []
  for batch in pipeline.eval_batches(
    split,
    transforms.EvalView(config.model.image_size, config.data.eval_resize),
    batch_size=config.eval.batch_size,
    process_index=processes.index(),
    process_count=processes.count(),
    num_threads=config.data.num_threads,
  ):
    mask = mapping.gather_rows(batch['mask'])
    rows.append(mapping.gather_rows(embed(batch['image']))[mask])
    labels.append(mapping.gather_rows(batch['label'])[mask])
  return np.concatenate(rows), split.numbers[np.concatenate(labels)]


def chosen(splits, query=None, gallery=None):
  """The split of the queries and, where there is one, that of the gallery.

  Args:
    splits: name -> `datasets.Split`.
    query: name of the split; None for 'query' where there is one, else 'test'.
    gallery: likewise; None for 'gallery' beside 'query', else none.

  Raises:
    UserError: for a split that is not there.
  """
  if query is None:
    query = 'query' if 'query' in splits else 'test'
    if gallery is None and query == 'query':
      gallery = 'gallery'
  names = [name for name in (query, gallery) if name is not None]
  for name in names:
    if name not in splits:
      raise UserError(
        f'the data set has no split {name!r}; it has {", ".join(splits)}'
      )
  return [splits[name] for name in names]


def from_checkpoint(path, *, query=None, gallery=None, data_dir=None) -> Task:
  """Embeds splits of a run's data set with one of its checkpoints.

  Args:
    path: the run's workdir, for its latest checkpoint, or the folder of one:
      `WORKDIR/checkpoints/STEP`.
    query: name of the split of the queries, see `chosen`.
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
  _check_trained(workdir / 'checkpoints')
  if data_dir is None:
    _say_place(config)
  splits = _splits(config)
  ranked = chosen(splits, query, gallery)
  model = create_model(config)
  state = _restored(config, model, splits['train'], workdir, step)
  embed = functools.partial(
    mapping.map_embed(step_lib.make_embed(model)), state.eval_variables
  )
  proxies = _proxies(config, state)
  found = []
  for split in ranked:
    rows, numbers = over(config, split, embed)
    found.append(Embedded(rows, numbers, config.model.c, proxies))
  return Task(
    found[0],
    home(path),
    found[1] if len(found) == 2 else None,
    _taxonomy(ranked),
    config.eval.recall_at,
    _names(ranked),
  )


def home(path):
  """The `Task.home` of a run or of one of its checkpoints."""
  return _workdir_and_step(paths.as_path(path))[0] / 'embeddings'


def _workdir_and_step(path):
  if path.parent.name == 'checkpoints' and path.name.isdecimal():
    return path.parent.parent, int(path.name)
  return path, None


def _say_place(config):
  """Says where a run's config leads to, which a stranger may have written."""
  place, usual = (
    builders.place(config.data.name, where)
    for where in (config.data.data_dir, None)
  )
  if place != usual:
    print(
      f'data are read from {place}, as config.json says (--data_dir DIR reads'
      ' others)',
      file=sys.stderr,
    )


def _splits(config):
  """The splits of a run's data set, which may have been moved since."""
  try:
    return load_splits(config)
  except UserError as error:
    if builders.place(config.data.name, config.data.data_dir).exists():
      raise
    raise UserError(
      f'{error}. If the data was moved, name its place with --data_dir DIR'
    ) from error


def _check_trained(folder):
  if not (
    folder.is_dir() and any(x.name.isdecimal() for x in folder.iterdir())
  ):
    raise UserError(f'{folder.parent} holds no checkpoints: train it first')


def _restored(config, model, train, workdir, step):
  """The state that a checkpoint holds."""
  # The state's shapes do not depend on the schedule.
  optimizer = optim.optimizer(config, steps_per_epoch=1)
  state = state_lib.create(config, model, optimizer, train.num_classes)
  with Checkpoints(workdir / 'checkpoints') as checkpoints:
    return checkpoints.restore(state, step)


def _proxies(config, state):
  """The hierarchical proxies `[P, d]` as points of the ball, or None."""
  model = config.model
  tangent = state.eval_params['loss'].get('hierarchical_proxies')
  if tangent is None or not model.c:
    return None
  return np.asarray(
    poincare.to_ball(tangent, c=model.c, clip_radius=model.clip_radius)
  )


def _names(splits):
  """Number -> name of the classes; their numbers where they have none."""
  names: dict[int, str] = {}
  for split in splits:
    numbers = split.numbers.tolist()
    named = split.names.get('label', map(str, numbers))
    names |= dict(zip(numbers, named, strict=True))
  return names


def _taxonomy(splits):
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
