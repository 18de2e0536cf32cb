"""The checks on a config, by itself and with its data.

Wrong values are found here, before anything is read, compiled or written.
"""

import functools
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from hier_jax import models
from hier_jax.data import transforms
from hier_jax.data.datasets import Split
from hier_jax.errors import UserError
from hier_jax.evaluation import baselines
from hier_jax.training.config import default as config_lib
from hier_jax.training.config import values
from hier_jax.training.logs import tensorboard
from hier_jax.training.step import objective, optim

__all__ = ['check_data', 'validate']


def _check_views(flat: Mapping[str, Any]) -> None:
  """That images can be cropped and resized as they are to be."""
  if flat['data.device_views'] and flat['data.short_side'] is None:
    raise UserError(
      'config.data.device_views is True, but config.data.short_side is None:'
      ' set the latter, 256 for instance, since devices take crops of a'
      ' bounded size'
    )
  for key, limit in (('scale', ' <= 1'), ('ratio', '')):
    value = flat[f'data.train_view.{key}']
    if value is None and key == 'scale':
      continue
    fits = len(value) == 2 and 0 < value[0] <= value[1]
    if not fits or (limit and value[1] > 1):
      raise UserError(
        f'config.data.train_view.{key} is {value}, must be two numbers, 0 < low'
        f' <= high{limit}'
      )
  try:
    transforms.EvalView(flat['model.image_size'], flat['data.eval_resize'])
  except UserError as error:
    raise UserError(f'config.data.eval_resize: {error}') from error
  size, short_side = flat['model.image_size'], flat['data.short_side']
  if short_side is not None and short_side < size:
    raise UserError(
      f'config.data.short_side is {short_side}, but config.model.image_size is'
      f' {size}: images would be shrunk, and enlarged again. Set the former to'
      f' {size} at least, or to None'
    )
  if flat['eval.pixels']:
    try:
      baselines.pixel_embedding(np.zeros((1, size, size, 3), np.uint8))
    except UserError as error:
      raise UserError(
        f'config.eval.pixels is True, but config.model.image_size is {size}:'
        f' {error}; set the former to False'
      ) from error


def _check_batch(flat: Mapping[str, Any]) -> None:
  batch, per_class = flat['data.batch_size'], flat['data.images_per_class']
  if per_class and batch % per_class:
    raise UserError(
      f'config.data.batch_size {batch} is not a multiple of'
      f' config.data.images_per_class {per_class}'
    )
  for key in ('data.batch_size', 'eval.batch_size'):
    if flat[key] % jax.device_count():
      raise UserError(
        f'config.{key} {flat[key]} does not divide among'
        f' {jax.device_count()} devices: choose a multiple'
      )
  micro, local = flat['data.micro_batch'], batch // jax.device_count()
  if micro is not None and local % micro:
    raise UserError(
      f'config.data.micro_batch {micro} does not divide the {local} rows of a'
      f' device (config.data.batch_size {batch} on {jax.device_count()}'
      ' devices)'
    )
  if flat['loss.hier_weight'] > 0:
    smaller = min(batch, flat['loss.num_proxies'])
    if flat['loss.hier.k'] > smaller:
      raise UserError(
        f'config.loss.hier.k {flat["loss.hier.k"]} neighbors are more than'
        f' the batch or the proxies hold ({smaller}): lower k'
      )


def _check_sampler(flat: Mapping[str, Any]) -> None:
  """That keys of one sampler do not wait for another."""
  kind, alone = flat['data.sampler'], 'hierarchical'
  given = {'data.level': None, 'data.groups': 1}
  for key, unset in given.items():
    if kind != alone and flat[key] != unset:
      raise UserError(
        f'config.{key} is {flat[key]!r}, but config.data.sampler is {kind!r},'
        f' which has no use for it: set the latter to {alone!r}, or leave'
        f' {key} out'
      )


def _check_length(flat: Mapping[str, Any]) -> None:
  """That the backbone trains at all in a run of that length."""
  epochs, rest = flat['epochs'], flat['optim.warmup_epochs']
  if rest >= epochs:
    raise UserError(
      f'config.optim.warmup_epochs is {rest}, but config.epochs is {epochs}:'
      ' the backbone, which rests during warm-up, would never train. Lower the'
      ' former, to 0 for instance, or raise the latter'
    )


