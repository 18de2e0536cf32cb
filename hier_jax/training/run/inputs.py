"""What a run trains and is evaluated on: splits, and batches on devices."""

from collections.abc import Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from hier_jax.data import cache, datasets, pipeline, transforms
from hier_jax.data.datasets import Split
from hier_jax.data.sampler import Sampler
from hier_jax.errors import UserError
from hier_jax.training.distributed import mapping, processes
from hier_jax.training.step import device_views
from hier_jax.training.step.state import TrainState
from hier_jax.training.step.train_step import Metrics, Step

__all__ = [
  'Inputs',
  'batch_shapes',
  'load_splits',
  'named_split',
  'ranked_splits',
]


def load_splits(data: ConfigDict, settings: ConfigDict) -> dict[str, Split]:
  """Name -> `datasets.Split` of the config's data set.

  'val', for validation, is the data set's own. If config.eval.hold_out is set,
  'val' gets one in this many classes of 'train', and 'train' keeps the others.

  Args:
    data: config.data.
    settings: config.eval.

  Raises:
    UserError: as `datasets.load` and `datasets.hold_out`; two splits for
      validation, or none where config.eval.patience judges by it.
  """
  splits = datasets.load(
    data.name,
    data_dir=data.data_dir,
    max_megapixels=data.max_megapixels,
  )
  every, patience = settings.hold_out, settings.patience
  if every is None:
    if patience is not None and 'val' not in splits:
      raise UserError(
        f'config.eval.patience is {patience}, but nothing is held out to judge'
        ' by: set config.eval.hold_out, 5 for instance, or leave patience out'
      )
    return splits
  if 'val' in splits:
    raise UserError(
      f'config.eval.hold_out is {every}, but {data.name} has a split'
      " 'val' of its own, which is used for validation: leave hold_out None"
    )
  try:
    fit, val = datasets.hold_out(splits['train'], every)
  except UserError as error:
    raise UserError(f'config.eval.hold_out is {every}: {error}') from error
  return {**splits, 'train': fit, 'val': val}


def ranked_splits(
  splits: Mapping[str, Split],
  query: str | None = None,
  gallery: str | None = None,
) -> list[Split]:
  """The split of the queries and, where there is one, that of the gallery.

  Args:
    splits: name -> `datasets.Split`.
    query: name of the split; None for 'query' where there is one, else 'test'.
    gallery: name of the split; None for 'gallery' beside 'query', else none.

  Raises:
    UserError: for a split that is not there.
  """
  if query is None:
    query = 'query' if 'query' in splits else 'test'
  if gallery is None and query == 'query':
    gallery = 'gallery'
  names = [name for name in (query, gallery) if name is not None]
  return [named_split(splits, name) for name in names]


def named_split(splits: Mapping[str, Split], name: str) -> Split:
  """The split of a name.

  Raises:
    UserError: it is not there.
  """
  if name not in splits:
    raise UserError(
      f'the data set has no split {name!r}; it has {", ".join(splits)}'
    )
  return splits[name]


class Inputs:
  """The batches of a run, each a function of the seed and its step.

  Args:
    data: config.data.
    split: `datasets.Split` to train on.
    seed: config.seed.
    image_size: side of the views, pixels.

  Attributes:
    sampler: decides which images make a batch.

  Raises:
    UserError: for a sampler or a view that cannot be as it is set.
  """

  def __init__(
    self, data: ConfigDict, split: Split, *, seed: int, image_size: int
  ) -> None:
    self._data, self._split, self._seed = data, split, seed
    self._image_size, self._view = image_size, _view(data, image_size)
    self.sampler = Sampler(
      split.labels,
      batch_size=data.batch_size,
      images_per_class=data.images_per_class,
      seed=seed,
      kind=data.sampler,
      groups=_groups(data, split) if data.sampler == 'hierarchical' else None,
      num_groups=data.groups,
    )

  def batches(
    self, start_step: int, num_steps: int
  ) -> Iterator[dict[str, jax.Array]]:
    """Yields this process's rows of each step, placed on its devices."""
    data = self._data
    batches = pipeline.train_batches(
      self._split,
      self.sampler,
      self._view,
      seed=self._seed,
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

  def with_views(self, step: Step) -> Step:
    """A per-device step that first makes the views that the host left to it."""
    if not isinstance(self._view, transforms.DeviceView):
      return step

    def with_views(
      state: TrainState, batch: Mapping[str, jax.Array]
    ) -> tuple[TrainState, Metrics]:
      image = device_views.views(
        batch['image'],
        batch['extent'],
        batch['flip'],
        size=self._image_size,
      )
      return step(state, {'image': image, 'label': batch['label']})

    return with_views


def batch_shapes(
  batch_size: int, image_size: int
) -> dict[str, jax.ShapeDtypeStruct]:
  """Shapes and types of this process's part of a batch.

  Args:
    batch_size: images in a batch of all processes.
    image_size: side of the views, pixels.
  """
  rows = batch_size // processes.count()
  return {
    'image': jax.ShapeDtypeStruct((rows, image_size, image_size, 3), jnp.uint8),
    'label': jax.ShapeDtypeStruct((rows,), jnp.int32),
  }


def _view(
  data: ConfigDict, image_size: int
) -> transforms.TrainView | transforms.DeviceView:
  settings = data.train_view.to_dict()
  affine = transforms.Affine(**settings.pop('affine'))
  view = transforms.TrainView(
    image_size,
    affine=None if affine == transforms.Affine() else affine,
    **settings,
  )
  if not data.device_views:
    return view
  return transforms.DeviceView(view, data.short_side)


def _groups(data: ConfigDict, split: Split) -> np.ndarray:
  """Codes of the level whose values are the groups of a batch."""
  levels = list(split.levels)
  level = data.level or (levels[0] if levels else None)
  if level is None or level not in split.fields:
    known = ', '.join(levels) or 'none'
    raise UserError(
      f'config.data.level is {data.level!r}, but {split.name} has no such'
      f' level for the hierarchical sampler: its levels are {known}'
    )
  return split.fields[level]
