"""What is compiled and measured, on what."""

import dataclasses

from experiments.benchmarks.common import engine

CLASSES = 100


MB = 1e6


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What is compiled and pretended.measured.

  Attributes:
    devices: numbers of them.
    whole: those at which the ViT-S is compiled too.
    images: a device, of the ViT-S.
    few: a device, of the small ViT.
    fake: devices that one is pretended.measured against.
    total: images that they share.
    rounds: of that.
    classes: numbers of them, whose proxies are copied or spread.
    spread: devices over which they are spread.
    dim: d of their embeddings.
    trained: classes, and d, of what is trained on `fake` devices.
  """

  devices: tuple[int, ...] = (1, 2, 4, 8, 16, 32, 64, 128, 256)
  whole: tuple[int, ...] = (1, 8, 256)
  images: int = 180
  few: int = 24
  fake: int = 4
  total: int = 96
  rounds: int = 15
  classes: tuple[int, ...] = (10_000, 1_000_000, 10_000_000)
  spread: int = 8
  dim: int = 512
  trained: tuple[int, int] = (1_000_000, 32)


@dataclasses.dataclass(frozen=True)
class Slice:
  """A slice of TPU v5e and what is assumed of it.

  Attributes:
    chips: n.
    hops: of a ring all-reduce, one way and back, over its longest path.
    peak: bfloat16 FLOP/s of a chip.
    utilization: of it, by the model's arithmetic.
    links: bytes/s that a chip sends: two of its four ports of 400 Gbps.
    hop: seconds.
  """

  chips: int
  hops: int
  peak: float = 197e12
  utilization: float = 0.4
  links: float = 2 * 400e9 / 8
  hop: float = 1e-6


def config_of(backbone, size, images):
  """The config of a step of a backbone on a number of images."""
  config = engine.config_of('cub', 'dino_vits16')
  config.pretrained = None
  config.model.update(backbone=backbone, image_size=size)
  config.data.batch_size = images
  return config


def small_config(sizes, devices):
  """The config of the small ViT on all devices."""
  return config_of('vit_tiny_patch16_32', 32, sizes.few * devices)


def classes_config(sizes, devices, dim, shard_classes):
  """The config of a tiny ViT with embeddings of that size, without HIER."""
  config = config_of('vit_test_patch4', 8, sizes.few * devices)
  config.model.embedding_dim = dim
  config.parallel = 'shard_map'
  config.loss.update(hier_weight=0.0, shard_classes=shard_classes)
  return config


def vits_config(sizes, devices):
  """The config of the ViT-S on all devices."""
  config = config_of('vit_small_patch16_224', 224, sizes.images * devices)
  # The same exchange, and a program of moderate size.
  config.data.micro_batch = 20
  return config
