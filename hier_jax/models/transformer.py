"""The one transformer block of all ViTs, and its layers.

Inside a block, tokens are rows of a matrix `[b * n, width]`. With
`[b, n, width]`, the gradient of a kernel would contract two axes; for that, XLA
on a CPU transposes all tokens and takes twice the time.
"""

import functools
import math
from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Integer

from hier_jax import numerics

__all__ = ['Block', 'Dense', 'LayerNorm', 'attention', 'gelu', 'kernel_init']

kernel_init = nn.initializers.truncated_normal(stddev=0.02)


class Dense(nn.Module):
  """`x @ kernel + bias`, rows `[m, d] -> [m, features]`."""

  features: int
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, x: Float[Array, 'm d']
  ) -> Float[Array, 'm {self.features}']:
    """Returns the rows mapped."""
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    y = jnp.matmul(
      x.astype(self.dtype),
      kernel.astype(self.dtype),
      precision=numerics.product_precision(self.dtype),
    )
    return y + bias.astype(self.dtype)[None]


class LayerNorm(nn.Module):
  """Rows less their mean, over their deviation, times a scale, plus a bias."""

  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'm d']) -> Float[Array, 'm d']:
    """Returns the rows `[m, d]`, computed in float32."""
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
    return _layer_norm(x, scale, bias, self.dtype)


_EPSILON = 1e-6


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _layer_norm(
  x: jax.Array, scale: jax.Array, bias: jax.Array, dtype: DTypeLike
) -> jax.Array:
  """(x - mean) / sqrt(variance + epsilon) * scale + bias of rows `[m, d]`.

  With a backward pass of its own, since that of autodiff goes over the rows
  once for the mean and again for the variance, and keeps them in float32.
  """
  return _layer_norm_fwd(x, scale, bias, dtype)[0]


