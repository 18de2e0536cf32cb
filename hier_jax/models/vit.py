"""Vision Transformer (Dosovitskiy et al., 2021) in Flax Linen.

`VARIANTS` is the one table of sizes. The fields that are off by default make
it DeiT's (`distilled`) and DINOv2's (`layer_scale`, `num_registers`).

Parameters map one to one onto timm's: `patch_embed.proj` is `patch_embed`,
`blocks.3.attn.qkv` is `block3/attn/qkv`, `blocks.3.ls1.gamma` is `block3/ls1`;
the others have timm's names.
"""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from hier_jax.errors import UserError

__all__ = ['VARIANTS', 'ViT']

VARIANTS: dict[str, dict[str, Any]] = {
  'test': {'width': 32, 'depth': 2, 'num_heads': 2},
  'tiny': {'width': 192, 'depth': 12, 'num_heads': 3},
  'small': {'width': 384, 'depth': 12, 'num_heads': 6},
  'base': {'width': 768, 'depth': 12, 'num_heads': 12},
  'large': {'width': 1024, 'depth': 24, 'num_heads': 16},
}

_init = nn.initializers.truncated_normal(stddev=0.02)
_Dense = functools.partial(nn.Dense, kernel_init=_init)
_LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-6)


class Attention(nn.Module):
  """Multi-head self-attention, `[b, n, width] -> [b, n, width]`."""

  num_heads: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the tokens after attention and the output projection."""
    b, n, width = x.shape
    qkv = _Dense(3 * width, dtype=self.dtype, name='qkv')(x)
    # Queries of all heads, then keys, then values: timm's order of the rows.
    qkv = qkv.reshape(b, n, 3, self.num_heads, width // self.num_heads)
    y = jax.nn.dot_product_attention(*jnp.moveaxis(qkv, 2, 0))
    return _Dense(width, dtype=self.dtype, name='proj')(y.reshape(b, n, width))


class Mlp(nn.Module):
  """Two dense layers around an exact GELU, `[b, n, width]` in and out."""

  ratio: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the tokens after both layers."""
    width = x.shape[-1]
    y = _Dense(self.ratio * width, dtype=self.dtype, name='fc1')(x)
    y = nn.gelu(y, approximate=False)
    return _Dense(width, dtype=self.dtype, name='fc2')(y)


