"""The processes of a run: how they meet, agree and end together.

JAX's coordinator, in process 0, keeps barriers; texts go over the devices. All
processes make the same calls in the same order.
"""

import atexit
import contextlib
import itertools
import json
import os
import pathlib
import re
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from hier_jax import paths
from hier_jax.errors import UserError, listed
from hier_jax.training.distributed import preemption

__all__ = [
  'agree',
  'count',
  'from_first',
  'index',
  'initialize',
  'joined',
]

ADDRESS, COUNT, INDEX = _VARIABLES = (
  'JAX_COORDINATOR_ADDRESS',
  'JAX_NUM_PROCESSES',
  'JAX_PROCESS_ID',
)
# All in seconds. JAX ends a run whose process has been silent for so long.
_SILENCE = 30
# How long a process waits for another that is still busy, such as with data.
_PATIENCE = 600
_FOREVER = 10**7
# How long a process that fails waits for others that fail by the same error.
_FAREWELL = 5
# How often a process looks for the notice of one that failed.
_PERIOD = 1
_calls = itertools.count()


def index() -> int:
  """Number of this process, 0 for the one that writes."""
  return jax.process_index()


def count() -> int:
  """Number of processes in the run."""
  return jax.process_count()


def agree(facts: Mapping[str, str]) -> None:
  """Checks that all processes of the run have the same facts.

  Args:
    facts: name -> value as text, such as a fingerprint.

  Raises:
    UserError: in every process, naming the facts in which they differ.
  """
  _compare(_gather(dict(facts)))


def _compare(told: Sequence[Mapping[str, str]]) -> None:
  """Raises UserError where the facts of processes differ."""
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


def from_first(make: Callable[[], Any]) -> Any:
  """Calls `make` in process 0 and returns its result in every process.

  Args:
    make: function without arguments that returns what JSON can hold.

  Raises:
    UserError: in every process, where `make` raises it.
  """
  if not jax.distributed.is_initialized():
    return make()
  made = {}
  if index() == 0:
    try:
      made = {'value': make()}
    except UserError as error:
      made = {'error': str(error)}
  made = _gather(made)[0]
  if 'error' in made:
    raise UserError(made['error'])
  return made['value']


def _gather(value: Any) -> list[Any]:
  """What JSON can hold of all processes, in their order, in every process."""
  if not jax.distributed.is_initialized():
    return [value]
  # Collectives give up after half a minute: all must be there.
  _meet(f'gather {next(_calls)}')
  text = np.frombuffer(json.dumps([index(), value]).encode(), np.uint8)
  sizes = multihost_utils.process_allgather(np.int32(len(text)))
  padded = np.pad(text, (0, max(sizes) - len(text)), constant_values=ord(' '))
  rows = multihost_utils.process_allgather(padded)
  told = dict(json.loads(row.tobytes()) for row in rows)
  return [told[i] for i in range(count())]


def _meet(name: str, seconds: float = _PATIENCE) -> None:
  """Returns once all processes have called it, which needs no device."""
  meet = ocp.multihost.get_barrier_sync_fn()
  meet(key=f'hier_jax {name}', timeout_ms=int(seconds * 1000))


def initialize(*, timeout_s: float = 60) -> None:
  """Joins the other processes of the run, if there are any.

  Call it before anything asks for a device. JAX_COORDINATOR_ADDRESS
  (HOST:PORT), JAX_NUM_PROCESSES and JAX_PROCESS_ID say who there is; else what
  JAX finds by itself on Cloud TPU, under SLURM, Open MPI or Kubernetes; else
  the process is alone, as it is with JAX_NUM_PROCESSES=1.

  Args:
    timeout_s: seconds to wait for the others, after which the process ends
      with a message and exit code 2.

  Raises:
    UserError: for wrong variables, a port in use and surroundings that JAX
      finds wanting.
  """
  given: dict[str, str] = {k: v for k in _VARIABLES if (v := os.environ.get(k))}
  if given.get(COUNT) == '1' or jax.distributed.is_initialized():
    return
  who = _explicit(given) if COUNT in given or INDEX in given else {}
  try:
    _connect(who, timeout_s)
  except ValueError as error:
    # JAX found nothing, which is wrong only where an address was given.
    if ADDRESS in given:
      raise UserError(
        f'{ADDRESS} is set, but not {COUNT} and {INDEX}, and nothing else says'
        f' what they are ({error})'
      ) from error
  except RuntimeError as error:
    # As in a notebook that has computed, where it is too late to join others.
    if not given and 'must be called before' in str(error):
      return
    raise UserError(
      f'the other processes of the run cannot be found ({error}); with'
      f' {COUNT}=1 there are none'
    ) from error


