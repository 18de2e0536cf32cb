"""Checkpoints of a run; the only module that saves with Orbax.

A checkpoint is written under a temporary name and renamed when it is whole, so
that one that was cut short is never listed. Every process holds the whole
state: process 0 alone writes it, beside the steps, and each reads it.
"""

import concurrent.futures
import contextlib
import gc
import json
import logging
import math
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from hier_jax import paths
from hier_jax.errors import UserError, listed, shown
from hier_jax.training.distributed import processes

__all__ = ['Checkpoints', 'steps_in']

# Threads that copy a state.
_COPIERS = 4


def steps_in(directory):
  """Steps of the whole checkpoints in a folder, which may not exist.

  Raises:
    UserError: a name looks like a step's and is none, on which Orbax trips.
  """
  names = [p.name for p in directory.iterdir()] if directory.exists() else []
  odd = [name for name in names if name.isdigit() and not name.isascii()]
  if odd:
    raise UserError(
      f'{directory} holds {shown(odd[0])}, which is no step: remove it'
    )
  return ocp.utils.checkpoint_steps(directory)


class Checkpoints(contextlib.AbstractContextManager):
  """The checkpoints of one workdir.

  All processes make the same calls in the same order.

  Args:
    directory: where they lie, made if need be; all processes see it.
    keep: how many of the latest are kept, besides the best; None only reads,
      and leaves alone what another process may be writing.
  """

  def __init__(self, directory, *, keep=None):
    directory = paths.as_path(directory)
    local = not paths.is_remote(directory)
    self._directory = directory.absolute() if local else directory
    self._pending = None
    if processes.index() != 0:
      return
    self._directory.mkdir(parents=True, exist_ok=True)
    self._kept = _Kept(keep)
    self._manager = ocp.CheckpointManager(
      self._directory,
      options=ocp.CheckpointManagerOptions(
        create=False,
        cleanup_tmp_directories=keep is not None,
        enable_async_checkpointing=False,
        preservation_policy=self._kept,
        # It does not read what may be damaged, to list what there is.
        lightweight_initialize=True,
        multiprocessing_options=_by_itself(),
      ),
    )
    self._writer = concurrent.futures.ThreadPoolExecutor(1)
    self._copiers = concurrent.futures.ThreadPoolExecutor(_COPIERS)

  def __exit__(self, *unused):
    try:
      self._wait()
    finally:
      if processes.index() == 0:
        for pool in (self._writer, self._copiers):
          pool.shutdown()
        self._manager.close()

  def _wait(self):
    """Waits for what is being written, and raises what went wrong with it."""
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  @property
  def latest_step(self):
    """Step of the latest whole checkpoint, or None."""
    return processes.from_first(lambda: max(self._steps(), default=None))

  def _steps(self):
    self._wait()
    return sorted(self._manager.all_steps())

  def warm_up(self, state):
    """Takes, before the steps, the time that a first copy takes more.

    Args:
      state: as `save` will be given.
    """
    if processes.index() == 0:
      _copy(state, self._copiers)

  def save(self, step, state, best=None):
    """Begins to write the state; returns before it is on disk.

    Args:
      step: of the state.
      state: arrays, which may be consumed as soon as this returns.
      best: step of the one that is kept whatever comes, None for none.

    Raises:
      Exception: what went wrong while the one before was written.
    """
    if processes.index() != 0:
      return
    self._wait()
    copy = _copy(state, self._copiers)
    self._pending = self._writer.submit(self._write, step, copy, best)

  def _write(self, step, state, best):
    arrays = {path: np.asarray(leaf) for path, leaf in _named(state)}
    self._kept.best = best
    self._manager.save(
      step,
      args=ocp.args.Composite(state=ocp.args.StandardSave(arrays)),
      custom_metadata={'digest': _digest(arrays)},
      # When to save is the loop's decision.
      force=True,
    )

  def restore(self, state, step=None):
    """A checkpoint, as arrays of this process.

    Args:
      state: of the same model and optimiser.
      step: of the checkpoint, None for the latest.

    Raises:
      UserError: when there is none, it is damaged or is of another model.
    """
    step, before = processes.from_first(lambda: self._choose(step))
    where = self._directory / str(step)
    try:
      return _read(where, state)
    except Exception as error:
      offer = (
        f'remove {where} to go on from the one before, of step {before}'
        if before is not None
        else 'there is none before it: choose another workdir'
      )
      raise UserError(
        f'checkpoint {step} in {self._directory} cannot be restored'
        f' ({_why(error)}); {offer}'
      ) from error

  def shapes(self, step=None):
    """Name -> shape of the arrays that a checkpoint declares.

    Args:
      step: of the checkpoint, None for the latest.

    Raises:
      UserError: when there is none, or it is damaged.
    """
    step, _ = processes.from_first(lambda: self._choose(step))
    where = self._directory / str(step)
    try:
      handler = ocp.StandardCheckpointHandler(
        multiprocessing_options=_by_itself()
      )
      with _quiet():
        declared = handler.metadata(where / 'state').tree
      return {name: tuple(array.shape) for name, array in declared.items()}
    except Exception as error:
      raise UserError(f'{where} cannot be read ({_why(error)})') from error

  def _choose(self, step):
    """The step, the latest for None, and the one before it or None."""
    steps = self._steps()
    if step is None and steps:
      step = steps[-1]
    if step not in steps:
      which = 'no checkpoint' if step is None else f'no checkpoint {step}'
      known = ', '.join(map(str, steps)) or 'none'
      raise UserError(
        f'{self._directory} holds {which}; expected one of: {known}'
      )
    return step, max((s for s in steps if s < step), default=None)


