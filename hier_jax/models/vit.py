"""Vision Transformer (Dosovitskiy et al., 2021) in Flax Linen.

`VARIANTS` is the table of all sizes. Fields that are off by default turn it
into DeiT (`distilled`) or DINOv2 (`layer_scale`, `num_registers`, `swiglu`).

Parameters correspond one to one to timm's: `patch_embed.proj` is `patch_embed`,
`blocks.3.attn.qkv` is `block3/attn/qkv`, `blocks.3.ls1.gamma` is `block3/ls1`;
the others have timm's names.
"""

from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from hier_jax import numerics
from hier_jax.errors import UserError
from hier_jax.models.pixels import check_normalized
from hier_jax.models.transformer import Block, LayerNorm, kernel_init

__all__ = ['VARIANTS', 'ViT', 'resize_pos_embed']

VARIANTS: dict[str, dict[str, Any]] = {
  'test': {'width': 32, 'depth': 2, 'num_heads': 2},
  'tiny': {'width': 192, 'depth': 12, 'num_heads': 3},
  'small': {'width': 384, 'depth': 12, 'num_heads': 6},
  'base': {'width': 768, 'depth': 12, 'num_heads': 12},
  'large': {'width': 1024, 'depth': 24, 'num_heads': 16},
  'giant': {
    'width': 1536,
    'depth': 40,
    'num_heads': 24,
    'mlp_width': 4096,
    'swiglu': True,
  },
}


