"""The config: every key with its default.

A config under hier_jax/configs returns `default_config()` with other values; it
can neither add nor remove a key. A key that depends on others is None by
default, and `resolve` derives it from them. `meanings` says what each key
means, and `checks` checks values.
"""

import contextlib
import json
from collections.abc import Callable, Mapping
from typing import Any

import jax
from ml_collections import ConfigDict, config_dict

from hier_jax import paths
from hier_jax.data import transforms
from hier_jax.errors import UserError, did_you_mean
from hier_jax.models import registry
from hier_jax.training.step import objective, optim

__all__ = [
  'FREE_KEYS',
  'as_stored',
  'check_keys',
  'conflicts',
  'default_config',
  'differences',
  'facts',
  'flatten',
  'from_stored',
  'may_be_none',
  'resolve',
  'settings',
  'unknown_key',
]

# Keys whose values may differ between the processes of a run,
_HOST_KEYS = ('data.cache', 'data.data_dir', 'data.num_threads')
# and all that say where, how fast or how often, never what: a run may go on
# with others.
FREE_KEYS = (
  *_HOST_KEYS,
  'checkpoint.every_epochs',
  'checkpoint.keep',
  'data.max_megapixels',
  'data.micro_batch',
  # It acts through data.eval_resize.
  'data.eval_crop',
  'eval.batch_size',
  'explore',
  'log_every',
  'loss.shard_classes',
  'model.remat',
  'model.scan_blocks',
  'nonfinite',
  'parallel',
  'tensorboard',
)
# Rows that are embedded at a time in evaluation, about.
_EVAL_ROWS = 500
# Key that is None where it is derived -> its value, of a whole config.
_DERIVED: dict[str, Callable[[ConfigDict], object]] = {
  'model.mean': lambda config: registry.spec(config.model.backbone).mean,
  'model.std': lambda config: registry.spec(config.model.backbone).std,
  'data.eval_resize': lambda config: round(
    config.model.image_size / config.data.eval_crop
  ),
  'eval.batch_size': lambda config: _multiple(_EVAL_ROWS, jax.device_count()),
}

# Keys that may be None although that is not their default.
_OR_NONE = ('model.c', 'model.clip_radius', 'data.train_view.scale')
# Types of the options of losses whose default is None.
NONE_TYPES = {'epsilon': float, 'margins': tuple, 'proxy_anchors': int}


def _typed(options: Mapping[str, Any]) -> dict[str, Any]:
  """Options of a loss with their defaults, as a config can hold them."""
  return {
    key: config_dict.placeholder(NONE_TYPES[key]) if value is None else value
    for key, value in options.items()
  }


def default_config() -> ConfigDict:
  """HIER with Proxy-Anchor as the paper trains it, on the Emoji data."""
  optional = config_dict.placeholder
  config = {
    'seed': 0,
    'pretrained': optional(str),
    'model': {
      'backbone': 'vit_tiny_patch4',
      'image_size': 32,
      'embedding_dim': 128,
      **objective.ball_options(),
      'last_norm': True,
      'radial_scale': optional(float),
      'dtype': 'bfloat16',
      'mean': optional(tuple),
      'std': optional(tuple),
      'pool': optional(str),
      'deit_token': optional(str),
      'drop_path': optional(float),
      'frozen_stats': optional(bool),
      'remat': optional(bool),
      'scan_blocks': optional(bool),
    },
    'loss': {
      'metric': 'proxy_anchor',
      'metric_weight': 1.0,
      'second': optional(str),
      'second_weight': 1.0,
      'hier_weight': 0.5,
      **{name: _typed(objective.options(name)) for name in objective.LOSSES},
      'shard_classes': False,
      'memory': {'size': 0, 'start_step': 0},
      'num_proxies': 512,
      'hier': _typed(objective.hier_options()),
    },
    'optim': {
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
      'grad_scale': 1.0,
      'clip_value': optional(float),
      'clip_norm': optional(float),
      'ema_decay': optional(float),
    },
    'data': {
      'name': 'emoji',
      'data_dir': optional(str),
      'batch_size': 180,
      'micro_batch': optional(int),
      'images_per_class': 2,
      'sampler': 'class',
      'level': optional(str),
      'groups': 1,
      'num_threads': 2,
      'short_side': optional(int),
      'cache': 'off',
      'max_megapixels': transforms.MAX_MEGAPIXELS,
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
      'eval_crop': 1.0,
    },
    'epochs': 100,
    'log_every': 10,
    'parallel': 'pmap',
    'tensorboard': False,
    'explore': False,
    'nonfinite': 'stop',
    'eval': {
      'every_epochs': 10,
      'batch_size': optional(int),
      'recall_at': (1, 2, 4, 8),
      'pixels': False,
      'hold_out': optional(int),
      'select': 'map@r',
      'patience': optional(int),
    },
    'checkpoint': {'every_epochs': 1, 'keep': 2},
  }
  return config_dict.create(**config).lock()


def flatten(
  config: ConfigDict | Mapping[str, Any], prefix: str = ''
) -> dict[str, Any]:
  """Dotted key -> value, dictionaries opened."""
  flat: dict[str, object] = {}
  for key, value in config.items():
    if isinstance(value, (config_dict.ConfigDict, dict)):
      flat |= flatten(value, f'{prefix}{key}.')
    else:
      flat[f'{prefix}{key}'] = value
  return flat


