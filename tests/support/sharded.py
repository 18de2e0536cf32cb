"""A loss whose batch is spread over devices, beside that of one device."""

import jax
import jax.numpy as jnp
import numpy as np

from tests.support import vectors


def rows_over(devices, a):
  """Rows `[B, ...]` as `[devices, b, ...]`."""
  return jnp.asarray(a).reshape(devices, -1, *a.shape[1:])


def mapped(f, devices, in_axes):
  """f over the axis 'i': fake devices, or a named axis where they are few."""
  if devices <= jax.local_device_count():
    return jax.pmap(f, 'i', in_axes=in_axes)
  return jax.jit(jax.vmap(f, in_axes=in_axes, axis_name='i'))


def assert_like_one_device(f, rows, shared=(), numbers=(4,)):
  """Value and gradients of f(*rows, *shared, axis_name) on some devices.

  Args:
    f: a loss, differentiated by the first of the rows and by all that is
      shared.
    rows: arrays `[24, ...]`, spread over the devices.
    shared: arrays that each device holds.
    numbers: how many devices to try.
  """
  by = (0, *range(len(rows), len(rows) + len(shared)))
  value_and_grad = jax.value_and_grad(f, by)
  alone = lambda *args: value_and_grad(*args, None)
  value, wanted = jax.jit(alone)(*rows, *shared)
  step = lambda *args: value_and_grad(*args, 'i')
  in_axes = (0,) * len(rows) + (None,) * len(shared)
  for devices in numbers:
    spread = [rows_over(devices, a) for a in rows]
    values, (own, *of_shared) = mapped(step, devices, in_axes)(*spread, *shared)
    np.testing.assert_allclose(values, np.full(devices, value), rtol=1e-6)
    # A device's gradient by its own rows holds all devices' losses.
    means = [jnp.reshape(own, rows[0].shape) / devices]
    means += [jnp.mean(a, 0) for a in of_shared]
    for got, want in zip(means, wanted, strict=True):
      vectors.assert_near(got, want, 1e-6)
