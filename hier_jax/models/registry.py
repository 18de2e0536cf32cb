"""Backbones by name."""

import difflib
import re

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from hier_jax.errors import UserError
from hier_jax.models import resnet, vit

__all__ = ['create_backbone']


def create_backbone(
  name: str,
  *,
  image_size: int,
  dtype: DTypeLike = jnp.float32,
  axis_name: str | None = None,
) -> nn.Module:
  """Makes the backbone of a name.

  Args:
    name: a row of `resnet.VARIANTS`, or `vit_<row of vit.VARIANTS>_patch<P>`
      with patches of P x P pixels: 'resnet_thin', 'vit_small_patch16'.
    image_size: side of the training images in pixels, for which a ViT's
      position embeddings are made.
    dtype: of the computation; parameters and features are float32.
    axis_name: mapped axis of the devices that share a batch, over which
      BatchNorm gathers its statistics; None for one device.

  Returns:
    A module called as `(images [b, H, W, 3], *, train) -> [b, F]` float32.

  Raises:
    UserError: there is no such backbone.
  """
  if name in resnet.VARIANTS:
    row = resnet.VARIANTS[name]
    return resnet.ResNet(**row, dtype=dtype, axis_name=axis_name)
  match = re.fullmatch(r'vit_([a-z]+)_patch([1-9]\d*)', name)
  if match and match[1] in vit.VARIANTS:
    return vit.ViT(
      **vit.VARIANTS[match[1]],
      patch_size=int(match[2]),
      image_size=image_size,
      dtype=dtype,
    )
  known = [*resnet.VARIANTS, *(f'vit_{v}_patch16' for v in vit.VARIANTS)]
  close = difflib.get_close_matches(name, known) or known
  raise UserError(
    f'there is no backbone {name!r}; did you mean one of {", ".join(close)}? '
    'The number after "patch" is free.'
  )
