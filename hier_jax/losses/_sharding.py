"""What a loss needs to know of the devices its batch is spread over.

A loss gathers the rows it compares with, works on its own rows only, and sums
over the devices. Every device then holds the whole batch's loss, and the mean
of the devices' gradients (`lax.pmean`) is the whole batch's gradient. This
holds under `pmap`, `vmap` and `shard_map(check_vma=False)`; if `shard_map`
checks types, each gradient is already the whole batch's.
"""

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from hier_jax import numerics
from hier_jax.losses import _checks

__all__ = [
  'gather',
  'logsumexp',
  'mask_of',
  'masked_mean',
  'position',
  'total',
  'varying',
]


def gather(x: jax.Array, axis_name: str | None) -> jax.Array:
  """Rows `[b, ...]` of all devices, in order, `[B, ...]`; x without an axis."""
  if axis_name is None:
    return x
  return lax.all_gather(x, axis_name, tiled=True)


def mask_of(where: ArrayLike | None, rows: ArrayLike) -> jax.Array:
  """The mask `[b]` of rows that count: `where`, or all where it is None."""
  if where is None:
    return jnp.ones(jnp.shape(rows)[:1], bool)
  _checks.shape('where', where, jnp.shape(rows)[0])
  return jnp.asarray(where, bool)


def position(axis_name: str | None) -> tuple[jax.Array | int, int]:
  """Index of the device and number of devices; 0, 1 without an axis."""
  if axis_name is None:
    return 0, 1
  return lax.axis_index(axis_name), lax.axis_size(axis_name)


def total(x: jax.Array, axis_name: str | None) -> jax.Array:
  """Sum over the devices; x without an axis."""
  return x if axis_name is None else lax.psum(x, axis_name)


def varying(x: jax.Array, axis_name: str | None) -> jax.Array:
  """x, to `shard_map` a value of each device's own; x without an axis."""
  if axis_name is None:
    return x
  return numerics.varying_as(x, lax.axis_index(axis_name))


def masked_mean(
  values: jax.Array, where: jax.Array, axis_name: str | None = None
) -> jax.Array:
  """Mean over all devices of the values where it is true; 0 without any."""
  count = total(jnp.sum(where), axis_name)
  summed = total(jnp.sum(jnp.where(where, values, 0)), axis_name)
  return summed / jnp.maximum(count, 1)


def logsumexp(
  logits: jax.Array,
  where: jax.Array,
  axis: int = 1,
  axis_name: str | None = None,
) -> jax.Array:
  """log(sum exp) of the places where it is true, of all devices' logits.

  The least float where there are none, with gradient zero.
  """
  least = jnp.finfo(logits.dtype).min
  logits = jnp.where(where, logits, -jnp.inf)
  top = lax.stop_gradient(jnp.max(logits, axis, keepdims=True, initial=least))
  if axis_name is not None:
    top = lax.pmax(top, axis_name)
  summed = total(jnp.sum(jnp.exp(logits - top), axis), axis_name)
  # A place that counts puts 1 into the sum; a NaN stays one.
  nowhere = summed == 0
  log = jnp.log(jnp.where(nowhere, 1, summed))
  return jnp.where(nowhere, least, jnp.squeeze(top, axis) + log)
