"""The config: every key with its default, and the checks on its values.

A config file under experiments/configs returns `default_config()` with other
values; it can neither add a key nor leave one out. All that a wrong value can
break is checked here, before anything is read, compiled or written.
"""

import difflib
import functools
import math
import re

import jax
import numpy as np
from ml_collections import config_dict

from hier_jax.data import sampler, transforms
from hier_jax.errors import UserError
from hier_jax.losses.lca import ESTIMATORS
from hier_jax.models import embedder
from hier_jax.training import guard, objective, optim, report

__all__ = [
  'FREE_KEYS',
  'default_config',
  'differences',
  'from_stored',
  'validate',
]

# Keys that say where or how fast, never what: a run may go on with others.
FREE_KEYS = (
  'data.cache',
  'data.data_dir',
  'data.micro_batch',
  'data.num_threads',
  'nonfinite',
  'tensorboard',
)

SCHEDULES = ('constant', 'cosine', 'step', 'one_cycle')
DTYPES = ('float32', 'bfloat16')
# Types of the options of losses whose default is None.
NONE_TYPES = {'mining': float, 'margins': tuple}
GROUPS = ('backbone', 'head', 'hierarchical_proxies', 'class_proxies')


def _loss_options():
  """Loss -> its options with their defaults, as a config can hold them."""
  typed = lambda key, value: (
    config_dict.placeholder(NONE_TYPES[key]) if value is None else value
  )
  return {
    name: {k: typed(k, v) for k, v in objective.options(name).items()}
    for name in objective.LOSSES
  }


def default_config():
  """HIER with Proxy-Anchor as the paper trains it, on the Emoji data."""
  optional = config_dict.placeholder
  config = {
    'seed': 0,
    # What the backbone begins with: None for drawn weights, 'hub' for those
    # published under its name, else what `models.pretrained.load` takes.
    'pretrained': optional(str),
    'model': {
      'backbone': 'vit_tiny_patch4',
      'image_size': 32,
      'embedding_dim': 128,
      'c': 0.1,
      'clip_radius': 2.3,
      'last_norm': True,
      'radial_scale': optional(float),
      'dtype': 'bfloat16',
      # None in what follows: as the backbone has it.
      'mean': optional(tuple),
      'std': optional(tuple),
      'pool': optional(str),
      'deit_token': optional(str),
      'drop_path': optional(float),
      'frozen_stats': optional(bool),
      'remat': optional(bool),
    },
    'loss': {
      'metric': 'proxy_anchor',
      'metric_weight': 1.0,
      'hier_weight': 0.5,
      **_loss_options(),
      # Rows of past batches that the metric loss compares with, from a step on.
      'memory': {'size': 0, 'start_step': 0},
      'num_proxies': 512,
      'hier': {
        'tau': 0.1,
        'margin': 0.1,
        'k': 20,
        'triplets_per_anchor': 50,
        'estimator': 'gumbel',
        'shared_noise': False,
        'self_negatives': False,
        'exclude_self_lca': False,
        'normalise_by': 'all',
      },
    },
    'optim': {
      # A group's rate is lr * batch_size / 180 * scales[group] * schedule.
      'lr': 5e-6,
      'scales': {
        'backbone': 1.0,
        'head': 1.0,
        'hierarchical_proxies': 50.0,
        'class_proxies': 1e4,
      },
      'schedule': 'constant',
      'step_every': 10,
      'step_factor': 0.5,
      'warmup_epochs': 1,
      'freeze': (),
      'weight_decay': 1e-2,
      'b1': 0.9,
      'b2': 0.999,
      'adam_eps': 1e-4,
      'clip_value': optional(float),
      'clip_norm': optional(float),
      # Of the moving average of the parameters that is evaluated then.
      'ema_decay': optional(float),
    },
    'data': {
      'name': 'emoji',
      'data_dir': optional(str),
      'batch_size': 180,
      # Rows of a device that are embedded at a time, None for all: a batch of
      # any size in the memory of so many rows, for a forward pass more.
      'micro_batch': optional(int),
      'images_per_class': 2,
      # How classes meet in a batch, see `data.sampler`; 'hierarchical' takes
      # them from so many groups of a level, None for the coarsest.
      'sampler': 'class',
      'level': optional(str),
      'groups': 1,
      'num_threads': 2,
      # Larger images are shrunk to it before training views are made.
      'short_side': optional(int),
      # Decoded images on disk: 'off', 'auto' where they fit, or a folder.
      'cache': 'off',
      # Crops are resized and flipped on the devices.
      'device_views': False,
      'train_view': {
        'scale': (0.2, 1.0),
        'ratio': (3 / 4, 4 / 3),
        'flip': 0.5,
        'affine': {
          'degrees': 0.0,
          'log_scale': 0.0,
          'log_aspect': 0.0,
          'translate': 0.0,
        },
        'grayscale': 0.0,
        'channel_shuffle': 0.0,
        'brightness': 0.0,
      },
      'eval_resize': optional(int),
    },
    'epochs': 100,
    'log_every': 10,
    # The logs for TensorBoard as well, in WORKDIR/tensorboard.
    'tensorboard': False,
    # What a step does that is not finite: 'stop' the run or 'skip' its update.
    'nonfinite': 'stop',
    'eval': {
      'every_epochs': 10,
      'batch_size': 500,
      'recall_at': (1, 2, 4, 8),
      'pixels': False,
    },
    'checkpoint': {'every_epochs': 1, 'keep': 2},
  }
  return config_dict.create(**config).lock()