def _explicit(given: Mapping[str, str]) -> dict[str, Any]:
  """What variables say of the processes, as `jax.distributed` takes it."""
  missing = [name for name in _VARIABLES if name not in given]
  if missing:
    raise UserError(
      f'{" and ".join(given)} set, but not {" and ".join(missing)}: set all'
      ' three or none'
    )
  for name in (COUNT, INDEX):
    if not given[name].isdecimal():
      raise UserError(f'{name} is {given[name]!r}, expected an integer')
  number, place = int(given[COUNT]), int(given[INDEX])
  if place >= number:
    raise UserError(
      f'{INDEX} is {place}, expected less than {COUNT}, which is {number}'
    )
  host, _, port = given[ADDRESS].rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise UserError(f'{ADDRESS} is {given[ADDRESS]!r}, expected HOST:PORT')
  if place == 0:
    _check_free(given[ADDRESS], int(port))
  return {
    'coordinator_address': given[ADDRESS],
    'num_processes': number,
    'process_id': place,
    'cluster_detection_method': 'deactivate',
  }


def _check_free(address: str, port: int) -> None:
  """Raises UserError for a port in use, of which JAX may crash."""
  try:
    with socket.socket(socket.AF_INET6) as found:
      found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      found.bind(('::', port))
  except OSError as error:
    raise UserError(
      f'process 0 cannot listen at {address} ({error}): choose another port in'
      f' {ADDRESS}, or end what uses this one'
    ) from error


def _connect(who: Mapping[str, Any], limit: float) -> None:
  """Connects to the coordinator as `who`, or as JAX finds it out."""
  # JAX would end the process too, but not say what it had waited for.
  at = f' at {who["coordinator_address"]}' if who else ''
  message = (
    f'this process has not met all others{at} within {limit} s: check that all'
    f' were started with the same {ADDRESS} and {COUNT}, that the port of'
    ' process 0 is open to this host, and what they say'
  )
  timer = threading.Timer(limit, _exit, [2, message])
  timer.daemon = True
  timer.start()
  try:
    jax.distributed.initialize(
      **who,
      initialization_timeout=2 * int(limit) + 60,
      heartbeat_timeout_seconds=_SILENCE,
    )
  finally:
    timer.cancel()
  preemption.jax_handler()


@contextlib.contextmanager
def joined(folder: str | os.PathLike[str]) -> Iterator[None]:
  """Joins the processes of the run, which then end together.

  Where one ends by an error, the others end within seconds, naming it, with its
  exit code: 2 for a UserError, else 1. One that dies without a word ends them
  after half a minute at the latest.

  Args:
    folder: workdir of the run, where a process that fails leaves its error for
      the others. They only miss it where it cannot write there.

  Raises:
    UserError: see `initialize`.
  """
  initialize()
  if not jax.distributed.is_initialized():
    yield
    return
  # A run clears its workdir of files with such names.
  token = from_first(lambda: uuid.uuid4().hex)
  notice = paths.as_path(folder) / f'stopped.{token}.tmp'
  try:
    with _listening(notice):
      yield
      # Another may still fail.
      _meet('end', _FOREVER)
  except BaseException as error:
    _part(error, notice)
    raise
  jax.distributed.shutdown()


@contextlib.contextmanager
def _listening(notice: pathlib.Path) -> Iterator[None]:
  """Ends this process once another has left a notice, while the block runs."""
  ended = threading.Event()

  def listen() -> None:
    while not ended.wait(_PERIOD):
      # An object store raises errors of any kind.
      with contextlib.suppress(Exception):
        if notice.exists():
          told = json.loads(notice.read_text())
          _leave()
          _exit(told['code'], told['message'])

  thread = threading.Thread(target=listen, daemon=True)
  thread.start()
  try:
    yield
  finally:
    ended.set()
    thread.join()


def _part(error: BaseException, notice: pathlib.Path) -> None:
  """Sees to it that all processes end, of which this one does by an error."""
  known = isinstance(error, UserError)
  code = 2 if known else 130 if isinstance(error, KeyboardInterrupt) else 1
  lost = isinstance(error, jax.errors.JaxRuntimeError)
  # At its exit JAX would wait for the others.
  atexit.register(_exit, code)
  missing = _missing('lost' if lost else 'failed')
  if missing:
    text, *_ = (str(error) if known else repr(error)).split('\n')
    message = f'process {index()} of {count()} has stopped: {text}'
    if lost:
      error.add_note(
        f'{missing} did not answer: where a connection was lost, that has died,'
        ' and its own output says why. The same command goes on from the latest'
        ' checkpoint'
      )
    with contextlib.suppress(Exception):
      paths.write_text(notice, json.dumps({'code': code, 'message': message}))
  _leave()
  with contextlib.suppress(Exception):
    notice.unlink()


def _missing(name: str) -> str:
  """Which processes do not come to a meeting, in words; '' where all do."""
  try:
    _meet(name, _FAREWELL)
  except jax.errors.JaxRuntimeError as error:
    # JAX lists their numbers, a line each.
    found = re.search(r'timed out task names:\s*((\d+\s+)+)', str(error))
    return f'process {", ".join(found[1].split())}' if found else 'another'
  return ''


def _leave() -> None:
  """Returns once all processes know that they end, or some do not say so."""
  _missing('leave')
  if index() == 0:
    # The coordinator ends with process 0, while others may still be ending.
    time.sleep(_PERIOD)


def _exit(code: int, message: str | None = None) -> NoReturn:
  """Ends the process from any thread, whatever the others wait for."""
  sys.stdout.flush()
  if message is not None:
    print(f'hier-jax: error: {message}', file=sys.stderr)
  sys.stderr.flush()
  os._exit(code)
