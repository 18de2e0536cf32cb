"""Cross-batch memory: the embeddings of past batches, to compare with.

Wang et al., "Cross-Batch Memory for Embedding Learning" (CVPR 2020, arXiv
1912.06798). The memory is explicit state: a loss reads it (`memory=`), and
`enqueue` then returns the next one. Call `enqueue` after the loss, since
otherwise each row would find itself in the memory as its own positive.
"""

from __future__ import annotations

from typing import NamedTuple

import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer

from hier_jax.losses import _checks, _sharding

__all__ = ['Memory', 'enqueue', 'init_memory']


class Memory(NamedTuple):
  """A ring of the latest m rows.

  Attributes:
    embeddings: float32 `[m, d]`; losses have no gradient with respect to them.
    labels: int32 `[m]`, or `[m, L]` for L levels of classes.
    filled: bool `[m]`, which places hold a row.
    position: int32 scalar, the place to be written next.
  """

  embeddings: Float[Array, 'm d']
  labels: Integer[Array, 'm ...']
  filled: Bool[Array, ' m']
  position: Integer[Array, '']


def init_memory(size: int, dim: int, *, levels: int | None = None) -> Memory:
  """An empty memory of `size` rows of `[dim]`, with a label or one a level.

  Args:
    size: number m of rows that the memory holds.
    dim: size d of the embeddings.
    levels: number L of labels of a row, one a level of classes; None for one
      label.

  Returns:
    `Memory` of m rows, none of which is filled.

  Raises:
    ValueError: for a size below 1.

  Example:
    >>> from hier_jax import losses
    >>> memory = losses.init_memory(4, 2)
    >>> memory.embeddings.shape, int(memory.filled.sum())
    ((4, 2), 0)
  """
  if size < 1:
    raise ValueError(f'a memory of {size} rows asked for: at least 1 is needed')
  return Memory(
    embeddings=jnp.zeros((size, dim), jnp.float32),
    labels=jnp.zeros(size if levels is None else (size, levels), jnp.int32),
    filled=jnp.zeros(size, bool),
    position=jnp.zeros((), jnp.int32),
  )


def enqueue(
  memory: Memory,
  z: Float[Array, 'b d'],
  labels: Integer[Array, 'b ...'],
  *,
  where: Bool[ArrayLike, ' b'] | None = None,
  axis_name: str | None = None,
) -> Memory:
  """The memory with the batch's rows in place of its oldest.

  Args:
    memory: `Memory` of m rows.
    z: `[b, d]` embeddings; they are remembered without their gradient.
    labels: int `[b]`, the class of each row, or `[b, L]`, one a level.
    where: bool `[b]`, the rows to remember; None for all.
    axis_name: mapped axis over whose devices the batch is spread; all devices
      remember all rows.

  Returns:
    `Memory` of m rows.

  Raises:
    ValueError: for a batch of more than m rows, or rows or labels of another
      shape than the memory's.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> memory = losses.init_memory(4, 2)
    >>> for labels in (jnp.array([0, 1, 2]), jnp.array([3, 4, 5])):
    ...   memory = losses.enqueue(memory, jnp.ones((3, 2)), labels)
    >>> memory.labels.tolist()  # The oldest rows, 0 and 1, are gone.
    [4, 5, 2, 3]
  """
  _checks.rows(z, labels, ranks=(2, memory.labels.ndim))
  _checks.shape('z', z, None, memory.embeddings.shape[1])
  _checks.shape('labels', labels, z.shape[0], *memory.labels.shape[1:])
  where = _sharding.mask_of(where, z)
  z, labels, where = (
    _sharding.gather(a, axis_name)
    for a in (lax.stop_gradient(z), labels, where)
  )
  size = memory.labels.shape[0]
  if labels.shape[0] > size:
    raise ValueError(
      f'a batch of {labels.shape[0]} rows does not fit a memory of {size}:'
      ' make the memory at least as large as the whole batch'
    )
  place = memory.position + jnp.cumsum(where, dtype=jnp.int32) - 1
  place = jnp.where(where, place % size, size)
  put = lambda into, rows: into.at[place].set(
    rows.astype(into.dtype), mode='drop'
  )
  return Memory(
    embeddings=put(memory.embeddings, z),
    labels=put(memory.labels, labels),
    filled=put(memory.filled, where),
    position=((memory.position + jnp.sum(where, dtype=jnp.int32)) % size),
  )
