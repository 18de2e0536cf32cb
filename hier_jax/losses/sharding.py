"""What a loss needs to know of the devices its batch is spread over."""

import chex
import jax.numpy as jnp
from jax import lax

__all__ = ['gather', 'gather_rows', 'position', 'total']


def gather(x, axis_name):
  """Rows `[b, ...]` of all devices, in order, `[B, ...]`; x without an axis."""
  if axis_name is None:
    return x
  return lax.all_gather(x, axis_name, tiled=True)


def gather_rows(arrays, where, axis_name):
  """Rows of all devices, `gather` of each array, and which of them count.

  Args:
    arrays: `[b, ...]` each.
    where: bool `[b]`, or None for all.
    axis_name: mapped axis, or None.

  Returns:
    The arrays `[B, ...]`, then the mask `[B]`, in one list.
  """
  if where is None:
    where = jnp.ones(arrays[0].shape[:1], bool)
  chex.assert_equal_shape_prefix([*arrays, where], 1)
  chex.assert_rank(where, 1)
  return [gather(a, axis_name) for a in (*arrays, where)]


def position(axis_name):
  """Index of the device and number of devices; 0, 1 without an axis."""
  if axis_name is None:
    return 0, 1
  return lax.axis_index(axis_name), lax.axis_size(axis_name)


def total(x, axis_name):
  """Sum over the devices; x without an axis."""
  return x if axis_name is None else lax.psum(x, axis_name)
