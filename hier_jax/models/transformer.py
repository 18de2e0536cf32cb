"""The one transformer block of all ViTs, and its layers.

Inside a block tokens are rows of a matrix, `[b * n, width]`. Were they
`[b, n, width]`, the gradient of a kernel would contract two axes, for which XLA
on a CPU transposes all tokens, and takes twice the time.
"""

import functools
import math

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import DTypeLike

__all__ = ['Block', 'Dense', 'LayerNorm', 'attention', 'gelu', 'kernel_init']

kernel_init = nn.initializers.truncated_normal(stddev=0.02)


class Dense(nn.Module):
  """`x @ kernel + bias`, rows `[m, d] -> [m, features]`."""

  features: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the rows mapped."""
    shape = (x.shape[-1], self.features)
    kernel = self.param('kernel', kernel_init, shape)
    bias = self.param('bias', nn.initializers.zeros, (self.features,))
    y = x.astype(self.dtype) @ kernel.astype(self.dtype)
    return y + bias.astype(self.dtype)[None]


class LayerNorm(nn.Module):
  """Rows less their mean, over their deviation, times a scale, plus a bias."""

  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the rows `[m, d]`, computed in float32."""
    scale = self.param('scale', nn.initializers.ones, (x.shape[-1],))
    bias = self.param('bias', nn.initializers.zeros, (x.shape[-1],))
    y = _standardised(x.astype(jnp.float32)) * scale[None] + bias[None]
    return y.astype(self.dtype)


_EPSILON = 1e-6


@jax.custom_vjp
def _standardised(x):
  """(x - mean) / sqrt(variance + epsilon) of each row of `[m, d]`.

  With a backward pass of its own, since that of autodiff goes over the rows
  once for the mean and again for the variance, and keeps more of them.
  """
  return _standardise(x)[0]


def _standardise(x):
  # The mean of squares less the square of the mean would lose digits in rows
  # with a few large numbers, as DINOv2 has them.
  mean = x.mean(axis=1, keepdims=True)
  variance = jnp.square(x - mean).mean(axis=1, keepdims=True)
  rate = lax.rsqrt(variance + _EPSILON)
  return (x - mean) * rate, (x, mean, rate)


def _standardise_bwd(residuals, g):
  x, mean, rate = residuals
  y = (x - mean) * rate
  along = (g * y).mean(axis=1, keepdims=True)
  return ((g - g.mean(axis=1, keepdims=True) - y * along) * rate,)


_standardised.defvjp(_standardise, _standardise_bwd)


def attention(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
  """softmax(q k^T / sqrt(d)) v (Vaswani et al., 2017, equation 1).

  The softmax is that of float32, and divides what it weighs: d numbers a query
  and not one a key.

  Args:
    q: queries `[..., n, d]`.
    k: keys `[..., m, d]`.
    v: values `[..., m, d]`.

  Returns:
    `[..., n, d]` of the type of v.
  """
  product = functools.partial(
    jnp.einsum, preferred_element_type=jnp.float32, optimize=False
  )
  logits = product('...nd,...md->...nm', q, k)
  # The result does not depend on the shift, so neither does its gradient.
  shift = lax.stop_gradient(logits.max(axis=-1, keepdims=True))
  weights = jnp.exp((logits - shift) / math.sqrt(q.shape[-1]))
  y = product('...nm,...md->...nd', weights.astype(v.dtype), v)
  return (y / weights.sum(axis=-1, keepdims=True)).astype(v.dtype)


@jax.custom_jvp
def gelu(x: jax.Array) -> jax.Array:
  """GELU, x Phi(x) with the normal distribution Phi (arXiv 1606.08415).

  Its derivative, Phi(x) + x Phi'(x), is formed at once: autodiff would keep
  more arrays of its parts.
  """
  return x * _normal(x)


def _normal(x):
  return (1 + lax.erf(x * math.sqrt(0.5))) / 2


@gelu.defjvp
def _gelu_jvp(primals, tangents):
  (x,), (dx,) = primals, tangents
  phi = _normal(x)
  density = jnp.exp(x * x / -2) / math.sqrt(2 * math.pi)
  return x * phi, (phi + x * density) * dx


class Attention(nn.Module):
  """Multi-head self-attention of the tokens of each image."""

  num_heads: int
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array, images: int) -> jax.Array:
    """Returns `[b * n, width]` after the output projection; b is `images`."""
    rows, width = x.shape
    size = width // self.num_heads
    qkv = Dense(3 * width, self.dtype, name='qkv')(x)
    # Queries of all heads, then keys, then values: timm's order of the rows.
    qkv = qkv.reshape(images, rows // images, 3, self.num_heads, size)
    y = attention(*qkv.transpose(2, 0, 3, 1, 4))
    y = y.transpose(0, 2, 1, 3).reshape(rows, width)
    return Dense(width, self.dtype, name='proj')(y)


class Mlp(nn.Module):
  """Two dense layers around a nonlinearity, rows `[m, width]` in and out.

  That is an exact GELU or, with `swiglu`, the SiLU of the first half of a
  packed first layer, times the second half.
  """

  hidden: int
  swiglu: bool
  dtype: DTypeLike

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    """Returns the rows after both layers."""
    y = Dense(self.hidden * (1 + self.swiglu), self.dtype, name='fc1')(x)
    if self.swiglu:
      gate, value = jnp.split(y, 2, axis=1)
      y = nn.silu(gate) * value
    else:
      y = gelu(y)
    return Dense(x.shape[1], self.dtype, name='fc2')(y)


class Block(nn.Module):
  """Pre-norm transformer block, `[b, n, width] -> [b, n, width]`.

  Attributes:
    num_heads: of the attention.
    mlp_width: hidden width of the MLP.
    swiglu: see `Mlp`.
    layer_scale: initial value of the scales of both residual branches, None
      for none.
    drop_path: rate at which each of the branches is left out for an image.
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
    self, tokens: jax.Array, first: jax.Array | int | None = None
  ) -> jax.Array:
    """Returns the tokens after attention and MLP; `first` is `vit.ViT`'s."""
    b, _, width = tokens.shape
    x = tokens.reshape(-1, width)
    y = LayerNorm(self.dtype, name='norm1')(x)
    y = Attention(self.num_heads, self.dtype, name='attn')(y, b)
    x = x + self._branch('ls1', y, b, first)
    y = LayerNorm(self.dtype, name='norm2')(x)
    y = Mlp(self.mlp_width, self.swiglu, self.dtype, name='mlp')(y)
    x = x + self._branch('ls2', y, b, first)
    return x.reshape(tokens.shape)

  def _branch(self, name, y, images, first):
    rows, width = y.shape
    if self.layer_scale is not None:
      init = nn.initializers.constant(self.layer_scale)
      y = y * self.param(name, init, (width,)).astype(y.dtype)[None]
    if self.drop_path:
      keep = 1 - self.drop_path
      kept = jnp.repeat(self._draw(keep, images, first), rows // images)
      # The mean over the draws is the whole branch.
      y = jnp.where(kept[:, None], y / keep, 0)
    return y

  def _draw(self, chance, images, first):
    """Booleans `[b]`, each a function of the image's place in the batch."""
    key = self.make_rng('drop_path')
    if first is None:
      first = images * lax.axis_index(self.axis_name) if self.axis_name else 0
    draw = lambda i: jax.random.bernoulli(jax.random.fold_in(key, i), chance)
    return jax.vmap(draw)(first + jnp.arange(images))
