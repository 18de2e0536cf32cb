"""The weight of a regularizer by what it pulls with."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

from hier_jax import numerics

__all__ = ['balanced_weight']


def balanced_weight(
  loss_a: Callable[[jax.Array], jax.Array],
  loss_b: Callable[[jax.Array], jax.Array],
  z: jax.Array,
  *,
  largest: float = 1e4,
) -> jax.Array:
  """|grad_z loss_a| / |grad_z loss_b|: the weight that makes both pull alike.

  Times it, loss_b has a gradient by the embeddings as long as that of loss_a,
  whatever the scale of either; a lambda on top says how much longer. Esser,
  Rombach and Ommer, "Taming Transformers" (VQGAN, CVPR 2021, arXiv 2012.09841),
  weigh their adversarial loss so, by the last layer's gradients.

  Args:
    loss_a: the loss that sets the scale, of z alone.
    loss_b: the loss to weigh, of z alone.
    z: `[b, d]` embeddings.
    largest: the largest weight.

  Returns:
    scalar without gradient; 0 where loss_b has none.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import weighting
    >>> loss = lambda z: jnp.sum(z**2)
    >>> z = jnp.ones((2, 3))
    >>> float(weighting.balanced_weight(loss, lambda z: loss(z) / 8, z))
    8.0
  """
  z = lax.stop_gradient(z)
  norm = lambda loss: numerics.norm(jax.grad(loss)(z).ravel())[0]
  a, b = norm(loss_a), norm(loss_b)
  nothing = b == 0
  ratio = jnp.where(nothing, 0, a / jnp.where(nothing, 1, b))
  return lax.stop_gradient(jnp.minimum(ratio, largest))
