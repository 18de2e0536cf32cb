"""Gradients of a whole batch in the memory of a few of its rows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ['in_chunks']


def in_chunks(
  embed: Callable[[jax.Array, jax.Array], jax.Array], rows: int
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """Embeds and differentiates a few rows at a time.

  A loss of the result sees all embeddings together. Its gradient is propagated
  back through one chunk after the other, and each chunk is embedded again for
  this, so memory for a backward pass is needed for only one chunk.

  Args:
    embed: maps rows `[r, ...]` and the place of the first of them to `[r, d]`;
      a row's result may depend on its place, not on other rows.
    rows: r; divides the number of all rows.

  Returns:
    A function of rows `[b, ...]` and the place of the first, to `[b, d]`.
  """
  # In a loop nothing could be shared with the first computation anyway.
  again = jax.checkpoint(embed, prevent_cse=False)

  def whole(x: jax.Array, first: jax.Array) -> jax.Array:
    chunks = x.reshape(-1, rows, *x.shape[1:])
    places = first + rows * jnp.arange(len(chunks), dtype=jnp.int32)
    z = lax.map(lambda chunk: again(*chunk), (chunks, places))
    return z.reshape(-1, *z.shape[2:])

  return whole