def _flatten(config, prefix=''):
  """Dotted key -> value, dictionaries opened."""
  flat: dict[str, object] = {}
  for key, value in config.items():
    if isinstance(value, (config_dict.ConfigDict, dict)):
      flat |= _flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = value
  return flat


def _check_keys(flat):
  expected = set(_flatten(default_config()))
  unknown, missing = sorted(set(flat) - expected), sorted(expected - set(flat))
  if unknown:
    close = difflib.get_close_matches(unknown[0], expected, 1)
    hint = f'; did you mean {close[0]!r}?' if close else ''
    raise UserError(f'unknown config key {unknown[0]!r}{hint}')
  if missing:
    raise UserError(
      f'config key {missing[0]!r} is missing: start from'
      ' hier_jax.training.config.default_config()'
    )


def _at_least(flat, low, keys, *, above=False):
  for key in keys:
    value = flat[key]
    if value is None:
      continue
    if not (value > low if above else value >= low):
      relation = 'above' if above else 'at least'
      raise UserError(f'config.{key} is {value}, must be {relation} {low}')


def _check_finite(flat):
  for key, value in flat.items():
    numbers = value if isinstance(value, tuple) else (value,)
    if any(isinstance(x, float) and not math.isfinite(x) for x in numbers):
      raise UserError(f'config.{key} is {value}, must be finite')


def _at_most(flat, high, keys, *, below=False):
  for key in keys:
    value = flat[key]
    if value is None:
      continue
    if not (value < high if below else value <= high):
      relation = 'below' if below else 'at most'
      raise UserError(f'config.{key} is {value}, must be {relation} {high}')


def _one_of(flat, key, allowed):
  if flat[key] not in allowed:
    choices = ', '.join(map(repr, allowed))
    raise UserError(f'config.{key} is {flat[key]!r}, must be one of {choices}')


def _check_views(flat):
  """That images can be cropped and resized as they are to be."""
  chances = [
    f'data.train_view.{name}'
    for name in ('flip', 'grayscale', 'channel_shuffle')
  ]
  _at_least(flat, 0, chances)
  _at_most(flat, 1, chances)
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


def _check_batch(flat):
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
        f'config.loss.hier.k {flat["loss.hier.k"]} neighbours are more than'
        f' the batch or the proxies hold ({smaller}): lower k'
      )


def _temperatures(flat):
  return [
    key
    for key in flat
    if key.startswith('loss.') and key.endswith('temperature')
  ]


def _check_loss(config, flat):
  """That the metric loss can be computed as it is set."""
  name, size = flat['loss.metric'], flat['loss.memory.size']
  batch, views = flat['data.batch_size'], flat['data.images_per_class']
  if size and not objective.takes_memory(name):
    raise UserError(
      f'config.loss.memory.size is {size}, but {name} has no use for a memory:'
      ' set it to 0'
    )
  if size and size < batch:
    raise UserError(
      f'config.loss.memory.size {size} is less than config.data.batch_size'
      f' {batch}: a memory holds a whole batch at least'
    )
  local = batch // jax.device_count()
  if name == 'hyp' and (views < 2 or local % views):
    raise UserError(
      f'config.loss.metric hyp pairs the images of a class: {views} images per'
      f' class (config.data.images_per_class) must be at least 2 and divide the'
      f' {local} rows of a device'
    )
  try:
    objective.trace(config)
  except (TypeError, ValueError) as error:
    raise UserError(f'config.loss.{name}: {error}') from error


