"""Images to embeddings: pixels, backbone, head."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike
from jaxtyping import Array, Float32, UInt8

from hier_jax import layers, poincare
from hier_jax.errors import UserError
from hier_jax.models import pixels, registry

__all__ = ['Embedder', 'create']


class Embedder(nn.Module):
  """A backbone with a head, applied to pixels as they are stored.

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

  def __call__(
    self,
    images: UInt8[Array, 'b H W 3'],
    *,
    train: bool = False,
    **options: Any,
  ) -> Float32[Array, 'b d']:
    """uint8 `[b, H, W, 3]` to float32 embeddings `[b, d]`.

    Args:
      images: pixels as they are stored.
      train: whether the backbone computes as in training, see its call.
      **options: further arguments of the backbone's call.

    Raises:
      ValueError: for images of another type or rank.
    """
    pixels.check_stored(images)
    mean = jnp.asarray(self.mean, jnp.float32)
    std = jnp.asarray(self.std, jnp.float32)
    shape = (1,) * (images.ndim - 1) + (3,)
    scaled = images.astype(jnp.float32) / 255 - mean.reshape(shape)
    features = self.backbone(
      scaled / std.reshape(shape), train=train, **options
    )
    return self.head(features)


def create(
  backbone: str,
  *,
  image_size: int,
  embedding_dim: int = 128,
  c: float | None = 0.1,
  clip_radius: float | None = poincare.CLIP_RADIUS,
  last_norm: bool = True,
  radial_scale: float | None = None,
  mean: Sequence[float] | None = None,
  std: Sequence[float] | None = None,
  pool: str | None = None,
  depth: int | None = None,
  deit_token: str | None = None,
  drop_path: float | None = None,
  frozen_stats: bool | None = None,
  remat: bool | None = None,
  scan_blocks: bool | None = None,
  token_multiple: int | None = None,
  dtype: DTypeLike = jnp.float32,
  axis_name: str | None = None,
) -> Embedder:
  """An `Embedder` over a named backbone.

  Args:
    backbone: name of the backbone, one that `create_backbone` knows.
    image_size: side of the training images in pixels.
    embedding_dim: size d of the embeddings.
    c: curvature of the head; None for the unit sphere, 0 for Euclidean space.
    clip_radius: longest tangent vector of the head, see `layers.BallHead`; None
      for no clip.
    last_norm: whether the head begins with a LayerNorm.
    radial_scale: first length of the head's tangent vectors, see
      `layers.BallHead`; None for the paper's.
    mean: per-channel mean of the pixels in [0, 1]; None for what the backbone
      expects.
    std: per-channel standard deviation of the pixels in [0, 1]; None for what
      the backbone expects.
    pool: see `create_backbone`.
    depth: see `create_backbone`.
    deit_token: see `create_backbone`.
    drop_path: see `create_backbone`.
    frozen_stats: see `create_backbone`.
    remat: see `create_backbone`.
    scan_blocks: see `create_backbone`.
    token_multiple: see `create_backbone`.
    dtype: dtype that the backbone computes in; its parameters are float32.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    `Embedder`, called as `(uint8 images [b, H, W, 3]) -> [b, d]` float32.

  Raises:
    UserError: for an unknown backbone or option, and for impossible pixel
      statistics.

  Example:
    >>> import jax
    >>> from hier_jax import models
    >>> embedder = models.create('resnet_test', image_size=16, embedding_dim=8)
    >>> images = jax.numpy.zeros((2, 16, 16, 3), 'uint8')
    >>> z, _ = embedder.init_with_output(jax.random.key(0), images)
    >>> z.shape
    (2, 8)
  """
  made_for = registry.spec(backbone)
  mean = tuple(made_for.mean if mean is None else mean)
  std = tuple(made_for.std if std is None else std)
  if not (len(mean) == len(std) == 3 and min(std) > 0):
    raise UserError(
      f'mean is {mean} and std {std}: each must be three numbers, one a'
      ' channel, and those of std above 0'
    )
  return Embedder(
    backbone=registry.create_backbone(
      backbone,
      image_size=image_size,
      dtype=dtype,
      axis_name=axis_name,
      pool=pool,
      depth=depth,
      deit_token=deit_token,
      drop_path=drop_path,
      frozen_stats=frozen_stats,
      remat=remat,
      scan_blocks=scan_blocks,
      token_multiple=token_multiple,
    ),
    head=layers.BallHead(
      embedding_dim,
      c=c,
      clip_radius=clip_radius,
      last_norm=last_norm,
      radial_scale=radial_scale,
    ),
    mean=mean,
    std=std,
  )
