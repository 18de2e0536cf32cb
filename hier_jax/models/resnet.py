"""ResNet (He et al., 2016) in Flax Linen, thin ones for small images included.

`VARIANTS` is the table of all sizes. The thin variants replace ImageNet's 7x7
convolution and max pooling by a patchify stem, a convolution of patches that do
not overlap, and halve the resolution already in the first stage: on a CPU,
convolutions of few channels over many pixels cost the most. A name that ends in
`blur` is the same network with patches that overlap, and anti-aliased.

Parameters correspond one to one to torchvision's and timm's:
`layer1.0.conv1.weight` is `layer1_0/conv1/kernel` and `layer1.0.downsample.1`
is `layer1_0/downsample_bn`.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float

from hier_jax import numerics
from hier_jax.errors import UserError
from hier_jax.models.pixels import check_normalized

__all__ = ['VARIANTS', 'BasicBlock', 'Bottleneck', 'ResNet']


class BasicBlock(nn.Module):
  """Two 3x3 convolutions and a shortcut, `[b, h, w, c] -> [b, h', w', width]`.

  h' is `ceil(h / stride)`. `conv` and `norm` make the layers.
  """

  width: int
  stride: int
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x: Float[Array, 'b H W C']) -> Float[Array, 'b h w c']:
    """Returns the block's output after its last relu."""
    y = self.conv(self.width, 3, self.stride, name='conv1')(x)
    y = nn.relu(self.norm(name='bn1')(y))
    y = self.norm(name='bn2')(self.conv(self.width, 3, name='conv2')(y))
    return nn.relu(y + _shortcut(self, x, self.width))


class Bottleneck(nn.Module):
  """1x1, 3x3 and 1x1 convolutions and a shortcut; `4 * width` channels out.

  The stride is on the 3x3 convolution ("v1.5"), where torchvision has it.
  """

  width: int
  stride: int
  conv: Callable[..., nn.Module]
  norm: Callable[..., nn.Module]

  @nn.compact
  def __call__(self, x: Float[Array, 'b H W C']) -> Float[Array, 'b h w c']:
    """Returns the block's output after its last relu."""
    y = self.conv(self.width, 1, name='conv1')(x)
    y = nn.relu(self.norm(name='bn1')(y))
    y = self.conv(self.width, 3, self.stride, name='conv2')(y)
    y = nn.relu(self.norm(name='bn2')(y))
    y = self.norm(name='bn3')(self.conv(4 * self.width, 1, name='conv3')(y))
    return nn.relu(y + _shortcut(self, x, 4 * self.width))


class ResNet(nn.Module):
  """Images to features: the last stage's map, pooled over its pixels or flat.

  Attributes:
    block: `BasicBlock` or `Bottleneck`.
    stages: (width, number of blocks, stride of the first block) of each stage.
    stem_width: channels of the stem.
    stem_patch: side of the stem's patches; None for ImageNet's stem, a 7x7
      convolution and a 3x3 max pooling with strides of 2.
    stem_size: side of the stem's kernel, odd, where its patches overlap; None
      where they do not.
    blur: whether a block with a stride sees its input smoothed, so that its
      features change less when an image moves by a pixel. "Making Convolutional
      Networks Shift-Invariant Again" (ICML 2019) smooths after a convolution
      without stride instead, which costs four times as much.
    pool: 'avg', 'max', or 'avg_max' for their sum; 'flatten' keeps the map as
      it is, pixel by pixel, for images in which the place of a part tells
      classes apart. A head on it takes images of one size only.
    frozen_stats: whether BatchNorm uses its running statistics in training too
      and never updates them; its scale and bias are still trained.
    remat: see `vit.ViT`.
    dtype: dtype of the computation; parameters, running statistics and the
      returned features are float32.
    axis_name: mapped axis over which BatchNorm gathers its statistics, so that
      they are the whole batch's; None for one device.
    made_as: the name given to `create_backbone`, if that made it.
  """

  block: type[BasicBlock] | type[Bottleneck]
  stages: tuple[tuple[int, int, int], ...]
  stem_width: int
  stem_patch: int | None
  stem_size: int | None = None
  blur: bool = False
  pool: str = 'avg_max'
  frozen_stats: bool = False
  remat: bool = False
  dtype: DTypeLike = jnp.float32
  axis_name: str | None = None
  made_as: str | None = None

  @nn.compact
  def __call__(
    self,
    images: Float[Array, 'b H W 3'],
    *,
    train: bool,
    return_intermediates: bool = False,
  ) -> (
    Float[Array, 'b F']
    | tuple[Float[Array, 'b F'], dict[str, Float[Array, 'b _h _w _c']]]
  ):
    """Computes the features of a batch.

    Args:
      images: `[b, H, W, 3]` float, of any size.
      train: whether BatchNorm uses the statistics of the batch and updates the
        running ones (collection `batch_stats`, which the caller makes mutable)
        or uses the running ones, as it does with `frozen_stats` in any case.
      return_intermediates: whether to return the feature maps as well.

    Returns:
      features `[b, F]` float32, F the channels of the last stage, times its
      pixels for 'flatten', or, with `return_intermediates`, (features, maps): a
      dictionary of the maps `[b, h, w, c]` that leave the stem ('stem') and
      each block ('layer1_0', ...).

    Raises:
      UserError: there is no such `pool`; `stem_size` is even, or given for
        ImageNet's stem.
      ValueError: the images are not float, as uint8 pixels are not.
    """
    check_normalized(images)
    conv = functools.partial(
      _conv,
      dtype=self.dtype,
      precision=numerics.product_precision(self.dtype),
    )
    norm = functools.partial(
      nn.BatchNorm,
      use_running_average=self.frozen_stats or not train,
      momentum=0.9,
      epsilon=1e-5,
      dtype=self.dtype,
      axis_name=self.axis_name,
    )
    block = nn.remat(self.block) if self.remat else self.block
    x = self._stem(images.astype(self.dtype), conv, norm)
    maps = {'stem': x}
    for i, (width, depth, stride) in enumerate(self.stages, start=1):
      for j in range(depth):
        name = f'layer{i}_{j}'
        block_stride = stride if j == 0 else 1
        if self.blur and block_stride > 1:
          x = _blurred(x)
        x = maps[name] = block(width, block_stride, conv, norm, name=name)(x)
    features = self._pool(x.astype(jnp.float32))
    return (features, maps) if return_intermediates else features

  def _stem(
    self,
    images: jax.Array,
    conv: Callable[..., nn.Module],
    norm: Callable[..., nn.Module],
  ) -> jax.Array:
    patch, size = self.stem_patch, self.stem_size
    if size is not None and (size % 2 == 0 or not patch):
      raise UserError(
        f'stem_size is {size} and stem_patch {patch}; expected an odd size, so'
        ' that the kernel has a middle, and patches, since the stem without'
        ' them has a 7x7 kernel; or None'
      )
    size, stride = (size or patch, patch) if patch else (7, 2)
    x = conv(self.stem_width, size, stride, name='conv1')(images)
    x = nn.relu(norm(name='bn1')(x))
    if not patch:
      x = self._max_pool(x)
    return x

  def _max_pool(self, x: jax.Array) -> jax.Array:
    return nn.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))

  def _pool(self, x: jax.Array) -> jax.Array:
    if self.pool not in _POOLS:
      raise UserError(f'pool is {self.pool!r}; choose one of {tuple(_POOLS)}')
    return _POOLS[self.pool](x)