class _Kept:
  """Which are kept: so many of the latest, and the best.

  Attributes:
    best: its step, or None.
  """

  def __init__(self, latest):
    self._latest, self.best = latest, None

  def should_preserve(self, checkpoints, *, context):
    """Orbax asks of all of them, whether each is."""
    del context
    steps = [found.step for found in checkpoints]
    if self._latest is None:
      return [True] * len(steps)
    kept = {*sorted(steps)[-self._latest :], self.best}
    return [step in kept for step in steps]


def _by_itself():
  """What lets Orbax in a process wait for no other."""
  me = processes.index()
  return ocp.options.MultiprocessingOptions(
    primary_host=me, active_processes={me}
  )


def _copy(state, pool):
  """The arrays of one device in others, which a step does not consume."""
  leaves, tree = jax.tree.flatten(state)
  one = [
    a.addressable_data(0) if isinstance(a, jax.Array) else a for a in leaves
  ]
  # On the host, where a copy is made at once, threads share it.
  copies = pool.map(
    lambda part: jax.device_put(part, jax.local_devices()[0], may_alias=False),
    [one[i::_COPIERS] for i in range(_COPIERS)],
  )
  for i, part in enumerate(copies):
    leaves[i::_COPIERS] = part
  return jax.tree.unflatten(tree, leaves)


def _named(state):
  """Pairs of the path of an array in a state, as a text, and the array."""
  return [
    (jax.tree_util.keystr(path, simple=True, separator='.'), leaf)
    for path, leaf in jax.tree.leaves_with_path(state)
  ]


def _digest(arrays):
  """Checksum of name -> array; tensorstore has none of their data."""
  found = 0
  for name, array in sorted(arrays.items()):
    found = zlib.crc32(f'{name} {array.dtype} {array.shape}'.encode(), found)
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    found = zlib.crc32(data.data, found)
  return f'{found:08x}'


def _noted(folder):
  """The checksum that was noted of a state; None where it cannot be read."""
  try:
    stored = json.loads((folder / '_CHECKPOINT_METADATA').read_text())
    return stored['custom_metadata']['digest']
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _read(folder, state):
  """A state as another, of the arrays that a checkpoint holds.

  Raises:
    ValueError: they are not those that were saved, or are another model's.
  """
  options = {'multiprocessing_options': _by_itself()}
  handler = ocp.StandardCheckpointHandler(**options)
  with _quiet(), ocp.Checkpointer(handler, **options) as reader:
    # Before any memory is taken: what is declared may be larger than it all.
    _check_declared(handler.metadata(folder / 'state').tree, state)
    found = reader.restore(folder / 'state', args=ocp.args.StandardRestore())
  if _digest(found) != _noted(folder):
    raise ValueError('its arrays are not those that were saved')
  return jax.tree.unflatten(
    jax.tree.structure(state),
    [jnp.asarray(found[name]) for name, _ in _named(state)],
  )


def _check_declared(declared, state):
  """Raises ValueError unless arrays have the names and shapes of a state's.

  Args:
    declared: Orbax's name -> metadata.
    state: as restored.
  """
  ours = {name: leaf.shape for name, leaf in _named(state)}
  theirs = {name: getattr(v, 'shape', None) for name, v in declared.items()}
  differing = [
    f'{name} {theirs.get(name, "missing")} for {ours.get(name, "none")}'
    for name in {**ours, **theirs}
    if ours.get(name) != theirs.get(name)
  ]
  if differing:
    raise ValueError(
      f'it is of another model, with {len(differing)} other arrays:'
      f' {listed(differing)}'
    )
  for name, array in declared.items():
    chunk = array.storage and array.storage.chunk_shape
    if chunk and math.prod(chunk) > math.prod(array.shape):
      raise ValueError(f'{name} {array.shape} has chunks of {chunk}')


@contextlib.contextmanager
def _quiet():
  """Keeps the tasks that fail beside the first from telling their errors."""
  log = logging.getLogger('asyncio')
  level = log.level
  log.setLevel(logging.CRITICAL + 1)
  try:
    yield
  finally:
    # Each tells its own when it is collected.
    gc.collect()
    log.setLevel(level)


def _why(error):
  """An error in a line; tensorstore adds all it knows in brackets."""
  line = (str(error).splitlines() or [''])[0].split(' [')[0]
  kind = type(error)
  return line if kind is ValueError else f'{kind.__name__}: {line}'