class ViT(nn.Module):
  """Images to features: the tokens after the final layer norm, pooled.

  Attributes:
    patch_size: side of a patch in pixels.
    width: width of the tokens.
    depth: number of blocks.
    num_heads: number of heads of each attention; divides `width`.
    image_size: side of the images whose grid of patches the position embeddings
      fit; for another grid they are resized.
    mlp_width: hidden width of the MLPs; None for four times `width`.
    swiglu: whether the MLPs are gated by a SiLU (Shazeer, arXiv 2002.05202).
    distilled: whether there is a distillation token after the class token.
    deit_token: which token of a distilled model gives the features: 'cls';
      'mean', the mean of class and distillation token; or 'official', 'cls' in
      training and 'mean' otherwise, as HIER's authors do.
    num_registers: number of register tokens (Darcet et al., arXiv 2309.16588).
    layer_scale: initial value of the residual branches' scales, None for none.
    pool: what the features are: 'token', the class token; 'mean', the mean of
      the patch tokens; 'token_mean', both, one after the other.
    drop_path: probability that the last block leaves out a residual branch for
      an image in training; it grows linearly with depth, from 0 (Huang et al.,
      arXiv 1603.09382). Training then needs an rng 'drop_path', the same on all
      devices.
    remat: whether the backward pass recomputes each block, which costs a
      forward pass and saves the memory of everything inside the blocks. On a
      CPU it saves nothing, since XLA drops the barrier that delays the
      recomputation until the backward pass.
    scan_blocks: whether the blocks are one loop on the device, so that one of
      them is compiled and not all; parameters, their names and results are the
      same. The loop copies the blocks' parameters into one array each.
    token_multiple: pads an image's tokens to a multiple of this number with
      tokens that no other attends to. None chooses what is fast: 8 on a GPU,
      whose kernels need even numbers and aligned rows, and 1 elsewhere.
    dtype: dtype of the computation; parameters and the returned features are
      float32.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.
    made_as: the name given to `create_backbone`, if that made it.
  """

  patch_size: int
  width: int
  depth: int
  num_heads: int
  image_size: int = 224
  mlp_width: int | None = None
  swiglu: bool = False
  distilled: bool = False
  deit_token: str = 'cls'
  num_registers: int = 0
  layer_scale: float | None = None
  pool: str = 'token'
  drop_path: float = 0.0
  remat: bool = False
  scan_blocks: bool = False
  token_multiple: int | None = None
  dtype: DTypeLike = jnp.float32
  axis_name: str | None = None
  made_as: str | None = None

  @nn.compact
  def __call__(
    self,
    images: Float[Array, 'b H W 3'],
    *,
    train: bool,
    first: Integer[Array, ''] | int | None = None,
    return_intermediates: bool = False,
  ) -> (
    Float[Array, 'b F']
    | tuple[Float[Array, 'b F'], dict[str, Float[Array, 'b _n d']]]
  ):
    """Computes the features of a batch.

    Args:
      images: `[b, H, W, 3]` float; H and W are multiples of the patch size.
      train: whether this is a training step, which matters to `drop_path` and
        `deit_token='official'`.
      first: place of the first of the images in a batch of all devices, which
        decides what `drop_path` draws for them; None where each device has as
        many of them and all at once.
      return_intermediates: whether to return the tokens as well.

    Returns:
      features `[b, F]` float32, F = width, or 2 width for 'token_mean'; with
      `return_intermediates`, (features, tokens): a dictionary of the tokens
      `[b, n, width]` that enter the first block ('embed'), leave each block
      ('block0', ...) and leave the final layer norm ('norm', float32).
      `split_tokens` takes each of them apart.

    Raises:
      UserError: the images do not divide into patches, or an attribute has no
        such value.
      ValueError: the images are not float, as uint8 pixels are not.
    """
    self._check()
    check_normalized(images)
    x = self._embed(images)
    tokens = {'embed': x}
    count = x.shape[1]
    if missing := -count % self._multiple():
      x = jnp.pad(x, ((0, 0), (0, missing), (0, 0)))
    padded = count if missing else None
    if self.scan_blocks and not self.is_initializing():
      x, each = self._scan(x, first, padded, train, return_intermediates)
    else:
      x, each = self._loop(x, first, padded, train)
    if return_intermediates:
      tokens |= {f'block{i}': t[:, :count] for i, t in enumerate(each)}
    x = x[:, :count]
    norm = LayerNorm(jnp.float32, name='norm')
    x = tokens['norm'] = norm(x.reshape(-1, self.width)).reshape(x.shape)
    features = self._pool(x, train)
    return (features, tokens) if return_intermediates else features

  def _block(self, kind: type[nn.Module], rate: float, **named: Any) -> Any:
    return kind(
      num_heads=self.num_heads,
      mlp_width=self.mlp_width or 4 * self.width,
      swiglu=self.swiglu,
      layer_scale=self.layer_scale,
      drop_path=rate,
      axis_name=self.axis_name,
      dtype=self.dtype,
      **named,
    )

  def _rates(self, train: bool) -> list[float]:
    """The rate of each block at which it leaves out its branches."""
    last = max(self.depth - 1, 1)
    return [self.drop_path * i / last * train for i in range(self.depth)]

  def _loop(
    self, x: jax.Array, first: Any, count: int | None, train: bool
  ) -> tuple[jax.Array, list[jax.Array]]:
    """The tokens after the last block, and after each."""
    # Static: lengths decide shapes.
    kind = nn.remat(Block, static_argnums=(3,)) if self.remat else Block
    each = []
    for i, rate in enumerate(self._rates(train)):
      x = self._block(kind, rate, name=f'block{i}')(x, first, count)
      each.append(x)
    return x, each

  def _scan(
    self, x: jax.Array, first: Any, count: int | None, train: bool, keep: bool
  ) -> tuple[jax.Array, Iterable[jax.Array]]:
    """`_loop` of parameters that exist; the tokens of each block if `keep`."""
    names = [f'block{i}' for i in range(self.depth)]
    params = [self.variables['params'][name] for name in names]
    stack = lambda *leaves: jnp.stack(leaves)
    drops, rates = None, self._rates(train)
    if any(rates):
      drawn = [
        self._block(Block, rate, name=name).drops()
        for name, rate in zip(names, rates, strict=True)
      ]
      drops = jax.tree.map(stack, *drawn)
    block = self._block(Block, 0.0, parent=None)

    def one(
      x: jax.Array, given: tuple[Any, Any]
    ) -> tuple[jax.Array, jax.Array | None]:
      own, drops = given
      x = block.apply({'params': own}, x, first, count, drops)
      return x, x if keep else None

    if self.remat:
      # A loop keeps what is computed anew from what was computed.
      one = jax.checkpoint(one, prevent_cse=False)
    x, each = lax.scan(one, x, (jax.tree.map(stack, *params), drops))
    return x, [] if each is None else each

  def _multiple(self) -> int:
    """What the number of tokens is filled up to a multiple of."""
    if self.token_multiple is not None:
      return self.token_multiple
    return 8 if jax.default_backend() == 'gpu' else 1

  def split_tokens(
    self, tokens: Float[Array, 'b n d']
  ) -> dict[str, Float[Array, 'b _n d']]:
    """Tokens `[b, n, width]` of an intermediate result by their kind.

    Returns:
      'class' `[b, 1, width]`, 'distillation' `[b, 0 or 1, width]`, 'registers'
      `[b, num_registers, width]`, 'patches' `[b, rows * columns, width]`, row
      by row of the image.
    """
    ends = 1, self._prefix, self._prefix + self.num_registers
    parts = jnp.split(tokens, ends, axis=1)
    names = 'class', 'distillation', 'registers', 'patches'
    return dict(zip(names, parts, strict=True))

  def _check(self) -> None:
    for name, allowed in (
      ('deit_token', ('cls', 'mean', 'official')),
      ('pool', ('token', 'mean', 'token_mean')),
    ):
      if getattr(self, name) not in allowed:
        raise UserError(
          f'{name} is {getattr(self, name)!r}; choose one of {allowed}'
        )
    if not 0 <= self.drop_path < 1:
      raise UserError(
        f'drop_path is {self.drop_path}; choose a rate of at least 0 and'
        ' below 1'
      )
    if self.deit_token != 'cls' and not self.distilled:
      raise UserError(
        f'deit_token is {self.deit_token!r}, but this model has no distillation'
        " token: leave it at 'cls' or choose a distilled backbone"
      )

  def _embed(self, images: jax.Array) -> jax.Array:
    grid = self._grid(*images.shape[1:3])
    patches = PatchEmbed(
      self.width, self.patch_size, dtype=self.dtype, name='patch_embed'
    )(images)
    b = patches.shape[0]
    first = [self._tokens('cls_token', b, 1)]
    if self.distilled:
      first.append(self._tokens('dist_token', b, 1))
    x = jnp.concatenate([*first, patches], 1)
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

  def _tokens(self, name: str, batch: int, count: int) -> jax.Array:
    token = self.param(name, kernel_init, (1, count, self.width))
    return jnp.tile(token.astype(self.dtype), (batch, 1, 1))

  def _pos_embed(self, grid: tuple[int, int]) -> jax.Array:
    reference = self._grid(self.image_size, self.image_size)
    shape = (1, self._prefix + reference[0] * reference[1], self.width)
    embed = self.param('pos_embed', kernel_init, shape)
    return resize_pos_embed(embed, self._prefix, reference, grid)

  def _grid(self, height: int, width: int) -> tuple[int, int]:
    p = self.patch_size
    if height % p or width % p or not height or not width:
      raise UserError(
        f'images of {height}x{width} pixels do not divide into patches of '
        f'{p}x{p}: make both sides multiples of {p}, or choose a backbone '
        'with another patch size'
      )
    return height // p, width // p

  def _pool(self, x: jax.Array, train: bool) -> jax.Array:
    token = x[:, 0]
    if self.deit_token == 'mean' or (
      self.deit_token == 'official' and not train
    ):
      token = (token + x[:, 1]) / 2
    if self.pool == 'token':
      return token
    mean = x[:, self._prefix + self.num_registers :].mean(axis=1)
    return mean if self.pool == 'mean' else jnp.concatenate([token, mean], 1)


