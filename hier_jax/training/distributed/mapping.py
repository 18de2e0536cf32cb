"""How a per-device function is mapped over the devices.

The only module that says `pmap` or `shard_map`. A mapped function sees one
device's rows and the named axis `AXIS`; state is held once, not stacked. Both
maps make the same numbers. They differ in what they hold between the steps: of
several processes, `pmap` gives each arrays of its own, `shard_map` arrays that
all of them share.
"""

import collections
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import chex
import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

__all__ = [
  'AXIS',
  'MAPS',
  'SPLIT',
  'WHOLE',
  'compile_step',
  'gather_rows',
  'lower_step',
  'map_embed',
  'map_step',
  'on_host',
  'place',
  'prefetch',
  'shardings',
  'spread',
]

State = TypeVar('State')
Batch = Mapping[str, np.ndarray | jax.Array]
Metrics = dict[str, jax.Array]
Variables = Mapping[str, Any]
# A per-device function of a state and of the device's rows.
Step = Callable[[State, dict[str, jax.Array]], tuple[State, Metrics]]
Shapes = Mapping[str, jax.ShapeDtypeStruct | np.ndarray | jax.Array]

AXIS = 'devices'
MAPS = ('pmap', 'shard_map')
# Arrays whose first dimension is spread over the devices, and the same on all.
SPLIT, WHOLE = PartitionSpec(AXIS), PartitionSpec()


def _mesh(devices: Sequence[jax.Device], by: str = 'pmap') -> Mesh:
  """The devices that arrays lie on: this process's, or all processes'.

  All are in the order in which `pmap` counts them.
  """
  if by == 'shard_map' and jax.process_count() > 1:
    devices = sorted(jax.devices(), key=lambda device: device.process_index)
  return Mesh(np.array(devices), (AXIS,))


def shardings(specs: Any) -> Any:
  """What `map_step` by 'shard_map' takes and makes of arrays, on all devices.

  Args:
    specs: `SPLIT` or `WHOLE` of each array.
  """
  mesh = _mesh(jax.local_devices(), 'shard_map')
  return jax.tree.map(lambda spec: NamedSharding(mesh, spec), specs)


def place(tree: chex.ArrayTree, specs: Any) -> Any:
  """Places arrays that every process has in full where 'shard_map' keeps them.

  Args:
    tree: arrays of any device or of the host.
    specs: `SPLIT` or `WHOLE` of each array.
  """

  def one(a: Any, sharding: NamedSharding) -> jax.Array:
    host = np.asarray(a)
    return jax.make_array_from_callback(host.shape, sharding, host.__getitem__)

  return jax.tree.map(one, tree, shardings(specs))


def on_host(a: jax.Array | np.ndarray) -> np.ndarray:
  """A copy of an array, the parts of all devices together.

  All processes call it where they have parts of their own.
  """
  if isinstance(a, jax.Array) and not a.is_fully_addressable:
    return np.asarray(multihost_utils.process_allgather(a, tiled=True))
  return np.array(a)


