"""Checkpoints of a run, which Orbax writes.

A checkpoint is written under a temporary name and renamed when it is whole, so
that one that was cut short is never listed. Every process holds the whole state
that is written: process 0 alone writes it, beside the steps, and each reads it.
"""

import concurrent.futures
import contextlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any, TypeVar

import jax
import orbax.checkpoint as ocp

from hier_jax import paths
from hier_jax.errors import UserError, shown
from hier_jax.training.distributed import processes
from hier_jax.training.run import stored_state

__all__ = ['Checkpoints', 'steps_in']

State = TypeVar('State')

# Threads that copy a state.
_COPIERS = 4


def steps_in(directory: pathlib.Path) -> list[int]:
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


class Checkpoints(contextlib.AbstractContextManager['Checkpoints']):
  """The checkpoints of one workdir.

  All processes make the same calls in the same order.

  Args:
    directory: where they lie, made if need be; all processes see it.
    keep: how many of the latest are kept, besides the best; None only reads,
      and leaves alone what another process may be writing.
  """

  def __init__(
    self, directory: str | os.PathLike[str], *, keep: int | None = None
  ) -> None:
    directory = paths.as_path(directory)
    local = not paths.is_remote(directory)
    self._directory = directory.absolute() if local else directory
    self._pending: concurrent.futures.Future[None] | None = None
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
        multiprocessing_options=stored_state.by_itself(),
      ),
    )
    self._writer = concurrent.futures.ThreadPoolExecutor(1)
    self._copiers = concurrent.futures.ThreadPoolExecutor(_COPIERS)

  def __exit__(self, *unused: object) -> None:
    try:
      self._wait()
    finally:
      if processes.index() == 0:
        for pool in (self._writer, self._copiers):
          pool.shutdown()
        self._manager.close()

  def _wait(self) -> None:
    """Waits for what is being written, and raises what went wrong with it."""
    pending, self._pending = self._pending, None
    if pending is not None:
      pending.result()

  @property
  def latest_step(self) -> int | None:
    """Step of the latest whole checkpoint, or None."""
    return processes.from_first(lambda: max(self._steps(), default=None))

  def _steps(self) -> list[int]:
    self._wait()
    return sorted(self._manager.all_steps())

  def warm_up(self, state: Any) -> None:
    """Takes, before the steps, the time that a first copy takes more.

    Args:
      state: as `save` will be given.
    """
    if processes.index() == 0:
      _copy(state, self._copiers)

  def save(self, step: int, state: Any, best: int | None = None) -> None:
    """Begins to write the state; returns before it is on disk.

    Args:
      step: of the state.
      state: arrays that each device has whole, which may be consumed as soon
        as this returns, and others of the host.
      best: step of the one that is kept whatever comes, None for none.

    Raises:
      Exception: what went wrong while the one before was written.
    """
    if processes.index() != 0:
      return
    self._wait()
    copy = _copy(state, self._copiers)
    self._pending = self._writer.submit(self._write, step, copy, best)

  def _write(self, step: int, state: Any, best: int | None) -> None:
    arrays = stored_state.arrays_of(state)
    self._kept.best = best
    self._manager.save(
      step,
      args=ocp.args.Composite(state=ocp.args.StandardSave(arrays)),
      custom_metadata={'digest': stored_state.digest(arrays)},
      # When to save is the loop's decision.
      force=True,
    )

  def restore(self, state: State, step: int | None = None) -> State:
    """A checkpoint, as arrays of this process.

    Args:
      state: of the same model and optimizer.
      step: of the checkpoint, None for the latest.

    Raises:
      UserError: when there is none, it is damaged or is of another model.
    """
    step, before = processes.from_first(lambda: self._choose(step))
    where = self._directory / str(step)
    try:
      return stored_state.read(where, state)
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

  def shapes(self, step: int | None = None) -> dict[str, tuple[int, ...]]:
    """Name -> shape of the arrays that a checkpoint declares.

    Args:
      step: of the checkpoint, None for the latest.

    Raises:
      UserError: when there is none, or it is damaged.
    """
    step, _ = processes.from_first(lambda: self._choose(step))
    where = self._directory / str(step)
    try:
      return stored_state.shapes(where)
    except Exception as error:
      raise UserError(f'{where} cannot be read ({_why(error)})') from error

  def _choose(self, step: int | None) -> tuple[int, int | None]:
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
  """Which checkpoints are kept: the latest few, and the best.

  Attributes:
    best: its step, or None.
  """

  def __init__(self, latest: int | None) -> None:
    self._latest = latest
    self.best: int | None = None

  def should_preserve(
    self, checkpoints: Sequence[Any], *, context: object
  ) -> list[bool]:
    """Orbax asks of all of them, whether each is."""
    del context
    steps = [found.step for found in checkpoints]
    if self._latest is None:
      return [True] * len(steps)
    kept = {*sorted(steps)[-self._latest :], self.best}
    return [step in kept for step in steps]


def _copy(state: State, pool: concurrent.futures.Executor) -> State:
  """The arrays of one device in others, which a step does not consume.

  Those that are on the host no step consumes.
  """
  leaves, tree = jax.tree.flatten(state)
  places = [i for i, a in enumerate(leaves) if isinstance(a, jax.Array)]
  one = [leaves[i].addressable_data(0) for i in places]
  # On the host, where a copy is made at once, threads share it.
  copies = pool.map(
    lambda part: jax.device_put(part, jax.local_devices()[0], may_alias=False),
    [one[i::_COPIERS] for i in range(_COPIERS)],
  )
  for i, part in enumerate(copies):
    for place, copy in zip(places[i::_COPIERS], part, strict=True):
      leaves[place] = copy
  return jax.tree.unflatten(tree, leaves)


def _why(error: Exception) -> str:
  """An error in a line; tensorstore adds all it knows in brackets."""
  line = (str(error).splitlines() or [''])[0].split(' [')[0]
  kind = type(error)
  return line if kind is ValueError else f'{kind.__name__}: {line}'