def may_be_none(key: str) -> bool:
  """Whether a dotted key may be None."""
  return key in _OR_NONE or flatten(default_config())[key] is None


def unknown_key(key: str) -> str:
  """The message for a key that `default_config` does not have."""
  hint = did_you_mean(key, flatten(default_config()))
  everywhere = '; hier_jax/training/config/default.py has all of them'
  return f'unknown config key {key!r}{hint or everywhere}'


def check_keys(flat: Mapping[str, Any]) -> None:
  """Raises UserError for dotted keys that `default_config` does not have."""
  expected = set(flatten(default_config()))
  unknown, missing = sorted(set(flat) - expected), sorted(expected - set(flat))
  if unknown:
    raise UserError(unknown_key(unknown[0]))
  if missing:
    raise UserError(
      f'config key {missing[0]!r} is missing: start from'
      ' hier_jax.training.config.default.default_config()'
    )


def resolve(config: ConfigDict) -> ConfigDict:
  """The config with keys that are None by default filled in.

  A local data_dir becomes absolute, so that it is found from every folder.

  Args:
    config: the whole config, which is left as it is.

  Raises:
    UserError: there is no such backbone, or data_dir is not a path.
  """
  found = config.copy_and_resolve_references()
  flat = flatten(config)
  derived = {
    key: derive(config) for key, derive in _DERIVED.items() if flat[key] is None
  }
  if flat['data.data_dir'] is not None:
    place = paths.as_path(flat['data.data_dir'])
    local = not paths.is_remote(place)
    derived['data.data_dir'] = str(place.absolute() if local else place)
  found.update_from_flattened_dict(derived)
  return found


def _multiple(number: int, of: int) -> int:
  """The first multiple of `of` that is not below a number."""
  return -(-number // of) * of


def facts(config: ConfigDict) -> dict[str, str]:
  """Dotted key -> value as text, what the processes of a run must share."""
  return {
    f'config.{key}': repr(value)
    for key, value in flatten(config).items()
    if key not in _HOST_KEYS
  }


def as_stored(config: ConfigDict) -> dict[str, Any]:
  """A config as nested dicts, as `config.json` holds it."""
  return json.loads(config.to_json())


def from_stored(stored: Mapping[str, Any]) -> ConfigDict:
  """The config that `config.json` of a run holds.

  Args:
    stored: nested dicts; missing keys get their defaults.

  Raises:
    UserError: for a key that is unknown.
  """
  config = default_config()
  flat = flatten(stored)
  check_keys(flatten(config) | flat)
  # JSON knows no tuples.
  flat = {k: tuple(v) if isinstance(v, list) else v for k, v in flat.items()}
  config.update_from_flattened_dict(flat)
  return config


def differences(
  theirs: Mapping[str, Any], ours: Mapping[str, Any]
) -> dict[str, tuple[Any, Any]]:
  """Dotted keys whose values differ between two configs.

  Args:
    theirs: a config as nested dicts, as JSON holds it.
    ours: another.

  Returns:
    key -> (their value, our value), None for a key that is not there.
  """
  theirs, ours = flatten(theirs), flatten(ours)
  return {
    key: (theirs.get(key), ours.get(key))
    for key in sorted(set(theirs) | set(ours))
    if theirs.get(key) != ours.get(key)
  }


def conflicts(
  theirs: ConfigDict, ours: ConfigDict, *, validated: bool
) -> dict[str, tuple[Any, Any]]:
  """The differences that keep a run of one config from going on with another.

  These do not conflict: `FREE_KEYS`; how often a run is evaluated, if that
  decides nothing; and more epochs, if the schedule does not depend on the
  length of the run.

  Args:
    theirs: the config that the run began with, resolved.
    ours: the config to go on with, resolved.
    validated: whether evaluations of the run have chosen its best state.

  Returns:
    As `differences`.
  """
  found = differences(as_stored(theirs), as_stored(ours))
  free = {*FREE_KEYS}
  if not validated:
    free.add('eval.every_epochs')
  if theirs.epochs < ours.epochs and ours.optim.schedule not in optim.SPANNING:
    free.add('epochs')
  return {key: values for key, values in found.items() if key not in free}


def settings(config: ConfigDict) -> dict[str, tuple[Any, Any]]:
  """Dotted keys in which a config differs from its (derived) defaults.

  The seed and `FREE_KEYS`, which change no result, are left out.

  Args:
    config: resolved or not.

  Returns:
    key -> (default, value).
  """
  flat, default = flatten(config), default_config()
  unset = config.copy_and_resolve_references()
  for key, derive in _DERIVED.items():
    # Of a backbone that is no more there is nothing to derive.
    with contextlib.suppress(UserError):
      if key not in FREE_KEYS and flat[key] == derive(config):
        unset.update_from_flattened_dict({key: None})
  found = differences(as_stored(default), as_stored(unset))
  left_out = ('seed', *FREE_KEYS)
  return {key: values for key, values in found.items() if key not in left_out}
