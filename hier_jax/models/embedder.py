"""Images to embeddings: pixels, backbone, head."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from hier_jax import layers
from hier_jax.models import registry

__all__ = ['Embedder', 'create']


class Embedder(nn.Module):
  """A backbone with a head, on pixels as they are stored.

  Attributes:
    backbone: maps float images `[b, H, W, 3]` to features `[b, F]`.
    head: maps features to embeddings `[b, d]`.
    mean: per-channel mean of the pixels in [0, 1].
    std: per-channel standard deviation.
  """

  backbone: nn.Module
  head: nn.Module
  mean: Sequence[float] = (0.5, 0.5, 0.5)
  std: Sequence[float] = (0.5, 0.5, 0.5)

  def __call__(self, images, *, train=False):
    """uint8 `[b, H, W, 3]` to float32 embeddings `[b, d]`."""
    mean = jnp.asarray(self.mean, jnp.float32)
    std = jnp.asarray(self.std, jnp.float32)
    shape = (1,) * (images.ndim - 1) + (3,)
    scaled = images.astype(jnp.float32) / 255 - mean.reshape(shape)
    features = self.backbone(scaled / std.reshape(shape), train=train)
    return self.head(features)


def create(
  backbone,
  *,
  image_size,
  embedding_dim=128,
  c=0.1,
  clip_radius=2.3,
  mean=(0.5, 0.5, 0.5),
  std=(0.5, 0.5, 0.5),
  dtype=jnp.float32,
  axis_name=None,
):
  """An `Embedder` over a named backbone.

  Args:
    backbone: a name that `registry.create_backbone` knows.
    image_size: side of the images, pixels.
    embedding_dim: d.
    c: curvature of the head; 0 for the sphere.
    clip_radius: clip of the head.
    mean: pixel mean, of [0, 1].
    std: pixel standard deviation.
    dtype: what the backbone computes in; its parameters are float32.
    axis_name: mapped axis over which batch statistics are taken.

  Raises:
    UserError: for an unknown backbone.
  """
  return Embedder(
    backbone=registry.create_backbone(
      backbone, image_size=image_size, dtype=dtype, axis_name=axis_name
    ),
    head=layers.BallHead(embedding_dim, c=c, clip_radius=clip_radius),
    mean=tuple(mean),
    std=tuple(std),
  )
