"""Regime c: the last blocks of the network are trained with the head.

Images are not augmented, so what enters these blocks is computed once and kept
(`features.extract`): training begins at the tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from experiments.study import features
from hier_jax import layers, models
from hier_jax.models import transformer

__all__ = ['Blocks', 'Embedder', 'Tokens', 'embedder', 'in_batches', 'take']

# Images that are embedded at a time.
_BATCH = 256


class Tokens(NamedTuple):
  """What is known of images before the blocks that are trained.

  Attributes:
    frozen: features of the frozen network `[n, F]`, each part standardized.
    tokens: float16 `[n, t, width]`, what enters the first block.
  """

  frozen: jax.Array
  tokens: jax.Array


class Blocks(nn.Module):
  """The last blocks of a ViT, tokens to standardized features.

  Attributes:
    network: the whole ViT, of which no parameter is made but its blocks'.
    number: how many blocks, up to the last that features are made of.
  """

  network: models.ViT
  number: int

  @nn.compact
  def __call__(self, x: Tokens) -> jax.Array:
    """The parts of `features.PARTS` `[n, F]`; those from before are frozen."""
    network = self.network
    tokens = x.tokens.astype(jnp.float32)
    made = {}
    for name in features.last_blocks(self.number):
      tokens = transformer.Block(
        num_heads=network.num_heads,
        mlp_width=network.mlp_width or 4 * network.width,
        swiglu=network.swiglu,
        layer_scale=network.layer_scale,
        name=name,
      )(tokens)
      made[name] = network.split_tokens(tokens)
    parts = jnp.split(x.frozen, len(features.PARTS), axis=1)
    for i, (place, kind) in enumerate(features.PARTS):
      if place in made:
        parts[i] = features.standardized(made[place][kind].mean(1))
    return jnp.concatenate(parts, 1)


class Embedder(nn.Module):
  """Blocks with a head, tokens to embeddings.

  Attributes:
    backbone: the blocks.
    head: features `[n, F]` to embeddings `[n, d]`.
  """

  backbone: Blocks
  head: layers.BallHead

  def __call__(self, x: Tokens) -> jax.Array:
    """Embeddings `[n, d]`."""
    return self.head(self.backbone(x))


def embedder(
  number: int, *, dim: int, c: float | None, radial_scale: float | None
) -> Embedder:
  """The last blocks of the network of the features, with a head."""
  network = models.create_backbone(features.BACKBONE)
  head = layers.BallHead(dim, c=c, radial_scale=radial_scale)
  return Embedder(Blocks(network, number), head)


def take(x: Any, rows: Any) -> Any:
  """Rows of an array, or of each array of `Tokens`."""
  return jax.tree.map(lambda array: array[rows], x)


def in_batches(apply: Callable[[Tokens], jax.Array], x: Tokens) -> np.ndarray:
  """Applies a compiled function to all rows, some at a time, for memory.

  Args:
    apply: tokens of a batch -> `[b, d]`.
    x: of n images.

  Returns:
    `[n, d]`.
  """
  n = len(x.tokens)
  found = []
  for start in range(0, n, _BATCH):
    # The last batch is as large as the others, and filled up with the first.
    rows = np.arange(start, start + _BATCH) % n
    found.append(np.asarray(apply(take(x, rows)))[: n - start])
  return np.concatenate(found)
