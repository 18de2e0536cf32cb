"""A state as a checkpoint holds it: arrays by name, and their checksum."""

import contextlib
import gc
import json
import logging
import math
import pathlib
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from hier_jax.errors import listed
from hier_jax.training.distributed import processes

__all__ = ['arrays_of', 'by_itself', 'digest', 'read', 'shapes']

State = TypeVar('State')


def arrays_of(state: Any) -> dict[str, np.ndarray]:
  """The arrays of a state, on the host, by their paths as a text."""
  return {name: np.asarray(leaf) for name, leaf in _named(state)}


def by_itself() -> ocp.options.MultiprocessingOptions:
  """What lets Orbax in a process wait for no other."""
  me = processes.index()
  return ocp.options.MultiprocessingOptions(
    primary_host=me, active_processes={me}
  )


def digest(arrays: Mapping[str, np.ndarray]) -> str:
  """Checksum of name -> array; tensorstore has none of their data."""
  found = 0
  for name, array in sorted(arrays.items()):
    found = zlib.crc32(f'{name} {array.dtype} {array.shape}'.encode(), found)
    data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    found = zlib.crc32(data.data, found)
  return f'{found:08x}'


def read(folder: pathlib.Path, state: State) -> State:
  """A state as another, of the arrays that a checkpoint holds.

  Raises:
    ValueError: they differ from what was saved, or belong to another model.
  """
  options = {'multiprocessing_options': by_itself()}
  handler = ocp.StandardCheckpointHandler(**options)
  with _quiet(), ocp.Checkpointer(handler, **options) as reader:
    # Before any memory is taken: what is declared may be larger than it all.
    _check_declared(handler.metadata(folder / 'state').tree, state)
    found = reader.restore(folder / 'state', args=ocp.args.StandardRestore())
  if digest(found) != _noted(folder):
    raise ValueError('its arrays are not those that were saved')
  return jax.tree.unflatten(
    jax.tree.structure(state),
    [jnp.asarray(found[name]) for name, _ in _named(state)],
  )


def shapes(folder: pathlib.Path) -> dict[str, tuple[int, ...]]:
  """Name -> shape of the arrays that a checkpoint declares."""
  handler = ocp.StandardCheckpointHandler(multiprocessing_options=by_itself())
  with _quiet():
    declared = handler.metadata(folder / 'state').tree
  return {name: tuple(array.shape) for name, array in declared.items()}


def _named(state: Any) -> list[tuple[str, Any]]:
  """Pairs of the path of an array in a state, as a text, and the array."""
  return [
    (jax.tree_util.keystr(path, simple=True, separator='.'), leaf)
    for path, leaf in jax.tree.leaves_with_path(state)
  ]


def _noted(folder: pathlib.Path) -> str | None:
  """The checksum that was noted of a state; None where it cannot be read."""
  try:
    stored = json.loads((folder / '_CHECKPOINT_METADATA').read_text())
    return stored['custom_metadata']['digest']
  except (OSError, ValueError, KeyError, TypeError):
    return None


def _check_declared(declared: Mapping[str, Any], state: Any) -> None:
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
def _quiet() -> Iterator[None]:
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