def _layer_norm_fwd(
  x: jax.Array, scale: jax.Array, bias: jax.Array, dtype: DTypeLike
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
  # The mean of squares less the square of the mean would lose digits in rows
  # with a few large numbers, as DINOv2 has them.
  wide = x.astype(jnp.float32)
  mean = wide.mean(axis=1, keepdims=True)
  variance = jnp.square(wide - mean).mean(axis=1, keepdims=True)
  rate = lax.rsqrt(variance + _EPSILON)
  y = (wide - mean) * rate * scale[None] + bias[None]
  return y.astype(dtype), (x, mean, rate, scale)


def _layer_norm_bwd(
  dtype: DTypeLike, residuals: tuple[jax.Array, ...], given: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  del dtype
  x, mean, rate, scale = residuals
  g = given.astype(jnp.float32)
  y = (x.astype(jnp.float32) - mean) * rate
  h = g * scale[None]
  along = (h * y).mean(axis=1, keepdims=True)
  by_x = (h - h.mean(axis=1, keepdims=True) - y * along) * rate
  if jax.default_backend() == 'gpu':
    # Together, sums over the rows and along them would share matrices in
    # float32, and write and read those.
    x, given = lax.optimization_barrier((x, given))
    g = given.astype(jnp.float32)
    y = (x.astype(jnp.float32) - mean) * rate
  return by_x.astype(x.dtype), (g * y).sum(0), g.sum(0)


_layer_norm.defvjp(_layer_norm_fwd, _layer_norm_bwd)


def attention(
  q: Float[Array, 'b n h d'],
  k: Float[Array, 'b m h d'],
  v: Float[Array, 'b m h d'],
  count: int | None = None,
) -> Float[Array, 'b n h d']:
  """softmax(q k^T / sqrt(d)) v (Vaswani et al., 2017, equation 1).

  The softmax is computed in float32. On NVIDIA GPUs, 16-bit types go through
  cuDNN, which stores no `[n, m]` matrix.

  Args:
    q: queries `[b, n, h, d]`.
    k: keys `[b, m, h, d]`.
    v: values `[b, m, h, d]`.
    count: number of keys that count, from the first on; None for all.

  Returns:
    `[b, n, h, d]` of the type of v. If n = m, queries from `count` on are
    padding, and their results are meaningless.
  """
  if _fused(q, k):
    lengths = None
    if count is not None:
      lengths = jnp.full(len(k), count, jnp.int32)
    return jax.nn.dot_product_attention(
      *(q, k, v),
      query_seq_lengths=lengths,
      key_value_seq_lengths=lengths,
      implementation='cudnn',
    )
  q, k, v = (a.swapaxes(1, 2) for a in (q, k, v))
  return _attention(q, k, v, count).swapaxes(1, 2)


def _fused(q: jax.Array, k: jax.Array) -> bool:
  """Whether cuDNN has a kernel for it."""
  device = jax.devices()[0]
  return (
    device.device_kind.startswith('NVIDIA')
    and float(device.compute_capability) >= 8
    and q.dtype in (jnp.bfloat16, jnp.float16)
    and q.shape[1] % 2 == k.shape[1] % 2 == 0
    and q.shape[3] % 8 == 0
    and q.shape[3] <= 128
  )


def _attention(
  q: jax.Array, k: jax.Array, v: jax.Array, count: int | None
) -> jax.Array:
  """Of `[b, h, n, d]`; divides what it weighs, d numbers a query."""
  product = functools.partial(
    jnp.einsum,
    precision=numerics.product_precision(q.dtype),
    preferred_element_type=jnp.float32,
    optimize=False,
  )
  logits = product('...nd,...md->...nm', q, k)
  if count is not None:
    place = lax.broadcasted_iota(jnp.int32, logits.shape, logits.ndim - 1)
    logits = jnp.where(place < count, logits, jnp.finfo(logits.dtype).min)
  # The result does not depend on the shift, so neither does its gradient.
  shift = lax.stop_gradient(logits.max(axis=-1, keepdims=True))
  weights = jnp.exp((logits - shift) / math.sqrt(q.shape[-1]))
  y = product('...nm,...md->...nd', weights.astype(v.dtype), v)
  return (y / weights.sum(axis=-1, keepdims=True)).astype(v.dtype)


@jax.custom_jvp
def gelu(x: Float[Array, '*shape']) -> Float[Array, '*shape']:
  """GELU, x Phi(x) with the normal distribution Phi (arXiv 1606.08415).

  Its derivative, Phi(x) + x Phi'(x), is computed in one expression, since
  autodiff would keep more intermediate arrays.
  """
  return x * _normal(x)


def _normal(x: jax.Array) -> jax.Array:
  return (1 + lax.erf(x * math.sqrt(0.5))) / 2


@gelu.defjvp
def _gelu_jvp(
  primals: tuple[jax.Array], tangents: tuple[jax.Array]
) -> tuple[jax.Array, jax.Array]:
  (x,), (dx,) = primals, tangents
  phi = _normal(x)
  density = jnp.exp(x * x / -2) / math.sqrt(2 * math.pi)
  return x * phi, (phi + x * density) * dx


class Attention(nn.Module):
  """Multi-head self-attention of the tokens of each image."""

  num_heads: int
  dtype: DTypeLike

  @nn.compact
  def __call__(
    self, x: Float[Array, 'm d'], images: int, count: int | None = None
  ) -> Float[Array, 'm d']:
    """Returns `[b * n, width]` after the output projection; b is `images`."""
    rows, width = x.shape
    size = width // self.num_heads
    qkv = Dense(3 * width, self.dtype, name='qkv')(x)
    # Queries of all heads, then keys, then values: timm's order of the rows.
    qkv = qkv.reshape(images, rows // images, 3, self.num_heads, size)
    q, k, v = jnp.moveaxis(qkv, 2, 0)
    y = attention(q, k, v, count)
    return Dense(width, self.dtype, name='proj')(y.reshape(rows, width))


class Mlp(nn.Module):
  """Two dense layers around a nonlinearity, rows `[m, width]` in and out.

  The nonlinearity is an exact GELU; with `swiglu`, it is the SiLU of the first
  half of a packed first layer times the second half.
  """

  hidden: int
  swiglu: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: Float[Array, 'm d']) -> Float[Array, 'm d']:
    """Returns the rows after both layers."""
    y = Dense(self.hidden * (1 + self.swiglu), self.dtype, name='fc1')(x)
    if self.swiglu:
      gate, value = jnp.split(y, 2, axis=1)
      y = nn.silu(gate) * value
    else:
      y = gelu(y)
    return Dense(x.shape[1], self.dtype, name='fc2')(y)


# The chance that a branch is kept for an image, and a key for each of both.
Drops = tuple[float | jax.Array, Sequence[jax.Array]]


class Block(nn.Module):
  """Pre-norm transformer block, `[b, n, width] -> [b, n, width]`.

  Attributes:
    num_heads: of the attention.
    mlp_width: hidden width of the MLP.
    swiglu: see `Mlp`.
    layer_scale: initial value of the scales of both residual branches, None
      for none.
    drop_path: probability that a branch is left out for an image.
    axis_name: mapped axis over whose devices the images are spread, or None.
    dtype: of the computation.
  """

  num_heads: int
  mlp_width: int
  swiglu: bool = False
  layer_scale: float | None = None
  drop_path: float = 0.0
  axis_name: str | None = None
  dtype: DTypeLike = jnp.float32

  @nn.compact
  def __call__(
    self,
    tokens: Float[Array, 'b n d'],
    first: Integer[Array, ''] | int | None = None,
    count: int | None = None,
    drops: Drops | None = None,
  ) -> Float[Array, 'b n d']:
    """Computes the tokens after attention and MLP.

    Args:
      tokens: `[b, n, width]`.
      first: `vit.ViT`'s.
      count: how many of an image's tokens count, the first ones; None for all.
      drops: in the place of `drop_path`, for a rate that is traced.
    """
    if drops is None and self.drop_path:
      drops = self.drops()
    b, _, width = tokens.shape
    x = tokens.reshape(-1, width)
    y = LayerNorm(self.dtype, name='norm1')(x)
    y = Attention(self.num_heads, self.dtype, name='attn')(y, b, count)
    x = x + self._branch('ls1', y, b, first, drops and (drops[0], drops[1][0]))
    y = LayerNorm(self.dtype, name='norm2')(x)
    y = Mlp(self.mlp_width, self.swiglu, self.dtype, name='mlp')(y)
    x = x + self._branch('ls2', y, b, first, drops and (drops[0], drops[1][1]))
    return x.reshape(tokens.shape)

  def drops(self) -> Drops:
    """`Drops` of `drop_path`; draws the keys."""
    keys = self.make_rng('drop_path'), self.make_rng('drop_path')
    return 1 - self.drop_path, keys

  def _branch(
    self,
    name: str,
    y: jax.Array,
    images: int,
    first: jax.Array | int | None,
    drop: tuple[float | jax.Array, jax.Array] | None,
  ) -> jax.Array:
    rows, width = y.shape
    if self.layer_scale is not None:
      init = nn.initializers.constant(self.layer_scale)
      y = y * self.param(name, init, (width,)).astype(y.dtype)[None]
    if drop is not None:
      chance, key = drop
      kept = jnp.repeat(self._draw(key, chance, images, first), rows // images)
      # The mean over the draws is the whole branch.
      y = jnp.where(kept[:, None], y / jnp.asarray(chance, y.dtype), 0)
    return y

  def _draw(
    self,
    key: jax.Array,
    chance: float | jax.Array,
    images: int,
    first: jax.Array | int | None,
  ) -> jax.Array:
    """Booleans `[b]`, each a function of the image's place in the batch."""
    if first is None:
      first = images * lax.axis_index(self.axis_name) if self.axis_name else 0
    p = jnp.float32(chance)

    def draw(i: jax.Array) -> jax.Array:
      return jax.random.bernoulli(jax.random.fold_in(key, i), p)

    return jax.vmap(draw)(first + jnp.arange(images, dtype=jnp.int32))
