"""What the processes of a run tell each other, and what they agree on.

JAX's coordinator, in process 0, carries it: that needs no device, and goes on
while a step runs. All processes make the same calls in the same order.
"""

import contextlib
import hashlib
import itertools
import json
import pathlib
import threading

import jax
import numpy as np
from jax._src import distributed

from hier_jax.errors import UserError, listed

__all__ = [
  'Listener',
  'agree',
  'alone',
  'ask',
  'client',
  'code_fingerprint',
  'count',
  'data_fingerprints',
  'from_first',
  'index',
  'tell',
  'tell_each',
  'wait_for_all',
]

# Seconds to wait for what another process does first, such as reading data.
_PATIENCE = 600
# For what may never come.
_FOREVER = 10**7
_calls = itertools.count()


def client():
  """JAX's, of the coordinator; None where the run is one process."""
  return distributed.global_state.client


def alone():
  """Whether the run is this process."""
  return client() is None


def index():
  """Number of this process; `jax.process_index` would ask for a device."""
  return distributed.global_state.process_id


def count():
  """How many processes the run has; asks for no device."""
  return distributed.global_state.num_processes


def tell(key, value):
  """Tells all processes a text, once; returns whether it was the first."""
  try:
    client().key_value_set(f'hier_jax/{key}', value)
  except jax.errors.JaxRuntimeError as error:
    if 'ALREADY_EXISTS' in str(error):
      return False
    raise
  return True


def ask(key, seconds=_PATIENCE):
  """Waits for what a process tells; JaxRuntimeError when that is too long."""
  milliseconds = int(seconds * 1000)
  return client().blocking_key_value_get(f'hier_jax/{key}', milliseconds)


def tell_each(key, value):
  """Tells the `Listener`s of a key a text, that of this process first.

  Returns what this one was told first.
  """
  ours = f'{key}/{index()}'
  first = value if tell(ours, value) else ask(ours)
  for i in range(count()):
    if i != index():
      tell(f'{key}/{i}', value)
  return first


class Listener(contextlib.AbstractContextManager):
  """Calls a function once this process is told a key, or the block ends.

  Both are done in a thread, which has ended when the block has: one that still
  waited for the coordinator while Python ends would abort the process.
  """

  def __init__(self, key, heard):
    """Takes `heard(text)`; at the end of the block the text is empty."""
    self._key, self._heard = f'{key}/{index()}', heard
    self._thread = threading.Thread(target=self._listen, daemon=True)

  def __enter__(self):
    self._thread.start()
    return self

  def __exit__(self, *unused):
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      tell(self._key, '')
      self._thread.join()

  def _listen(self):
    with contextlib.suppress(jax.errors.JaxRuntimeError):
      self._heard(ask(self._key, _FOREVER))


def wait_for_all(key):
  """Returns once all processes have called it, whenever that is."""
  client().wait_at_barrier(f'hier_jax/{key}', _FOREVER * 1000)


def from_first(make):
  """What `make()` returns in process 0, in every process.

  All processes call it, and only process 0 makes it.

  Args:
    make: returns what JSON can hold.

  Raises:
    UserError: in every process, where `make` raises it.
  """
  if alone():
    return make()
  key = f'first/{next(_calls)}'
  if index() != 0:
    told = json.loads(ask(key))
    if 'error' in told:
      raise UserError(told['error'])
    return told['value']
  try:
    value = make()
  except UserError as error:
    tell(key, json.dumps({'error': str(error)}))
    raise
  tell(key, json.dumps({'value': value}))
  return value


def agree(facts):
  """Raises UserError in every process where they differ in a fact.

  Args:
    facts: name -> text, such as a fingerprint; all processes call it.
  """
  if alone():
    return
  key = f'facts/{next(_calls)}'
  tell(f'{key}/{index()}', json.dumps(facts))
  from_first(
    lambda: _compare([json.loads(ask(f'{key}/{i}')) for i in range(count())])
  )


def _compare(told):
  """Raises UserError where what processes have told differs."""
  differing = []
  for name in dict.fromkeys(itertools.chain(*told)):
    for i, facts in enumerate(told):
      ours, theirs = told[0].get(name), facts.get(name)
      if ours != theirs:
        differing.append(
          f'{name} is {ours} in process 0 and {theirs} in process {i}'
        )
        break
  if differing:
    raise UserError(
      f'the processes of this run differ in {len(differing)} of {len(told[0])}'
      f' things: {listed(differing)}. Start all with the same code, packages,'
      ' config and data'
    )


def code_fingerprint():
  """Hash of this package's modules, their names included."""
  root = pathlib.Path(__file__).parents[2]
  found = hashlib.sha256()
  for path in sorted(root.rglob('*.py')):
    found.update(f'{path.relative_to(root).as_posix()}\0'.encode())
    found.update(hashlib.sha256(path.read_bytes()).digest())
  return found.hexdigest()[:16]


def data_fingerprints(splits):
  """Name of a fact -> what a split is, by its labels, fields and names.

  Args:
    splits: name -> `datasets.Split`; none of their images is read.
  """
  return {f'split {k}': _fingerprint(split) for k, split in splits.items()}


def _fingerprint(split):
  names = {key: list(values) for key, values in split.names.items()}
  found = hashlib.sha256(json.dumps([split.name, names]).encode())
  for field, values in sorted({**split.fields, 'label': split.labels}.items()):
    found.update(f'{field}\0'.encode())
    found.update(np.ascontiguousarray(values, np.int64).tobytes())
  return f'{len(split.source):,} records {found.hexdigest()[:16]}'