def _check_model(config):
  """That the network can be made as it is set."""
  settings = config.model.to_dict()
  size = config.model.image_size
  images = jax.ShapeDtypeStruct((1, size, size, 3), np.uint8)
  try:
    model = embedder.create(**settings)
    shapes = jax.eval_shape(
      functools.partial(model.init, train=False), jax.random.key(0), images
    )
  except UserError as error:
    raise UserError(f'config.model: {error}') from error
  proxies = dict.fromkeys(('class_proxies', 'hierarchical_proxies'))
  params = {'model': shapes['params'], 'loss': proxies}
  _check_freeze(config.optim.freeze, params)
  statistics = 'batch_stats' in shapes and not model.backbone.frozen_stats
  if config.data.micro_batch is not None and statistics:
    raise UserError(
      f'config.data.micro_batch is {config.data.micro_batch}, but the BatchNorm'
      f' of {config.model.backbone} takes statistics of the whole batch: set it'
      ' to None, or config.model.frozen_stats to True'
    )


def _check_freeze(freeze, params):
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


def validate(config):
  """Raises UserError for an unknown or missing key or a value that cannot be.

  Args:
    config: the ConfigDict to train with.
  """
  flat = _flatten(config)
  _check_keys(flat)
  positive = [
    'model.image_size',
    'model.embedding_dim',
    'model.clip_radius',
    'model.radial_scale',
    'loss.num_proxies',
    'loss.hier.tau',
    'loss.hier.k',
    'loss.hier.triplets_per_anchor',
    *_temperatures(flat),
    'data.batch_size',
    'data.micro_batch',
    'data.groups',
    'data.num_threads',
    'data.short_side',
    'eval.batch_size',
    'eval.every_epochs',
    'checkpoint.every_epochs',
    'checkpoint.keep',
    'optim.step_every',
    'optim.step_factor',
    'optim.adam_eps',
    'optim.clip_value',
    'optim.clip_norm',
    'epochs',
    'log_every',
  ]
  not_negative = [
    'seed',
    'model.c',
    'loss.metric_weight',
    'loss.hier_weight',
    'loss.hier.margin',
    'loss.memory.size',
    'loss.memory.start_step',
    'data.images_per_class',
    'optim.lr',
    'optim.warmup_epochs',
    'optim.weight_decay',
    'optim.b1',
    'optim.b2',
    'optim.ema_decay',
    *(f'optim.scales.{group}' for group in GROUPS),
  ]
  _check_finite(flat)
  _at_least(flat, 0, positive, above=True)
  _at_least(flat, 0, not_negative)
  # Of a larger one JAX would silently drop bits.
  _at_most(flat, 2**32 - 1, ('seed',))
  decays = ('optim.b1', 'optim.b2', 'optim.ema_decay')
  _at_most(flat, 1, decays, below=True)
  recall_at = flat['eval.recall_at']
  if not recall_at or min(recall_at) < 1:
    raise UserError(
      f'config.eval.recall_at is {recall_at}, must be ranks of at least 1'
    )
  _one_of(flat, 'model.dtype', DTYPES)
  _one_of(flat, 'loss.metric', objective.LOSSES)
  _one_of(flat, 'loss.hier.normalise_by', ('all', 'valid'))
  _one_of(flat, 'loss.hier.estimator', ESTIMATORS)
  _one_of(flat, 'optim.schedule', SCHEDULES)
  _one_of(flat, 'nonfinite', guard.MODES)
  _one_of(flat, 'data.sampler', sampler.KINDS)
  if flat['data.device_views'] and flat['data.short_side'] is None:
    raise UserError(
      'config.data.device_views is True, but config.data.short_side is None:'
      ' set the latter, 256 for instance, since devices take crops of a'
      ' bounded size'
    )
  if flat['tensorboard']:
    report.check_tensorboard()
  _check_views(flat)
  _check_batch(flat)
  _check_loss(config, flat)
  _check_model(config)


def from_stored(stored):
  """The config that `config.json` of a run holds.

  Args:
    stored: nested dicts; keys that they lack are at their defaults.

  Raises:
    UserError: for a key that is unknown.
  """
  config = default_config()
  flat = _flatten(stored)
  _check_keys(_flatten(config) | flat)
  # JSON knows no tuples.
  flat = {k: tuple(v) if isinstance(v, list) else v for k, v in flat.items()}
  config.update_from_flattened_dict(flat)
  return config


def differences(theirs, ours):
  """Dotted keys whose values differ between two configs.

  Args:
    theirs: a config as nested dicts, as JSON holds it.
    ours: another.

  Returns:
    key -> (their value, our value), None for a key that is not there.
  """
  theirs, ours = _flatten(theirs), _flatten(ours)
  return {
    key: (theirs.get(key), ours.get(key))
    for key in sorted(set(theirs) | set(ours))
    if theirs.get(key) != ours.get(key)
  }
