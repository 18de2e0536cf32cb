"""All that a run needs, made and checked before anything is compiled."""

import functools
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import numpy as np
import optax
from ml_collections import ConfigDict

from hier_jax import models
from hier_jax.data.datasets import Split
from hier_jax.models.weights import pretrained
from hier_jax.training.config import checks
from hier_jax.training.distributed import mapping, processes
from hier_jax.training.logs import tensorboard
from hier_jax.training.run import facts
from hier_jax.training.run import workdir as workdirs
from hier_jax.training.run.inputs import Inputs, load_splits
from hier_jax.training.step import optim, shards
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib

__all__ = ['Plan', 'create_model', 'make']


class Plan(NamedTuple):
  """What a run is made of.

  Attributes:
    config: the whole config, resolved.
    splits: name -> `datasets.Split`.
    inputs: the batches.
    model: `models.Embedder`.
    optimizer: optax transformation.
    shapes: shapes of the `TrainState`.
    shards: `shards.Shards` of its class proxies; None where each device has
      all.
    weights: `pretrained.Loaded`; None for a run that goes on, for drawn
      weights, and for weights of the hub if nothing is fetched.
  """

  config: ConfigDict
  splits: dict[str, Split]
  inputs: Inputs
  model: models.Embedder
  optimizer: optax.GradientTransformation
  shapes: state_lib.TrainState
  shards: shards.Shards | None
  weights: pretrained.Loaded | None

  @property
  def length(self) -> dict[str, int]:
    """What learning rates depend on besides config.optim."""
    return _length(self.config, self.inputs)

  @property
  def total_steps(self) -> int:
    """Steps of the run."""
    return _total_steps(self.config, self.inputs)

  @property
  def specs(self) -> state_lib.TrainState | None:
    """The specs of the state for `mapping.map_step`."""
    return None if self.shards is None else self.shards.specs(self.shapes)

  @property
  def stored_shapes(self) -> state_lib.TrainState:
    """Those of a checkpoint of the state."""
    return self.stored(self.shapes)

  def stored(self, state: state_lib.TrainState) -> state_lib.TrainState:
    """The state as a checkpoint holds it, for any number of devices."""
    return state if self.shards is None else self.shards.crop(state)

  def restored(self, state: state_lib.TrainState) -> state_lib.TrainState:
    """The state of a checkpoint, for the devices of this run."""
    if self.shards is None:
      return state
    return mapping.place(self.shards.pad(state), self.specs)

  def make_step(self) -> step_lib.Step:
    """The per-device training step, see `train_step.make_train_step`."""
    return step_lib.make_train_step(
      self.config,
      self.model,
      self.optimizer,
      None if self.shards is None else self.shards.num_classes,
    )

  def read_pretrained(self, *, fetch: bool = True) -> pretrained.Loaded | None:
    """The weights to begin with; see `state.read_pretrained`."""
    return state_lib.read_pretrained(
      self.config.pretrained,
      self.model,
      backbone=self.config.model.backbone,
      fetch=fetch,
    )

  def create_state(self) -> state_lib.TrainState:
    """The state at step 0, drawn; see `state.create`."""
    return state_lib.create(
      self.config,
      self.model,
      self.optimizer,
      self.splits['train'].num_classes,
      self.shards,
    )


def create_model(settings: Mapping[str, Any]) -> models.Embedder:
  """The `models.Embedder` of config.model, to be mapped over devices."""
  options = dict(settings)
  options['dtype'] = np.dtype(options['dtype'])
  return models.create(**options, axis_name=mapping.AXIS)


def _length(config: ConfigDict, inputs: Inputs) -> dict[str, int]:
  return {
    'batch_size': config.data.batch_size,
    'steps_per_epoch': inputs.sampler.steps_per_epoch,
    'epochs': config.epochs,
  }


def _total_steps(config: ConfigDict, inputs: Inputs) -> int:
  return config.epochs * inputs.sampler.steps_per_epoch


def make(
  config: ConfigDict, workdir: pathlib.Path | None, *, fetch: bool = True
) -> Plan:
  """Makes the plan of a run; writes nothing.

  All processes of the run call it.

  Args:
    config: see `default.default_config`.
    workdir: folder of the run; None for one that is only described.
    fetch: whether pretrained weights are fetched from the hub.

  Raises:
    UserError: for a wrong config, workdir, data set or weights, and a disk
      without room for the checkpoints.
  """
  config = checks.validate(config)
  if workdir is not None:
    workdirs.check(workdir, config)
    if config.tensorboard:
      tensorboard.check_tensorboard(workdir)
  splits = load_splits(config.data, config.eval)
  processes.agree(facts.of_run(config, splits))
  if workdir is not None:
    workdirs.check_splits(workdir, splits)
  inputs = Inputs(
    config.data,
    splits['train'],
    seed=config.seed,
    image_size=config.model.image_size,
  )
  checks.check_data(
    config.eval,
    config.loss.memory,
    splits,
    total_steps=_total_steps(config, inputs),
  )
  model = create_model(config.model)
  classes, spread = splits['train'].num_classes, None
  length: dict[str, Any] = _length(config, inputs)
  if config.loss.shard_classes:
    spread = shards.Shards(classes, jax.device_count())
    norm = functools.partial(shards.norm, axis_name=mapping.AXIS)
    length['norm'] = norm
  optimizer = optim.optimizer(config.optim, **length)
  shapes = jax.eval_shape(
    lambda: state_lib.create(config, model, optimizer, classes, spread)
  )
  plan = Plan(
    config, splits, inputs, model, optimizer, shapes, spread, weights=None
  )
  if workdir is not None:
    workdirs.check_room(workdir, plan.stored_shapes, config.checkpoint.keep)
    if workdirs.steps(workdir):
      return plan
  return plan._replace(weights=plan.read_pretrained(fetch=fetch))
