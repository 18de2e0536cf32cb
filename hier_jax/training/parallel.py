"""How a per-device function is mapped over the devices.

The only module that says `pmap`. A mapped function sees one device's rows and
the named axis `AXIS`; state is held once, not stacked.
"""

import collections

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

__all__ = [
  'AXIS',
  'compile_step',
  'gather_rows',
  'map_embed',
  'map_step',
  'prefetch',
]

AXIS = 'devices'


def _spread(batch, devices):
  """Local arrays `[B, ...]` to `[devices, b, ...]`; those of `prefetch` are."""
  return jax.tree.map(
    lambda a: (
      a
      if isinstance(a, jax.Array)
      else a.reshape(len(devices), -1, *a.shape[1:])
    ),
    batch,
  )


def prefetch(batches, *, devices=None, depth=2):
  """Yields batches placed for `map_step`, while later ones are on their way.

  Args:
    batches: this process's rows, NumPy arrays `[B, ...]`, from an iterator.
    devices: the local devices that `map_step` maps over.
    depth: batches placed at a time, that of the running step not counted.
  """
  devices = devices or jax.local_devices()
  mesh = Mesh(np.array(devices), AXIS)
  sharding = NamedSharding(mesh, PartitionSpec(AXIS))
  placed: collections.deque = collections.deque()
  for batch in batches:
    placed.append(jax.device_put(_spread(batch, devices), sharding))
    if len(placed) == depth:
      yield placed.popleft()
  while placed:
    yield placed.popleft()


def map_step(step, *, devices=None):
  """Maps `step(state, batch) -> (state, metrics)` over the local devices.

  Args:
    step: per-device function; what it returns must be the same on every device:
      it means its gradients and metrics over `AXIS`.
    devices: local devices to map over, all of them by default.

  Returns:
    A function of the state and of this process's rows, of the host or as
    `prefetch` places them; the state it is given is consumed.
  """
  devices = devices or jax.local_devices()
  mapped = _map_step(step, devices)
  return lambda state, batch: mapped(state, _spread(batch, devices))


def compile_step(step, state, batch):
  """Compiles what `map_step` makes of a step, without running it.

  Args:
    step: see `map_step`.
    state: or its shapes.
    batch: this process's rows, or their shapes.
  """
  devices = jax.local_devices()
  rows = jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(
      (len(devices), a.shape[0] // len(devices), *a.shape[1:]), a.dtype
    ),
    batch,
  )
  return _map_step(step, devices).lower(state, rows).compile()


def _map_step(step, devices):
  return jax.pmap(
    step,
    axis_name=AXIS,
    in_axes=(None, 0),
    out_axes=None,
    donate_argnums=0,
    devices=devices if jax.process_count() == 1 else None,
  )


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
