"""Linen layers whose outputs live on the ball."""

import flax.linen as nn
import jax.numpy as jnp

from hier_jax import poincare

__all__ = ['BallHead']


class BallHead(nn.Module):
  """Backbone features to points of the Poincare ball (HIER, section 3.1).

  LayerNorm without scale and bias, a linear map with orthogonal rows, then
  `poincare.to_ball`. All of it in float32, whatever the backbone computes in.

  Attributes:
    dim: size d of the embedding.
    c: curvature; the number 0 for unit vectors on the sphere instead.
    clip_radius: longest tangent vector; None for no clip.
  """

  dim: int
  c: float = 0.1
  clip_radius: float | None = 2.3

  @nn.compact
  def __call__(self, features):
    """`[..., F]` to float32 `[..., d]`."""
    x = features.astype(jnp.float32)
    x = nn.LayerNorm(epsilon=1e-5, use_bias=False, use_scale=False)(x)
    x = nn.Dense(
      self.dim, kernel_init=nn.initializers.orthogonal(), name='linear'
    )(x)
    if self.c == 0:
      norm = jnp.linalg.norm(x, axis=-1, keepdims=True)
      return x / jnp.maximum(norm, 1e-12)
    return poincare.to_ball(x, c=self.c, clip_radius=self.clip_radius)
