"""How a per-device function is mapped over the devices.

The only module that says `pmap`. A mapped function sees one device's rows and
the named axis `AXIS`; state is held once, not stacked.
"""

import jax
import numpy as np
from jax.experimental import multihost_utils

__all__ = ['AXIS', 'gather_rows', 'map_embed', 'map_step']

AXIS = 'devices'


def _spread(batch, devices):
  """Local arrays `[B, ...]` to `[devices, b, ...]`."""
  return jax.tree.map(
    lambda a: a.reshape(len(devices), -1, *a.shape[1:]), batch
  )


def map_step(step, *, devices=None):
  """Maps `step(state, batch) -> (state, metrics)` over the local devices.

  Args:
    step: per-device function; what it returns must be the same on every device:
      it means its gradients and metrics over `AXIS`.
    devices: local devices to map over, all of them by default.

  Returns:
    A function of the state and of this process's rows; the state it is given is
    consumed.
  """
  devices = devices or jax.local_devices()
  mapped = jax.pmap(
    step,
    axis_name=AXIS,
    in_axes=(None, 0),
    out_axes=None,
    donate_argnums=0,
    devices=devices if jax.process_count() == 1 else None,
  )
  return lambda state, batch: mapped(state, _spread(batch, devices))


def map_embed(embed):
  """Maps `embed(variables, images [b, ...]) -> [b, d]` over the local devices.

  Returns:
    A function of the variables and of this process's images, to its rows.
  """
  mapped = jax.pmap(embed, axis_name=AXIS, in_axes=(None, 0))

  def call(variables, images):
    rows = mapped(variables, _spread(images, jax.local_devices()))
    return rows.reshape(-1, *rows.shape[2:])

  return call


def gather_rows(rows):
  """Host rows `[n, ...]` of this process to those of all, in their order."""
  if jax.process_count() == 1:
    return np.asarray(rows)
  return np.asarray(multihost_utils.process_allgather(rows, tiled=True))
