"""The checks on a config's values, each by itself."""

import fnmatch
import math
import operator
from collections.abc import Collection, Mapping
from typing import Any

from hier_jax.data import sampler
from hier_jax.errors import UserError
from hier_jax.losses._lca_picks import ESTIMATORS
from hier_jax.training.config import default as config_lib
from hier_jax.training.distributed import mapping
from hier_jax.training.step import finite, objective

__all__ = ['allowed', 'check', 'check_choice']

_RELATIONS = {
  'above': operator.gt,
  'at least': operator.ge,
  'at most': operator.le,
  'below': operator.lt,
}
# What holds of the values that are not None, of keys given as patterns.
_BOUNDS = {
  ('above', 0): (
    'model.image_size',
    'model.embedding_dim',
    'model.clip_radius',
    'model.radial_scale',
    'loss.num_proxies',
    'loss.hier.k',
    'loss.hier.proxy_anchors',
    'loss.hier.triplets_per_anchor',
    'loss.*temperature',
    'data.batch_size',
    'data.max_megapixels',
    'data.micro_batch',
    'data.groups',
    'data.num_threads',
    'data.short_side',
    'data.eval_crop',
    'eval.batch_size',
    'eval.every_epochs',
    'eval.patience',
    'checkpoint.*',
    'optim.step_every',
    'optim.step_factor',
    'optim.adam_eps',
    'optim.grad_scale',
    'optim.clip_value',
    'optim.clip_norm',
    'epochs',
    'log_every',
  ),
  ('at least', 0): (
    'seed',
    'model.c',
    'loss.metric_weight',
    'loss.second_weight',
    'loss.hier_weight',
    'loss.hier.margin',
    'loss.memory.*',
    'data.images_per_class',
    'data.train_view.flip',
    'data.train_view.grayscale',
    'data.train_view.channel_shuffle',
    'optim.lr',
    'optim.warmup_epochs',
    'optim.weight_decay',
    'optim.b1',
    'optim.b2',
    'optim.ema_decay',
    'optim.scales.*',
  ),
  ('at least', 2): ('eval.hold_out',),
  ('below', 1): ('optim.b1', 'optim.b2', 'optim.ema_decay'),
  ('at most', 1): (
    'data.eval_crop',
    'data.train_view.flip',
    'data.train_view.grayscale',
    'data.train_view.channel_shuffle',
  ),
  # Of a larger one JAX would silently drop bits.
  ('at most', 2**32 - 1): ('seed',),
}
_CHOICES = {
  'model.dtype': ('float32', 'bfloat16'),
  'loss.metric': objective.LOSSES,
  'loss.second': (None, *objective.SECOND),
  'loss.hier.normalize_by': ('all', 'valid'),
  'loss.hier.estimator': ESTIMATORS,
  'optim.schedule': ('constant', 'cosine', 'step', 'one_cycle'),
  'nonfinite': finite.MODES,
  'parallel': mapping.MAPS,
  'data.sampler': sampler.KINDS,
}
# Type of the items of tuples, and what to call them.
_NUMBERS = (int, float), 'numbers'
_ITEMS = {
  'optim.freeze': (str, 'regular expressions'),
  'eval.recall_at': (int, 'whole numbers'),
  'loss.recall_at_k.ks': (int, 'whole numbers'),
}


def check(flat: Mapping[str, Any]) -> None:
  """Raises UserError for a value that no config may have.

  Args:
    flat: dotted key -> value, see `default.flatten`.
  """
  _check_types(flat)
  _check_finite(flat)
  _check_bounds(flat)
  for key, allowed in _CHOICES.items():
    check_choice(flat, key, allowed)


def allowed(key: str) -> str:
  """What a key's value may be beyond its type, in words; '' for anything.

  Args:
    key: dotted key.

  Example:
    >>> from hier_jax.training.config import values
    >>> values.allowed('optim.b1')
    'at least 0, below 1'
  """
  if key in _CHOICES:
    return ', '.join(map(repr, _CHOICES[key]))
  bounds = [
    f'{relation} {bound}'
    for (relation, bound), patterns in _BOUNDS.items()
    if any(fnmatch.fnmatch(key, pattern) for pattern in patterns)
  ]
  _, words = _ITEMS.get(key, _NUMBERS)
  default = config_lib.flatten(config_lib.default_config())[key]
  return ', '.join([words, *bounds] if isinstance(default, tuple) else bounds)


def _check_types(flat: Mapping[str, Any]) -> None:
  """That None and tuples are as they may be; ConfigDict holds other types."""
  for key, value in flat.items():
    if value is None and not config_lib.may_be_none(key):
      raise UserError(f'config.{key} is None, must have a value')
    kind, words = _ITEMS.get(key, _NUMBERS)
    if isinstance(value, tuple) and not all(isinstance(x, kind) for x in value):
      raise UserError(f'config.{key} is {value}, must be {words}')


def _check_bounds(flat: Mapping[str, Any]) -> None:
  for (relation, bound), patterns in _BOUNDS.items():
    for pattern in patterns:
      for key in fnmatch.filter(flat, pattern):
        value = flat[key]
        if value is not None and not _RELATIONS[relation](value, bound):
          raise UserError(
            f'config.{key} is {value}, must be {relation} {bound}'
          )


def _check_finite(flat: Mapping[str, Any]) -> None:
  for key, value in flat.items():
    numbers = value if isinstance(value, tuple) else (value,)
    if any(isinstance(x, float) and not math.isfinite(x) for x in numbers):
      raise UserError(f'config.{key} is {value}, must be finite')


def check_choice(
  flat: Mapping[str, Any], key: str, allowed: Collection[str | None]
) -> None:
  """Raises UserError where a key's value is none of those allowed."""
  if flat[key] not in allowed:
    choices = ', '.join(map(repr, allowed))
    raise UserError(f'config.{key} is {flat[key]!r}, must be one of {choices}')
