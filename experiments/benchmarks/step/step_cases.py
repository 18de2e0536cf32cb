"""The step that is measured, its sizes, and the cache of its processes."""

import dataclasses
import os

import jax

from experiments.benchmarks.common import engine


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What is measured.

  Attributes:
    backbone: a ViT.
    image_size: pixels.
    images: of a batch.
    proxies: hierarchical ones.
    micro_batch: images that are embedded at a time; 0 for all.
    steps: rounds of the two steps, with HIER and without.
    together: steps of a round, launched one after the other as in training.
    rounds: of the loss alone.
    starts: of a run with each kind of cache.
  """

  backbone: str = 'vit_small_patch16_224'
  image_size: int = 224
  images: int = 180
  proxies: int = 512
  micro_batch: int = 20
  steps: int = 3
  together: int = 1
  rounds: int = 60
  starts: int = 3


def on_cpu():
  """Whether JAX runs on the CPU."""
  return jax.default_backend() == 'cpu'


def engine_of(sizes, hier_weight=0.5, **model):
  """The step of these sizes; `model` is put into config.model."""
  config = engine.config_of('cub', 'dino_vits16')
  config.pretrained = None
  config.model.update(
    backbone=sizes.backbone,
    image_size=sizes.image_size,
    dtype='float32' if on_cpu() else 'bfloat16',
    **model,
  )
  config.data.batch_size = sizes.images
  config.data.micro_batch = sizes.micro_batch or None
  config.loss.num_proxies = sizes.proxies
  config.loss.hier_weight = hier_weight
  return engine.Engine(config)


def in_words(sizes):
  """The step of these sizes, for a caption."""
  config = engine_of(sizes).config
  parts = f', {sizes.micro_batch} at a time' if sizes.micro_batch else ''
  return (
    f'`{sizes.backbone}`, {sizes.images} images of {sizes.image_size} px'
    f'{parts}, {config.model.dtype}; P = {sizes.proxies}, D ='
    f' {config.model.embedding_dim}'
  )


def cached_in(folder):
  """The environment of a process that keeps its programs in a folder."""
  kept = {k: v for k, v in os.environ.items() if not k.startswith('JAX_')}
  return kept | {'XDG_CACHE_HOME': str(folder)}