def spread(
  batch: chex.ArrayTree, devices: Sequence[jax.Device] | None = None
) -> Any:
  """Rows `[B, ...]` as `[devices, b, ...]`, separated by device.

  Args:
    batch: this process's rows, NumPy arrays; what `prefetch` has placed stays.
    devices: the local devices that the rows are for, all of them by default.

  Raises:
    ValueError: the number of rows is no multiple of the number of devices.
  """
  number = len(devices or jax.local_devices())

  def by_device(a: Any) -> Any:
    if isinstance(a, jax.Array):
      return a
    if len(a) % number:
      raise ValueError(
        f'{len(a)} rows cannot be shared out evenly among {number} devices;'
        f' expected a multiple of {number}: pad them, or name fewer devices'
      )
    return a.reshape(number, len(a) // number, *a.shape[1:])

  return jax.tree.map(by_device, batch)


def prefetch(
  batches: Iterable[Batch],
  *,
  devices: Sequence[jax.Device] | None = None,
  depth: int = 2,
) -> Iterator[dict[str, jax.Array]]:
  """Yields batches placed for `map_step`, while later ones are on their way.

  Args:
    batches: this process's rows, NumPy arrays `[B, ...]`, from an iterator.
    devices: the local devices that `map_step` maps over.
    depth: batches placed at a time, not counting the running step's.
  """
  devices = devices or jax.local_devices()
  sharding = NamedSharding(_mesh(devices), SPLIT)
  placed: collections.deque[dict[str, jax.Array]] = collections.deque()
  for batch in batches:
    placed.append(jax.device_put(spread(batch, devices), sharding))
    if len(placed) == depth:
      yield placed.popleft()
  while placed:
    yield placed.popleft()


def map_step(
  step: Step[State],
  *,
  devices: Sequence[jax.Device] | None = None,
  by: str = 'pmap',
  specs: State | None = None,
) -> Callable[[State, Batch], tuple[State, Metrics]]:
  """Maps `step(state, batch) -> (state, metrics)` over the devices.

  Args:
    step: per-device function; what it returns must be the same on every device:
      it means its gradients and metrics over `AXIS`.
    devices: local devices to map over, all of them by default.
    by: one of `MAPS`.
    specs: `SPLIT` for arrays of the state that are spread over the devices,
      `WHOLE` for others (the default for all); only for 'shard_map'.

  Returns:
    A function of the state and of this process's rows, of the host or as
    `prefetch` places them; the state it is given is consumed.
  """
  devices = devices or jax.local_devices()
  mapped = _map_state(step, devices, by, specs)
  mesh = _mesh(devices, by)
  return lambda state, batch: mapped(
    _placed(state, mesh, WHOLE if specs is None else specs),
    _placed(spread(batch, devices), mesh, SPLIT),
  )


def lower_step(
  step: Step[State],
  state: State,
  batch: Shapes,
  *,
  devices: Sequence[jax.Device] | None = None,
  by: str = 'pmap',
  specs: State | None = None,
) -> jax.stages.Lowered:
  """What `map_step` makes of a step, before it is compiled.

  Args:
    step: see `map_step`.
    state: or its shapes.
    batch: this process's rows, or their shapes.
    devices: see `map_step`.
    by: see `map_step`.
    specs: see `map_step`.
  """
  devices = devices or jax.local_devices()
  # All devices' rows are one array under shard_map alone.
  count = _mesh(devices, by).size
  rows = jax.tree.map(
    lambda a: jax.ShapeDtypeStruct(
      (count, a.shape[0] // len(devices), *a.shape[1:]), a.dtype
    ),
    batch,
  )
  return _map_state(step, devices, by, specs).lower(state, rows)


def compile_step(
  step: Step[State], state: State, batch: Shapes, **options: Any
) -> jax.stages.Compiled:
  """Compiles what `map_step` makes of a step; see `lower_step`."""
  return lower_step(step, state, batch, **options).compile()


def map_embed(
  embed: Callable[[Variables, jax.Array], jax.Array],
  *,
  devices: Sequence[jax.Device] | None = None,
  by: str = 'pmap',
) -> Callable[[Variables, np.ndarray], jax.Array]:
  """Maps `embed(variables, images [b, ...]) -> [b, d]` over the devices.

  Args:
    embed: per-device function.
    devices: see `map_step`.
    by: one of `MAPS`, that of the step whose variables they are.

  Returns:
    A function of the variables and of this process's images, to its rows.
  """
  devices = devices or jax.local_devices()
  mapped = _map(embed, devices, by, out=SPLIT)
  mesh = _mesh(devices, by)

  def call(variables: Variables, images: np.ndarray) -> jax.Array:
    rows = mapped(
      _placed(variables, mesh, WHOLE),
      _placed(spread(images, devices), mesh, SPLIT),
    )
    if by == 'shard_map':
      return multihost_utils.global_array_to_host_local_array(rows, mesh, SPLIT)
    return rows.reshape(-1, *rows.shape[2:])

  return call


def _map_state(
  step: Step[State],
  devices: Sequence[jax.Device],
  by: str,
  specs: State | None,
) -> Any:
  """Maps a step, which consumes its state; see `map_step`."""
  if specs is None:
    return _map(step, devices, by, out=WHOLE, donate_argnums=0)
  if by != 'shard_map':
    raise ValueError(f"by is {by!r}: parts of a state need 'shard_map'")
  out = specs, WHOLE
  return _map(step, devices, by, whole=specs, out=out, donate_argnums=0)


def _map(
  function: Callable[[Any, Any], Any],
  devices: Sequence[jax.Device],
  by: str,
  *,
  out: Any,
  whole: Any = WHOLE,
  **options: Any,
) -> Any:
  """Maps `function(whole, split)`, `split` having a row for each device.

  Args:
    function: per-device function.
    devices: local devices.
    by: one of `MAPS`.
    out: what it returns is, of all devices, `WHOLE` the same or `SPLIT`.
    whole: likewise of its first argument; by 'shard_map' alone.
    **options: of `jax.jit`, which `jax.pmap` knows too.
  """
  if by == 'pmap':
    return jax.pmap(
      function,
      axis_name=AXIS,
      in_axes=(None, 0),
      out_axes=None if out == WHOLE else 0,
      devices=devices if jax.process_count() == 1 else None,
      **options,
    )
  mapped = jax.shard_map(
    # A device's part of an array keeps the dimension that pmap takes off.
    lambda whole, part: function(whole, jax.tree.map(lambda a: a[0], part)),
    mesh=_mesh(devices, by),
    in_specs=(whole, SPLIT),
    out_specs=out,
    # Checked, gradients come summed over the devices that they are meant over.
    check_vma=False,
  )
  return jax.jit(mapped, **options)


def _placed(tree: chex.ArrayTree, mesh: Mesh, specs: Any) -> Any:
  """A process's arrays as those that the mapped function takes and makes.

  With a state that lies elsewhere it would be compiled twice: for the first
  step, and for what that step makes of it.

  Args:
    tree: arrays.
    mesh: on whose devices they are to lie.
    specs: `SPLIT` or `WHOLE`, of all of them or of each.
  """

  def placed(spec: PartitionSpec, a: Any) -> jax.Array:
    if isinstance(a, jax.Array) and a.sharding == NamedSharding(mesh, spec):
      return a
    return multihost_utils.host_local_array_to_global_array(a, mesh, spec)

  if isinstance(specs, PartitionSpec):
    return jax.tree.map(functools.partial(placed, specs), tree)
  return jax.tree.map(placed, specs, tree)


def gather_rows(rows: np.ndarray | jax.Array) -> np.ndarray:
  """Gathers host rows `[n, ...]` of all processes, in their order."""
  if jax.process_count() == 1:
    return np.asarray(rows)
  return np.asarray(multihost_utils.process_allgather(rows, tiled=True))
