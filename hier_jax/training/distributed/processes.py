"""How the processes of a run meet, and end together."""

import atexit
import contextlib
import json
import os
import socket
import sys
import threading
import time
from typing import Any

import jax
from jax._src import distributed, xla_bridge

from hier_jax.errors import UserError
from hier_jax.training.distributed import agreement

__all__ = ['initialize', 'joined']

ADDRESS, COUNT, INDEX = _VARIABLES = (
  'JAX_COORDINATOR_ADDRESS',
  'JAX_NUM_PROCESSES',
  'JAX_PROCESS_ID',
)
# All seconds. When a process has been silent for so long, the others end.
_SILENCE = 30
# So long may an error of its own take to come up beside another's.
_GRACE = 2
# So long process 0 stays for the others, since the coordinator ends with it.
_FAREWELL = 5


def initialize(*, timeout_s=60):
  """Joins the other processes of the run, if there are any.

  Comes before anything asks for a device. JAX_COORDINATOR_ADDRESS (HOST:PORT),
  JAX_NUM_PROCESSES and JAX_PROCESS_ID say who there is; else what JAX finds by
  itself on Cloud TPU, under SLURM, Open MPI or Kubernetes; else the process is
  alone, as it is with JAX_NUM_PROCESSES=1.

  Args:
    timeout_s: seconds to wait for the others; the process ends after that.

  Raises:
    UserError: for variables that are wrong, an address that cannot be reached
      and surroundings that JAX finds wanting.
  """
  given: dict[str, str] = {k: v for k in _VARIABLES if (v := os.environ.get(k))}
  if given.get(COUNT) == '1' or jax.distributed.is_initialized():
    return
  # It would catch SIGTERM, and not let it end the process.
  jax.config.update('jax_enable_preemption_service', False)
  if COUNT in given or INDEX in given:
    who = _explicit(given)
    _check_address(who, timeout_s)
    _connect(who, timeout_s)
    return
  if not given and xla_bridge.backends_are_initialized():
    # As in a notebook, where it is too late to join others.
    return
  try:
    _connect({}, timeout_s)
  except ValueError as error:
    # JAX found nothing, which is wrong where an address was given.
    if ADDRESS in given:
      raise UserError(
        f'{ADDRESS} is set, but not {COUNT} and {INDEX}, and nothing else says'
        f' what they are ({error})'
      ) from error
  except RuntimeError as error:
    raise UserError(
      f'the other processes of the run cannot be found ({error}); with'
      f' {COUNT}=1 there are none'
    ) from error


def _explicit(given):
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
  return {
    'coordinator_address': given[ADDRESS],
    'num_processes': number,
    'process_id': place,
    'cluster_detection_method': 'deactivate',
  }


def _check_address(who, timeout_s):
  """Raises UserError where JAX would crash, or end without saying why."""
  address, place = who['coordinator_address'], who['process_id']
  host, _, port = address.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise UserError(f'{ADDRESS} is {address!r}, expected HOST:PORT')
  if place == 0:
    _check_free(address, int(port))
    return
  end = time.monotonic() + timeout_s
  while True:
    try:
      socket.create_connection((host.strip('[]'), int(port)), timeout_s).close()
      return
    except OSError as error:
      if time.monotonic() > end:
        raise UserError(
          f'process {place} cannot reach process 0 at {address}'
          f' ({error}): check that {ADDRESS} is right, that process 0 was'
          ' started, and that its port is open to this host'
        ) from error
      time.sleep(0.2)


def _check_free(address, port):
  try:
    with socket.socket(socket.AF_INET6) as found:
      found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
      found.bind(('::', port))
  except OSError as error:
    raise UserError(
      f'process 0 cannot listen at {address} ({error}): choose another port in'
      f' {ADDRESS}, or end what uses this one'
    ) from error


def _connect(who, limit: float):
  """Connects to the coordinator as `who`, or as JAX finds it out."""
  # JAX would end the process too, but not say what it had waited for.
  timer = threading.Timer(limit, _give_up, [limit])
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


def _give_up(limit):
  where = distributed.global_state.coordinator_address
  _exit(
    f'process {agreement.index()} has not met all others at {where} within'
    f' {limit} s: check that all were started with the same {ADDRESS} and'
    f' {COUNT}, and what they say',
    2,
  )


@contextlib.contextmanager
def joined():
  """Joins the processes of the run, which then end together.

  Where one ends by an error, the others end within seconds and tell it: code 2
  for a UserError, else 1. One that dies without a word ends them after half a
  minute.

  Raises:
    UserError: see `initialize`; in every process where they run different code
      or JAX.
  """
  initialize()
  if agreement.alone():
    yield
    return
  leaving = threading.Event()

  def heard(notice):
    # An error in which all processes agree is told by each.
    if notice and not leaving.wait(_GRACE):
      _leave(json.loads(notice))

  with agreement.Listener('stopped', heard):
    try:
      agreement.agree(
        {
          'number of processes': str(agreement.count()),
          'hier_jax code': agreement.code_fingerprint(),
          'jax': jax.__version__,
        }
      )
      yield
      # Another may still fail.
      agreement.wait_for_all('end')
    except BaseException as error:
      leaving.set()
      _end_others(error)
      raise
  jax.distributed.shutdown()


def _leave(notice):
  process, error = notice['process'], notice['error']
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    _farewell()
  _exit(f'process {process} has stopped: {error}', notice['code'])


def _end_others(error):
  """Tells the others that this process ends, and sees to it that it does."""
  known = isinstance(error, UserError)
  code = 2 if known else 130 if isinstance(error, KeyboardInterrupt) else 1
  text = f'{"" if known else type(error).__name__ + ": "}{error}'
  if isinstance(error, jax.errors.JaxRuntimeError):
    hint = (
      'where a connection was lost, another process has died: its own output'
      ' says why. The same command goes on from the latest checkpoint'
    )
    text = f'{text.splitlines()[0]}; {hint}'
    error.add_note(
      f'process {agreement.index()} of {agreement.count()} ends: {hint}'
    )
  notice = json.dumps(
    {'process': agreement.index(), 'code': code, 'error': text}
  )
  with contextlib.suppress(jax.errors.JaxRuntimeError):
    first = agreement.tell_each('stopped', notice)
    if first != notice and not known:
      # What another has ended by is the cause.
      _leave(json.loads(first))
    _farewell()
  # At its exit JAX would wait for the others.
  atexit.register(_exit, None, code)


def _farewell():
  """Process 0 stays until the others have heard all, if they listen."""
  agreement.tell(f'gone/{agreement.index()}', '')
  end = time.monotonic() + _FAREWELL
  client: Any = agreement.client()
  while agreement.index() == 0 and time.monotonic() < end:
    if len(client.key_value_dir_get('hier_jax/gone/')) == agreement.count():
      # What ends a connection may still be on its way.
      time.sleep(0.2)
      return
    time.sleep(0.1)


def _exit(message, code):
  """Ends the process from any thread, whatever the others wait for."""
  sys.stdout.flush()
  if message is not None:
    print(f'hier-jax: error: {message}', file=sys.stderr)
  sys.stderr.flush()
  os._exit(code)
