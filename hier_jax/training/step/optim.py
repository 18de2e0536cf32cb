"""AdamW with a learning rate for each group of parameters."""

import re
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from jax.typing import ArrayLike
from ml_collections import ConfigDict

__all__ = [
  'SPANNING',
  'group_norms',
  'group_of',
  'learning_rate',
  'merge',
  'optimizer',
  'paths',
  'split',
  'update_ema',
]

# Nested dicts of arrays, or of what else there is for each array.
Params = dict[str, Any]
# Of all gradients together.
Norm = Callable[[Params], jax.Array]

_GROUPS = (
  (r'model/backbone/', 'backbone'),
  (r'model/head/', 'head'),
  (r'loss/hierarchical_proxies', 'hierarchical_proxies'),
  (r'loss/class_proxies', 'class_proxies'),
)
_REFERENCE_BATCH = 180
# Schedules that spread over the whole run: with its length all rates change.
SPANNING = ('cosine', 'one_cycle')


def _is_frozen(path: str, freeze: Iterable[str]) -> bool:
  return any(re.search(pattern, path) for pattern in freeze)


def group_of(path: str, freeze: Iterable[str] = ()) -> str:
  """The group of a parameter, by its path 'model/backbone/...'.

  Args:
    path: names joined by '/'.
    freeze: regular expressions; a path that one of them finds is 'frozen'.

  Raises:
    ValueError: for a path of no group.
  """
  if _is_frozen(path, freeze):
    return 'frozen'
  for pattern, group in _GROUPS:
    if re.match(pattern, path):
      return group
  raise ValueError(f'parameter {path!r} belongs to no group of {_GROUPS}')


def _flatten(params: Params) -> dict[str, Any]:
  return traverse_util.flatten_dict(params, keep_empty_nodes=True, sep='/')


def paths(params: Params) -> list[str]:
  """Paths 'model/backbone/...' of the parameters, as patterns see them."""
  return list(traverse_util.flatten_dict(params, sep='/'))


def split(params: Params, freeze: Iterable[str]) -> tuple[Params, Params]:
  """Splits parameters into trained and frozen ones.

  Args:
    params: nested dicts.
    freeze: regular expressions; see `group_of`.

  Returns:
    Two nested dicts, which `merge` joins again.
  """
  flat = _flatten(params)

  def part(frozen: bool) -> Params:
    chosen = {k: v for k, v in flat.items() if _is_frozen(k, freeze) == frozen}
    return traverse_util.unflatten_dict(chosen, sep='/')

  return part(False), part(True)


def merge(params: Params, part: Params) -> Params:
  """The parameters, with those in `part` replaced."""
  return traverse_util.unflatten_dict(
    _flatten(params) | _flatten(part), sep='/'
  )


def group_norms(
  grads: Params, norm: Norm = optax.tree.norm
) -> dict[str, jax.Array]:
  """Group -> norm of all gradients of its parameters, nested dicts of them."""
  groups: dict[str, Params] = {}
  for path, grad in traverse_util.flatten_dict(grads).items():
    groups.setdefault(group_of('/'.join(path)), {})[path] = grad
  return {
    group: norm(traverse_util.unflatten_dict(found))
    for group, found in groups.items()
  }


def update_ema(
  ema: Params, params: Params, step: ArrayLike, decay: float
) -> Params:
  """The exponential moving average (EMA) of the parameters after a step.

  The EMA starts at the initial parameters. Its decay grows with the number of
  steps t, min(decay, (1 + t) / (10 + t)), so that these are soon forgotten.

  Args:
    ema: the EMA before the step, a tree of arrays.
    params: the parameters after the step, a tree like `ema`.
    step: number of steps t before this one, int32 scalar.
    decay: share of the EMA that late steps keep, 0 to 1.

  Returns:
    A tree like `ema`.
  """
  keep = jnp.minimum(decay, (1 + step) / (10 + step))
  return jax.tree.map(
    lambda m, p: m + (1 - keep).astype(p.dtype) * (p - m), ema, params
  )


