"""What a loss needs to know of the devices its batch is spread over."""

from jax import lax

__all__ = ['gather', 'position', 'total']


def gather(x, axis_name):
  """Rows `[b, ...]` of all devices, in order, `[B, ...]`; x without an axis."""
  if axis_name is None:
    return x
  return lax.all_gather(x, axis_name, tiled=True)


def position(axis_name):
  """Index of the device and number of devices; 0, 1 without an axis."""
  if axis_name is None:
    return 0, 1
  return lax.axis_index(axis_name), lax.axis_size(axis_name)


def total(x, axis_name):
  """Sum over the devices; x without an axis."""
  return x if axis_name is None else lax.psum(x, axis_name)