def _check_evaluation(flat: Mapping[str, Any]) -> None:
  """That there is something to judge by where it is to be judged."""
  recall_at = flat['eval.recall_at']
  if not recall_at or min(recall_at) < 1:
    raise UserError(
      f'config.eval.recall_at is {recall_at}, must be ranks of at least 1'
    )
  ranks = (f'recall@{k}' for k in recall_at)
  values.check_choice(flat, 'eval.select', ('map@r', *ranks))


def _check_loss(
  flat: Mapping[str, Any], settings: ConfigDict, model: ConfigDict
) -> None:
  """That the loss can be computed as config.loss and config.model say."""
  size = flat['loss.memory.size']
  names = _metrics(settings)
  batch, views = flat['data.batch_size'], flat['data.images_per_class']
  if size and not any(map(objective.takes_memory, names.values())):
    raise UserError(
      f'config.loss.memory.size is {size}, but {" + ".join(names.values())} has'
      ' no use for a memory: set it to 0'
    )
  if size and size < batch:
    raise UserError(
      f'config.loss.memory.size {size} is less than config.data.batch_size'
      f' {batch}: a memory holds a whole batch at least'
    )
  for key, name in names.items():
    # A memory has other images of the class, and so may a shuffled batch.
    alone = views == 1 and not (size and objective.takes_memory(name))
    if name in objective.SECOND and (alone or (name == 'hyp' and views < 2)):
      raise UserError(
        f'config.loss.{key} {name} pairs the images of a class: {views} images'
        ' per class (config.data.images_per_class) must be at least 2'
      )
  try:
    objective.trace(settings, model, batch_size=batch, images_per_class=views)
  except (TypeError, ValueError) as error:
    which = ' or config.loss.'.join(names.values())
    raise UserError(f'config.loss.{which}: {error}') from error


def _metrics(settings: ConfigDict) -> dict[str, str]:
  """Key of config.loss -> the metric loss that it names.

  Args:
    settings: config.loss.

  Raises:
    UserError: for a second loss that is the first, and a weight of none.
  """
  first, second = settings.metric, settings.second
  unset = config_lib.default_config().loss.second_weight
  if second is None and settings.second_weight != unset:
    raise UserError(
      f'config.loss.second_weight is {settings.second_weight}, but'
      ' config.loss.second is None: name the second loss, or leave its weight'
      ' out'
    )
  if second == first:
    raise UserError(
      f'config.loss.second is {second!r}, as config.loss.metric is: set'
      ' it to None or another loss; config.loss.metric_weight weighs this one'
    )
  if not objective.has_second(settings):
    return {'metric': first}
  return {'metric': first, 'second': second}


def _check_shards(flat: Mapping[str, Any]) -> None:
  """That there are class proxies to spread, and a map that can."""
  if not flat['loss.shard_classes']:
    return
  name = flat['loss.metric']
  if not objective.takes_shares(name):
    able = ', '.join(filter(objective.takes_shares, objective.LOSSES))
    raise UserError(
      f'config.loss.shard_classes is True, but {name} has no class proxies to'
      f' spread: set it to False, or config.loss.metric to one of: {able}'
    )
  if flat['parallel'] != 'shard_map':
    raise UserError(
      'config.loss.shard_classes is True, but config.parallel is'
      f' {flat["parallel"]!r}, whose devices all have the same state: set the'
      " latter to 'shard_map'"
    )


def _check_model(
  settings: ConfigDict, *, freeze: Sequence[str], micro_batch: int | None
) -> None:
  """That the network can be made as config.model says."""
  size = settings.image_size
  images = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
  try:
    model = models.create(**settings.to_dict())
    shapes = jax.eval_shape(
      functools.partial(model.init, train=False), jax.random.key(0), images
    )
  except UserError as error:
    raise UserError(f'config.model: {error}') from error
  proxies = dict.fromkeys(('class_proxies', 'hierarchical_proxies'))
  params = {'model': shapes['params'], 'loss': proxies}
  _check_freeze(freeze, params)
  statistics = 'batch_stats' in shapes and not model.backbone.frozen_stats
  if micro_batch is not None and statistics:
    raise UserError(
      f'config.data.micro_batch is {micro_batch}, but the BatchNorm'
      f' of {settings.backbone} takes statistics of the whole batch: set it'
      ' to None, or config.model.frozen_stats to True'
    )


