"""What a run trains on: from a config to splits, and to batches on devices."""

import jax
import jax.numpy as jnp

from hier_jax.data import cache, datasets, pipeline, transforms
from hier_jax.data.sampler import Sampler
from hier_jax.errors import UserError
from hier_jax.training.distributed import mapping, processes
from hier_jax.training.step import device_views

__all__ = ['Inputs', 'batch_shapes', 'load_splits']


def load_splits(config):
  """Name -> `datasets.Split` of the config's data set.

  'val', for validation, is the data set's own. Where config.eval.hold_out is
  set, it has one in so many of the classes of 'train', and 'train' the others.

  Raises:
    UserError: as `datasets.load` and `datasets.hold_out`; two splits for
      validation, or none where config.eval.patience judges by it.
  """
  splits = datasets.load(
    config.data.name,
    data_dir=config.data.data_dir,
    max_megapixels=config.data.max_megapixels,
  )
  every, patience = config.eval.hold_out, config.eval.patience
  if every is None:
    if patience is not None and 'val' not in splits:
      raise UserError(
        f'config.eval.patience is {patience}, but nothing is held out to judge'
        ' by: set config.eval.hold_out, 5 for instance, or leave patience out'
      )
    return splits
  if 'val' in splits:
    raise UserError(
      f'config.eval.hold_out is {every}, but {config.data.name} has a split'
      " 'val' of its own, which is used for validation: leave hold_out None"
    )
  try:
    fit, val = datasets.hold_out(splits['train'], every)
  except UserError as error:
    raise UserError(f'config.eval.hold_out is {every}: {error}') from error
  return {**splits, 'train': fit, 'val': val}


class Inputs:
  """The batches of a run, each a function of config.seed and its step.

  Args:
    config: the whole config.
    split: `datasets.Split` to train on.

  Attributes:
    sampler: decides which images make a batch.

  Raises:
    UserError: for a sampler or a view that cannot be as it is set.
  """

  def __init__(self, config, split):
    data = config.data
    self._config, self._split, self._view = config, split, _view(config)
    self.sampler = Sampler(
      split.labels,
      batch_size=data.batch_size,
      images_per_class=data.images_per_class,
      seed=config.seed,
      kind=data.sampler,
      groups=_groups(data, split) if data.sampler == 'hierarchical' else None,
      num_groups=data.groups,
    )

  def batches(self, start_step, num_steps):
    """Yields this process's rows, placed on its devices, of so many steps."""
    data = self._config.data
    batches = pipeline.train_batches(
      self._split,
      self.sampler,
      self._view,
      seed=self._config.seed,
      start_step=start_step,
      num_steps=num_steps,
      images=cache.open_images(
        self._split,
        cache=data.cache,
        short_side=data.short_side,
        num_threads=data.num_threads,
      ),
      process_index=processes.index(),
      process_count=processes.count(),
      num_threads=data.num_threads,
    )
    unused = {'index'}
    return mapping.prefetch(
      {k: v for k, v in batch.items() if k not in unused} for batch in batches
    )

  def with_views(self, step):
    """A per-device step that first makes the views that the host left to it."""
    if not isinstance(self._view, transforms.DeviceView):
      return step

    def with_views(state, batch):
      image = device_views.views(
        batch['image'],
        batch['extent'],
        batch['flip'],
        size=self._config.model.image_size,
      )
      return step(state, {'image': image, 'label': batch['label']})

    return with_views


def batch_shapes(config):
  """Shapes and types of this process's part of a batch."""
  rows = config.data.batch_size // processes.count()
  size = config.model.image_size
  return {
    'image': jax.ShapeDtypeStruct((rows, size, size, 3), jnp.uint8),
    'label': jax.ShapeDtypeStruct((rows,), jnp.int32),
  }


def _view(config):
  settings = config.data.train_view.to_dict()
  affine = transforms.Affine(**settings.pop('affine'))
  view = transforms.TrainView(
    config.model.image_size,
    affine=None if affine == transforms.Affine() else affine,
    **settings,
  )
  if not config.data.device_views:
    return view
  return transforms.DeviceView(view, config.data.short_side)


def _groups(data, split):
  """Codes of the level whose values are the groups of a batch."""
  levels = list(split.levels)
  level = data.level or (levels[0] if levels else None)
  if level not in split.fields:
    known = ', '.join(levels) or 'none'
    raise UserError(
      f'config.data.level is {data.level!r}, but {split.name} has no such'
      f' level for the hierarchical sampler: its levels are {known}'
    )
  return split.fields[level]
