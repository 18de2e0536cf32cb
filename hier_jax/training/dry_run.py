"""What a run would be, without running it."""

import collections
import math

import jax
from flax import traverse_util

from hier_jax.training import (
  agreement,
  embedding,
  optim,
  parallel,
  validation,
)
from hier_jax.training import state as state_lib
from hier_jax.training import step as step_lib
from hier_jax.training.inputs import Inputs, batch_shapes, load_splits

__all__ = ['describe']


def describe(config) -> str:
  """Text on a run: config, parameters and rates, batches, memory.

  Compiles the step, but makes no parameters and reads no images.

  Args:
    config: see `config.default_config`.

  Raises:
    UserError: for a wrong config or data set.
  """
  validation.validate(config)
  train = load_splits(config)['train']
  steps_per_epoch = Inputs(config, train).sampler.steps_per_epoch
  model = embedding.create_model(config)
  optimizer = optim.optimizer(config, steps_per_epoch=steps_per_epoch)
  state = jax.eval_shape(
    lambda: state_lib.create(config, model, optimizer, train.num_classes)
  )
  compiled = parallel.compile_step(
    step_lib.make_train_step(config, model, optimizer),
    state,
    batch_shapes(config),
    by=config.parallel,
  )
  return '\n\n'.join(
    [
      config.to_json(indent=2),
      _parameters(config, state.params, steps_per_epoch),
      _batches(config, train, steps_per_epoch),
      _memory(compiled.memory_analysis()),
    ]
  )


def _parameters(config, params, steps_per_epoch):
  """A row a group: how many parameters, and their rate over time."""
  counts: collections.Counter = collections.Counter()
  for name, leaf in traverse_util.flatten_dict(params, sep='/').items():
    counts[optim.group_of(name, config.optim.freeze)] += math.prod(leaf.shape)
  last = config.epochs * steps_per_epoch - 1
  warm = min(config.optim.warmup_epochs * steps_per_epoch, last)
  steps = {'at step 0': 0, 'after warm-up': warm, 'at the end': last}
  lines = [f'{"parameters":<22}{"":>12}' + ''.join(f'{s:>15}' for s in steps)]
  for group, count in counts.items():
    rates = [0.0] * len(steps)
    if group != 'frozen':
      rate = optim.learning_rate(config, group, steps_per_epoch=steps_per_epoch)
      rates = [float(rate(step)) for step in steps.values()]
    shown = ''.join(f'{rate:>15.3g}' for rate in rates)
    lines.append(f'{group:<22}{count:>12,}{shown}')
  lines.append(f'{"all":<22}{counts.total():>12,}')
  return '\n'.join(lines)


def _batches(config, train, steps_per_epoch):
  batch, per_class = config.data.batch_size, config.data.images_per_class
  devices, processes = jax.device_count(), agreement.count()
  drawn = (
    f'{batch // per_class} classes x {per_class} images'
    if per_class
    else 'shuffled'
  )
  return '\n'.join(
    [
      f'{train.name}: {len(train):,} images of {train.num_classes:,} classes',
      f'batch of {batch} ({drawn}): {batch // devices} on each of {devices}'
      f' {jax.devices()[0].device_kind} devices of {processes} processes',
      f'{steps_per_epoch:,} steps an epoch, {config.epochs} epochs,'
      f' {config.epochs * steps_per_epoch:,} steps',
    ]
  )


def _memory(found):
  if found is None:
    return 'memory of the step: not known on this device'
  parts = {
    'state and batch': found.argument_size_in_bytes,
    'temporaries': found.temp_size_in_bytes,
    'program': found.generated_code_size_in_bytes,
  }
  shown = ', '.join(
    f'{name} {size / 1e6:,.0f} MB' for name, size in parts.items()
  )
  return f'memory of the step on a device: {shown}'