def _check_freeze(freeze: Sequence[str], params: optim.Params) -> None:
  """That each pattern is one, and finds a parameter."""
  for pattern in freeze:
    try:
      _, frozen = optim.split(params, (pattern,))
    except re.error as error:
      raise UserError(
        f'config.optim.freeze holds {pattern!r}, which is no regular'
        f' expression ({error})'
      ) from error
    if not frozen:
      raise UserError(
        f'config.optim.freeze holds {pattern!r}, which finds no parameter:'
        ' expected a regular expression of paths such as'
        f' {optim.paths(params)[0]!r}'
      )


def validate(config: ConfigDict, *, training: bool = True) -> ConfigDict:
  """Checks a config by itself; see `check_data` for what needs the data.

  Args:
    config: the ConfigDict of a run.
    training: whether the config is for training, not only for evaluation.

  Returns:
    The config resolved, see `default.resolve`.

  Raises:
    UserError: for an unknown or missing key, an invalid value, and keys that
      contradict each other.
  """
  flat = config_lib.flatten(config)
  config_lib.check_keys(flat)
  values.check(flat)
  if flat['tensorboard']:
    tensorboard.check_tensorboard()
  _check_model(
    config.model,
    freeze=config.optim.freeze,
    micro_batch=config.data.micro_batch,
  )
  config = config_lib.resolve(config)
  flat = config_lib.flatten(config)
  _check_evaluation(flat)
  if training:
    _check_views(flat)
    _check_batch(flat)
    _check_sampler(flat)
    _check_length(flat)
    _check_shards(flat)
    _check_loss(flat, config.loss, config.model)
  return config


def check_data(
  settings: ConfigDict,
  memory: ConfigDict,
  splits: Mapping[str, Split],
  *,
  total_steps: int,
) -> None:
  """Raises UserError where the config contradicts its data set.

  Args:
    settings: config.eval.
    memory: config.loss.memory.
    splits: name -> `datasets.Split`.
    total_steps: of the run.
  """
  _check_positives(splits)
  _check_ranks(settings.recall_at, splits)
  if memory.size and memory.start_step >= total_steps:
    raise UserError(
      f'config.loss.memory.start_step is {memory.start_step}, but the run has'
      f' {total_steps} steps: its memory would never be used'
    )


def _check_positives(splits: Mapping[str, Split]) -> None:
  """That wherever the run is evaluated a query has something to find."""
  for name in ('query' if 'query' in splits else 'test', 'val'):
    if name not in splits:
      continue
    split, ranked, needed = splits[name], splits[name], 'two images'
    if name == 'query':
      ranked, needed = splits['gallery'], 'an image in each of the two'
      found = np.isin(split.numbers, ranked.numbers).any()
    else:
      found = np.bincount(split.labels).max(initial=0) > 1
    if not found:
      chosen = ' set config.eval.hold_out to another number, or'
      raise UserError(
        f'none of the {len(split)} images of {split.name} has another of its'
        f' class in {ranked.name}, so evaluating the run would find nothing:'
        f'{chosen if name == "val" else ""} prepare the data set with a class'
        f' of {needed} at least'
      )


def _check_ranks(recall_at: Sequence[int], splits: Mapping[str, Split]) -> None:
  """That no rank is beyond all that is ranked, where Recall@K says nothing."""
  last = max(recall_at)
  for name in ('gallery' if 'gallery' in splits else 'test', 'val'):
    # Queries that are their own gallery are not ranked for themselves.
    ranked = len(splits.get(name, ())) - (name != 'gallery')
    if name in splits and last > ranked:
      rest = tuple(k for k in recall_at if k <= ranked)
      raise UserError(
        f'config.eval.recall_at holds {last}, but {splits[name].name} has only'
        f' {ranked} images that a query can find: set it to'
        f' {rest or (1,)}'
      )
