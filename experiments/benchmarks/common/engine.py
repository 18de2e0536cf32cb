"""The training step of a config, as `hier-jax train` makes it."""

import functools

import jax
import jax.numpy as jnp

from hier_jax.training.config import default as config_lib
from hier_jax.training.config import files
from hier_jax.training.distributed import mapping
from hier_jax.training.run import inputs, plan
from hier_jax.training.step import objective, optim, shards
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib


def config_of(name, *preset):
  """The config that `hier-jax train --config NAME[:PRESET]` trains.

  Args:
    name: of the config.
    *preset: of its `get_config`.
  """
  return config_lib.resolve(files.load(':'.join([name, *preset])))


def loss(config, key, z, labels, params, *, axis_name=None):
  """`objective.loss` as the training step of a config calls it."""
  return objective.loss(
    key,
    z,
    labels,
    params,
    settings=config.loss,
    model=config.model,
    images_per_class=config.data.images_per_class,
    axis_name=axis_name,
  )


class Engine:
  """What a run of a config steps with, without its data.

  Args:
    config: the whole config.
    num_classes: of the training split.
    devices: over which its class proxies are spread, where the config says so.

  Attributes:
    model: that is trained.
    step: per-device function of state and batch.
    state: shapes and types of the state.
    batch: shapes and types of this process's batch.
    specs: of the state, for `mapping.map_step`; None where devices share all.
  """

  def __init__(self, config, num_classes=100, devices=1):
    self.config, self._num_classes = config, num_classes
    self._shards = norm = None
    if config.loss.shard_classes:
      self._shards = shards.Shards(num_classes, devices)
      norm = functools.partial(shards.norm, axis_name=mapping.AXIS)
    self.model = plan.create_model(config.model)
    # Any length of an epoch makes the same program.
    self._optimizer = optim.optimizer(
      config.optim,
      batch_size=config.data.batch_size,
      steps_per_epoch=30,
      epochs=config.epochs,
      norm=norm,
    )
    self.step = step_lib.make_train_step(
      config,
      self.model,
      self._optimizer,
      self._shards and self._shards.num_classes,
    )
    self.state = jax.eval_shape(self.init)
    self.specs = self._shards and self._shards.specs(self.state)
    self.batch = inputs.batch_shapes(
      config.data.batch_size, config.model.image_size
    )

  def init(self):
    """The state at step 0."""
    return state_lib.create(
      self.config,
      self.model,
      self._optimizer,
      self._num_classes,
      self._shards,
    )

  def draw(self, seed=0):
    """A batch of random images, with images per class as the config says."""
    images = self.batch['image']
    pixels = jax.random.bits(jax.random.key(seed), images.shape, images.dtype)
    per_class = self.config.data.images_per_class or 2
    labels = jnp.arange(len(pixels), dtype=jnp.int32) // per_class
    return {'image': pixels, 'label': labels % self._num_classes}

  def compile(self, **options):
    """The step, compiled; see `mapping.compile_step` for the options."""
    options = {'by': self.config.parallel, 'specs': self.specs} | options
    return mapping.compile_step(self.step, self.state, self.batch, **options)


def model_flops(engine):
  """Operations of a training step of a ViT, two a multiply-add, by formula.

  An image's n tokens of width w cost a block 2n (4w^2 + 2wm) for its dense
  layers, m the width of its MLP, and 4 n^2 w for attention; its patches cost
  6 n p^2 w, the head 2wd. A backward pass costs twice the forward's, but for
  layers that are frozen and have none below them. Elementwise work, the losses
  and what is computed anew to save memory do not count.
  """
  config, vit = engine.config, engine.model.backbone
  patches = (config.model.image_size // vit.patch_size) ** 2
  tokens = patches + 1 + vit.distilled + vit.num_registers
  w, m = vit.width, vit.mlp_width or 4 * vit.width
  dense = 2 * tokens * (4 * w * w + (2 + vit.swiglu) * w * m)
  blocks = vit.depth * (dense + 4 * tokens**2 * w)
  embed = 6 * patches * vit.patch_size**2 * w
  head = 2 * w * config.model.embedding_dim
  frozen = any('patch_embed' in pattern for pattern in config.optim.freeze)
  # No gradient by the pixels is needed either.
  image = 3 * (blocks + head) + (1 if frozen else 2) * embed
  return config.data.batch_size * image