class Block(nn.Module):
  """Pre-norm transformer block, `[b, n, width] -> [b, n, width]`.

  `layer_scale` is the initial value of the scales of both residual branches,
  None for none.
  """

  num_heads: int
  mlp_ratio: int
  layer_scale: float | None
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the tokens after attention and MLP."""
    y = _LayerNorm(dtype=self.dtype, name='norm1')(x)
    y = Attention(self.num_heads, self.dtype, name='attn')(y)
    x = x + self._scaled('ls1', y)
    y = _LayerNorm(dtype=self.dtype, name='norm2')(x)
    y = Mlp(self.mlp_ratio, self.dtype, name='mlp')(y)
    return x + self._scaled('ls2', y)

  def _scaled(self, name, y):
    if self.layer_scale is None:
      return y
    init = nn.initializers.constant(self.layer_scale)
    scale = self.param(name, init, (y.shape[-1],))
    return y * scale.astype(y.dtype)[None, None]


class ViT(nn.Module):
  """Images to features: the class token after the final layer norm.

  Attributes:
    patch_size: side of a patch in pixels.
    width: of the tokens and the features.
    depth: number of blocks.
    num_heads: of each attention; divides `width`.
    image_size: side of the images whose grid of patches the position
      embeddings are made for; for another grid they are resized.
    mlp_ratio: hidden width of the MLPs over `width`.
    distilled: whether there is a distillation token after the class token.
    deit_token: the features of a distilled model, 'cls', 'mean' (of class and
      distillation token) or 'official': 'cls' in training, 'mean' otherwise.
    num_registers: register tokens between class token and patches.
    layer_scale: initial value of the residual branches' scales, None for none.
    dtype: of the computation; parameters and the returned features are float32.
  """

  patch_size: int
  width: int
  depth: int
  num_heads: int
  image_size: int = 224
  mlp_ratio: int = 4
  distilled: bool = False
  deit_token: str = 'cls'
  num_registers: int = 0
  layer_scale: float | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    images: jax.Array,
    *,
    train: bool,
    return_intermediates: bool = False,
  ) -> jax.Array | tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the features of a batch.

    Args:
      images: `[b, H, W, 3]` float; H and W are multiples of the patch size.
      train: matters only to `deit_token='official'`.
      return_intermediates: whether to return the tokens as well.

    Returns:
      features `[b, width]` float32, or, with `return_intermediates`, (features,
      tokens): a dictionary of the tokens `[b, n, width]` that enter the first
      block ('embed'), leave each block ('block0', ...) and leave the final
      layer norm ('norm', float32). Their order is class, distillation,
      registers, patches row by row.

    Raises:
      UserError: the images do not divide into patches.
    """
    x = self._embed(images)
    tokens = {'embed': x}
    for i in range(self.depth):
      name = f'block{i}'
      x = tokens[name] = Block(
        self.num_heads,
        self.mlp_ratio,
        self.layer_scale,
        self.dtype,
        name=name,
      )(x)
    x = tokens['norm'] = _LayerNorm(dtype=jnp.float32, name='norm')(x)
    features = self._pool(x, train)
    return (features, tokens) if return_intermediates else features

  def _embed(self, images):
    grid = self._grid(*images.shape[1:3])
    patches = nn.Conv(
      self.width,
      (self.patch_size, self.patch_size),
      strides=self.patch_size,
      padding='VALID',
      kernel_init=_init,
      dtype=self.dtype,
      name='patch_embed',
    )(images)
    b = patches.shape[0]
    first = self._tokens('cls_token', b, 1)
    if self.distilled:
      first = jnp.concatenate([first, self._tokens('dist_token', b, 1)], 1)
    x = jnp.concatenate([first, patches.reshape(b, -1, self.width)], 1)
    x = x + self._pos_embed(grid).astype(self.dtype)
    if self.num_registers:
      # After the position embeddings, of which registers have none.
      registers = self._tokens('reg_token', b, self.num_registers)
      prefix = self._prefix
      x = jnp.concatenate([x[:, :prefix], registers, x[:, prefix:]], 1)
    return x

  @property
  def _prefix(self) -> int:
    """Number of tokens before the patches that have position embeddings."""
    return 1 + self.distilled

  def _tokens(self, name, batch, count):
    token = self.param(name, _init, (1, count, self.width))
    return jnp.tile(token.astype(self.dtype), (batch, 1, 1))

  def _pos_embed(self, grid):
    reference = self._grid(self.image_size, self.image_size)
    shape = (1, self._prefix + reference[0] * reference[1], self.width)
    embed = self.param('pos_embed', _init, shape)
    if grid == reference:
      return embed
    first, patches = jnp.split(embed, [self._prefix], axis=1)
    # Without antialiasing, as DeiT and DINO resize theirs.
    patches = jax.image.resize(
      patches.reshape(1, *reference, self.width),
      (1, *grid, self.width),
      jax.image.ResizeMethod.CUBIC_PYTORCH,
      antialias=False,
    )
    return jnp.concatenate([first, patches.reshape(1, -1, self.width)], 1)

  def _grid(self, height, width):
    p = self.patch_size
    if height % p or width % p or not height or not width:
      raise UserError(
        f'images of {height}x{width} pixels do not divide into patches of '
        f'{p}x{p}: make both sides multiples of {p}, or choose a backbone '
        'with another patch size'
      )
    return height // p, width // p

  def _pool(self, x, train):
    modes = {'cls': False, 'mean': True, 'official': not train}
    if self.deit_token not in modes:
      raise UserError(
        f'deit_token is {self.deit_token!r}; choose one of {list(modes)}'
      )
    if self.distilled and modes[self.deit_token]:
      return x[:, : self._prefix].mean(axis=1)
    return x[:, 0]