class PatchEmbed(nn.Module):
  """Dense layer over patches, `[b, H, W, 3] -> [b, patches, width]`.

  The parameters are those of a convolution, `kernel` `[p, p, 3, width]`.
  """

  width: int
  patch_size: int
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, images: Float[Array, 'b H W 3']
  ) -> Float[Array, 'b n {self.width}']:
    """Returns one token a patch, row by row."""
    b, height, width, channels = images.shape
    p = self.patch_size
    kernel = self.param('kernel', kernel_init, (p, p, channels, self.width))
    bias = self.param('bias', nn.initializers.zeros, (self.width,))
    x = images.astype(self.dtype)
    x = x.reshape(b, height // p, p, width // p, p, channels)
    x = x.transpose(0, 1, 3, 2, 4, 5).reshape(-1, p * p * channels)
    x = jnp.matmul(
      x,
      kernel.astype(self.dtype).reshape(-1, self.width),
      precision=numerics.product_precision(self.dtype),
    )
    return (x + bias.astype(self.dtype)[None]).reshape(b, -1, self.width)


def resize_pos_embed(
  pos_embed: Float[Array, '1 n d'],
  prefix: int,
  old_grid: tuple[int, int],
  new_grid: tuple[int, int],
) -> Float[Array, '1 m d']:
  """Resizes position embeddings to another grid of patches, bicubically.

  Args:
    pos_embed: position embeddings `[1, prefix + rows * columns, width]` of the
      old grid.
    prefix: number of tokens before the patches; their embeddings stay.
    old_grid: rows and columns of patches of the given embeddings.
    new_grid: rows and columns of patches of the result.

  Returns:
    `[1, prefix + new rows * new columns, width]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import models
    >>> embed = jnp.ones((1, 1 + 4 * 4, 8))  # A class token and 4 x 4 patches.
    >>> models.resize_pos_embed(embed, 1, (4, 4), (6, 6)).shape
    (1, 37, 8)
  """
  if tuple(old_grid) == tuple(new_grid):
    return pos_embed
  width = pos_embed.shape[-1]
  first, patches = jnp.split(pos_embed, [prefix], axis=1)
  # Without antialiasing, as DeiT and DINO resize theirs.
  patches = jax.image.resize(
    patches.reshape(1, *old_grid, width),
    (1, *new_grid, width),
    jax.image.ResizeMethod.CUBIC_PYTORCH,
    antialias=False,
  )
  return jnp.concatenate([first, patches.reshape(1, -1, width)], 1)