def _conv(features: int, size: int, stride: int = 1, **kwargs: Any) -> nn.Conv:
  # PyTorch pads both sides alike; 'SAME' would put more on the far side at a
  # stride of 2 and shift every pretrained feature. Patches are not padded.
  padding = (size - 1) // 2 if size % 2 else 0
  return nn.Conv(
    features,
    (size, size),
    strides=stride,
    padding=padding,
    use_bias=False,
    kernel_init=nn.initializers.variance_scaling(2.0, 'fan_out', 'normal'),
    **kwargs,
  )


def _shortcut(
  block: BasicBlock | Bottleneck, x: jax.Array, features: int
) -> jax.Array:
  if block.stride == 1 and x.shape[-1] == features:
    return x
  x = block.conv(features, 1, block.stride, name='downsample_conv')(x)
  return block.norm(name='downsample_bn')(x)


def _blurred(x: jax.Array) -> jax.Array:
  """A map smoothed by [1 2 1] / 4 along both sides, its edges repeated."""
  for axis in (1, 2):
    side = x.shape[axis]
    before = lax.slice_in_dim(x, 0, 1, axis=axis)
    after = lax.slice_in_dim(x, side - 1, side, axis=axis)
    padded = jnp.concatenate([before, x, after], axis)
    left = lax.slice_in_dim(padded, 0, side, axis=axis)
    right = lax.slice_in_dim(padded, 2, side + 2, axis=axis)
    x = (left + 2 * x + right) / 4
  return x


def _average(x: jax.Array) -> jax.Array:
  return x.mean(axis=(1, 2))


def _maximum(x: jax.Array) -> jax.Array:
  return numerics.largest(x.reshape(x.shape[0], -1, x.shape[-1]), axis=1)


def _flat(x: jax.Array) -> jax.Array:
  return x.reshape(x.shape[0], -1)


_POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
  'avg_max': lambda x: _average(x) + _maximum(x),
  'avg': _average,
  'max': _maximum,
  'flatten': _flat,
}

_THIN: dict[str, Any] = {
  'block': BasicBlock,
  'stages': ((64, 1, 2), (128, 2, 2)),
  'stem_width': 32,
  'stem_patch': 2,
}
VARIANTS: dict[str, dict[str, Any]] = {
  'resnet_test': {
    'block': BasicBlock,
    'stages': ((8, 1, 1), (16, 1, 2)),
    'stem_width': 8,
    'stem_patch': 4,
  },
  'resnet_thin': _THIN,
  'resnet_thin_blur': {**_THIN, 'stem_size': 5, 'blur': True},
  'resnet_thin_wide': {
    'block': BasicBlock,
    'stages': ((96, 1, 2), (192, 2, 2)),
    'stem_width': 48,
    'stem_patch': 2,
  },
  'resnet50': {
    'block': Bottleneck,
    'stages': ((64, 3, 1), (128, 4, 2), (256, 6, 2), (512, 3, 2)),
    'stem_width': 64,
    'stem_patch': None,
  },
}
