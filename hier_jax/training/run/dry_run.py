"""Describes a run without running it."""

import collections
import math
import os
from collections.abc import Sequence
from typing import Any

import jax
from flax import traverse_util
from ml_collections import ConfigDict

from hier_jax import paths
from hier_jax.training.distributed import mapping, processes
from hier_jax.training.run import plan as plans
from hier_jax.training.run import seeds as trials
from hier_jax.training.run.inputs import batch_shapes
from hier_jax.training.step import optim

__all__ = ['describe']


def describe(
  config: ConfigDict,
  workdir: str | os.PathLike[str] | None = None,
  seeds: Sequence[int] | None = None,
) -> str:
  """Describes a run: config, parameters and rates, batches, memory.

  This makes all checks of a real run and compiles the step, but makes no
  parameters and reads no images.

  Args:
    config: see `default.default_config`.
    workdir: folder of the run, which is then checked too, or None.
    seeds: see `seeds.train`; the run with each is checked, and that with the
      first is described. None for the run with the config's own seed.

  Raises:
    UserError: as `plan.make`, and as `seeds.trials`.
  """
  folder = None if workdir is None else paths.as_path(workdir)
  runs = [(config, folder)]
  if seeds is not None:
    runs = [
      (trial, folder and folder / name)
      for name, trial in trials.trials(config, folder, seeds).items()
    ]
  plan, *_ = [plans.make(*run, fetch=False) for run in runs]
  config = plan.config
  compiled = mapping.compile_step(
    plan.make_step(),
    plan.shapes,
    batch_shapes(config.data.batch_size, config.model.image_size),
    by=config.parallel,
    specs=plan.specs,
  )
  return '\n\n'.join(
    [
      config.to_json(indent=2),
      _parameters(plan),
      *_pretrained(plan),
      _batches(plan),
      _memory(compiled.memory_analysis()),
    ]
  )


def _parameters(plan: plans.Plan) -> str:
  """A row a group: how many parameters, and their rate over time."""
  counts: collections.Counter[str] = collections.Counter()
  params = traverse_util.flatten_dict(plan.stored_shapes.params, sep='/')
  for name, leaf in params.items():
    group = optim.group_of(name, plan.config.optim.freeze)
    counts[group] += math.prod(leaf.shape)
  last = plan.total_steps - 1
  warmup_epochs = plan.config.optim.warmup_epochs
  warm = min(warmup_epochs * plan.length['steps_per_epoch'], last)
  steps = {'at step 0': 0, 'after warm-up': warm, 'at the end': last}
  lines = [f'{"parameters":<22}{"":>12}' + ''.join(f'{s:>15}' for s in steps)]
  for group, count in counts.items():
    rates = [0.0] * len(steps)
    if group != 'frozen':
      rate = optim.learning_rate(plan.config.optim, group, **plan.length)
      rates = [float(rate(step)) for step in steps.values()]
    shown = ''.join(f'{rate:>15.3g}' for rate in rates)
    lines.append(f'{group:<22}{count:>12,}{shown}')
  lines.append(f'{"all":<22}{counts.total():>12,}')
  return '\n'.join(lines)


def _pretrained(plan: plans.Plan) -> list[str]:
  """A line on the weights that the run begins with, where it does so."""
  if plan.weights is not None:
    return [f'pretrained weights: {plan.weights.summary()}']
  if plan.config.pretrained is None:
    return []
  return ['pretrained weights: of the hub, fetched when the run begins']


def _batches(plan: plans.Plan) -> str:
  data, train = plan.config.data, plan.splits['train']
  batch, per_class = data.batch_size, data.images_per_class
  devices, hosts = jax.device_count(), processes.count()
  drawn = (
    f'{batch // per_class} classes x {per_class} images'
    if per_class
    else 'shuffled'
  )
  return '\n'.join(
    [
      f'{train.name}: {len(train):,} images of {train.num_classes:,} classes',
      f'batch of {batch} ({drawn}): {batch // devices} on each of {devices}'
      f' {jax.devices()[0].device_kind} devices of {hosts} processes',
      f'{plan.length["steps_per_epoch"]:,} steps an epoch,'
      f' {plan.config.epochs} epochs, {plan.total_steps:,} steps',
      *filter(None, [plan.inputs.sampler.repetition]),
    ]
  )


def _memory(found: Any) -> str:
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