def _shape(
  optim: ConfigDict, steps_per_epoch: int, total_steps: int
) -> optax.Schedule:
  """The schedule's factor of a step, 1 at its height."""
  if optim.schedule == 'cosine':
    return optax.cosine_decay_schedule(1.0, total_steps, alpha=0.1)
  if optim.schedule == 'step':
    every = optim.step_every * steps_per_epoch
    return optax.exponential_decay(
      1.0, every, optim.step_factor, staircase=True
    )
  if optim.schedule == 'one_cycle':
    return optax.cosine_onecycle_schedule(total_steps, 1.0)
  return optax.constant_schedule(1.0)


def learning_rate(
  optim: ConfigDict,
  group: str,
  *,
  batch_size: int,
  steps_per_epoch: int,
  epochs: int,
) -> optax.Schedule:
  """The learning rate of a group as a function of the step.

  lr * (global batch / 180) * scale of the group * schedule; the
  backbone's is 0 while epoch < warmup_epochs.

  Args:
    optim: config.optim.
    group: one of config.optim.scales.
    batch_size: images in a batch of all devices.
    steps_per_epoch: steps in an epoch.
    epochs: length of the run, over which some schedules spread.
  """
  shape = _shape(optim, steps_per_epoch, epochs * steps_per_epoch)
  height = optim.lr * batch_size / _REFERENCE_BATCH
  height *= optim.scales[group]
  frozen_steps = optim.warmup_epochs * steps_per_epoch

  def rate(step: ArrayLike) -> ArrayLike:
    factor = shape(step)
    if group == 'backbone':
      factor *= step >= frozen_steps
    return height * factor

  return rate


def _scale_model(factor: float) -> optax.GradientTransformation:
  """Multiplies the gradients of backbone and head."""
  return optax.stateless(
    lambda grads, _: {
      part: optax.tree.scale(factor, of) if part == 'model' else of
      for part, of in grads.items()
    }
  )


def _clip_norm(limit: float, norm: Norm) -> optax.GradientTransformation:
  """`optax.clip_by_global_norm`, by a norm of one's own."""

  def clip(grads: Params, _: object) -> Params:
    length = norm(grads)
    return jax.tree.map(
      lambda grad: jnp.where(length < limit, grad, grad / length * limit), grads
    )

  return optax.stateless(clip)


def optimizer(
  optim: ConfigDict,
  *,
  batch_size: int,
  steps_per_epoch: int,
  epochs: int,
  norm: Norm | None = None,
) -> optax.GradientTransformation:
  """AdamW (Loshchilov and Hutter, arXiv 1711.05101), grouped by path.

  Weight decay is decoupled, with one value for all parameters. If the config
  says so, gradients of the model are scaled first, and then all gradients are
  clipped by value and by global norm. The optimizer takes only the trained part
  of the parameters, see `split`.

  Args:
    optim: config.optim.
    batch_size: images in a batch of all devices.
    steps_per_epoch: steps in an epoch.
    epochs: length of the run.
    norm: function for the norm of gradients that are spread over devices; None
      if they are not.
  """
  length = {
    'batch_size': batch_size,
    'steps_per_epoch': steps_per_epoch,
    'epochs': epochs,
  }
  adamw = {
    group: optax.adamw(
      learning_rate(optim, group, **length),
      b1=optim.b1,
      b2=optim.b2,
      eps=optim.adam_eps,
      weight_decay=optim.weight_decay,
    )
    for group in optim.scales
  }

  def groups(params: Params) -> Params:
    name = lambda path, _: group_of('/'.join(str(entry.key) for entry in path))
    return jax.tree_util.tree_map_with_path(name, params)

  clips = []
  if optim.grad_scale != 1:
    clips.append(_scale_model(optim.grad_scale))
  if optim.clip_value is not None:
    clips.append(optax.clip(optim.clip_value))
  if optim.clip_norm is not None:
    clips.append(
      optax.clip_by_global_norm(optim.clip_norm)
      if norm is None
      else _clip_norm(optim.clip_norm, norm)
    )
  return optax.chain(*clips, optax.partition(adamw, groups))
