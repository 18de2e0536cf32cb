"""Images to embeddings: pixels, backbone, head."""

from collections.abc import Sequence

import flax.linen as nn
import jax.numpy as jnp

from hier_jax import layers, poincare
from hier_jax.errors import UserError
from hier_jax.models import pixels, registry

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

  def __call__(self, images, *, train=False, **options):
    """uint8 `[b, H, W, 3]` to float32 embeddings `[b, d]`.

    Args:
      images: pixels as they are stored.
      train: of the backbone.
      **options: of the backbone's call.

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
  backbone,
  *,
  image_size,
  embedding_dim=128,
  c=0.1,
  clip_radius=poincare.CLIP_RADIUS,
  last_norm=True,
  radial_scale=None,
  mean=None,
  std=None,
  pool=None,
  depth=None,
  deit_token=None,
  drop_path=None,
  frozen_stats=None,
  remat=None,
  token_multiple=None,
  dtype=jnp.float32,
  axis_name=None,
):
  """An `Embedder` over a named backbone.

  Args:
    backbone: a name that `create_backbone` knows.
    image_size: side of the images, pixels.
    embedding_dim: d.
    c: curvature of the head; None for the unit sphere, 0 for Euclidean space.
    clip_radius: of the head, `layers.BallHead`.
    last_norm: of the head.
    radial_scale: of the head.
    mean: pixel mean, of [0, 1]; None for what the backbone expects.
    std: pixel standard deviation, likewise.
    pool: see `create_backbone`, as for all up to `token_multiple`.
    depth: see `create_backbone`.
    deit_token: see `create_backbone`.
    drop_path: see `create_backbone`.
    frozen_stats: see `create_backbone`.
    remat: see `create_backbone`.
    token_multiple: see `create_backbone`.
    dtype: what the backbone computes in; its parameters are float32.
    axis_name: mapped axis over whose devices the batch is spread.

  Raises:
    UserError: for an unknown backbone or option, and pixel statistics that
      cannot be.
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
