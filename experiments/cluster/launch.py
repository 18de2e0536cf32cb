"""A Cloud TPU from its request to its end, with a training run on it."""

import contextlib
import json
import re
import secrets
import shlex
import signal
import subprocess
import sys
import time
from typing import NamedTuple

from cluster import commands, source

__all__ = ['Launch', 'LaunchError', 'say']

# Commands that failed in a row while the machine is there, before giving up.
_TRIES = 8
# Looks at the machine after a crash: a preemption shows a little later.
_LOOKS = 4

_USER_ERROR, _TRY_AGAIN = 2, 75

_WAITING = {'ACCEPTED', 'CREATING', 'PROVISIONING', 'WAITING_FOR_RESOURCES'}
_TAKEN = {'SUSPENDING', 'SUSPENDED'}
# What follows the nonce in a line of `commands.follow`; numbers of lines and
# exit codes have few digits.
_LINE = re.compile(
  r':(\w+):(?:exit:(\d{1,3})|(finished):|(\d{1,18}):(.*))', re.DOTALL
)
_QUOTA = re.compile('quota|RESOURCE_EXHAUSTED', re.IGNORECASE)


class LaunchError(Exception):
  """The end of a launch, with its exit code."""

  def __init__(self, message, code=_USER_ERROR):
    super().__init__(message)
    self.code = code


class LostError(Exception):
  """The machine was taken away, or training saved because it will be."""


class _State(NamedTuple):
  """A queued resource: its state, None where unknown, and Cloud's words."""

  name: str | None
  words: str


def say(text):
  """Prints what the launcher does, apart from what it passes on."""
  print(f'launch_tpu: {text}', file=sys.stderr, flush=True)


@contextlib.contextmanager
def _uninterrupted():
  """Holds Ctrl-C back, from child processes as well, until the block ends."""
  numbers = {signal.SIGINT, signal.SIGTERM}
  before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
  try:
    yield
  finally:
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _stream(argv, on_line):
  """Runs a command, hands on its lines as they come; returns its exit code."""
  say(shlex.join(argv))
  with subprocess.Popen(
    argv,
    stdin=subprocess.DEVNULL,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
  ) as process:
    try:
      # As bytes, lines end at a newline alone: as text, also where a progress
      # bar goes back to the beginning of its line.
      for line in process.stdout:
        on_line(line.decode(errors='replace').removesuffix('\n'))
    except BaseException:
      process.terminate()
      raise
  return process.returncode


class _Log:
  """What the workers say: each line once, however often it is sent.

  Attributes:
    nonce: what every line about a worker begins with, and nothing else does.
    codes: worker -> exit code of its training.
    finished: whether the run is at its end.
  """

  def __init__(self):
    self.nonce = secrets.token_hex(8)
    self.codes: dict[str, int] = {}
    self.finished = False
    self._seen: dict[str, int] = {}

  def show(self, line):
    """Prints a line that is new."""
    own = line.startswith(self.nonce)
    match = own and _LINE.fullmatch(line.removeprefix(self.nonce))
    if not match:
      print(line, flush=True)
      return
    worker, code, finished, number, text = match.groups()
    if code:
      self.codes[worker] = int(code)
    elif finished:
      self.finished = True
    elif int(number) > self._seen.get(worker, 0):
      self._seen[worker] = int(number)
      print(f'[{worker}] {text}', flush=True)

  @property
  def lines(self):
    """How many lines of the workers there were."""
    return sum(self._seen.values())

  @property
  def code(self):
    """The exit code of all: 2 before others, which may follow from it."""
    codes = self.codes.values()
    return _USER_ERROR if _USER_ERROR in codes else max(codes)


class Launch:
  """A request carried out.

  Args:
    request: a `commands.Request`.
    keep: leaves the machine, and what runs on it, at the end.
    poll_seconds: between looks at the machine, and before a command that failed
      is tried again.
  """

  def __init__(self, request, *, keep=False, poll_seconds=15.0):
    self.request, self.keep, self.poll = request, keep, poll_seconds

  def run(self, *, attach=False, max_restarts=10):
    """Trains, on one machine after another; returns the exit code.

    Args:
      attach: begins with the machine and the training of an earlier launch.
      max_restarts: how many machines may be lost.
    """
    for left in range(max_restarts, -1, -1):
      try:
        with self._machine(there=attach):
          return self._train(started=attach)
      except LostError as lost:
        say(f'{lost}; restarts left: {left}')
        attach = False
    return _TRY_AGAIN

  @contextlib.contextmanager
  def _machine(self, *, there):
    """A machine while the block runs; a refused request leaves nothing."""
    ours, keep = there, self.keep
    try:
      if not there:
        with _uninterrupted():
          self._create()
          ours = True
      yield
    except LostError:
      keep = False
      raise
    finally:
      delete = commands.delete(self.request)
      if ours and keep:
        say(f'the machine costs money until: {shlex.join(delete)}')
      elif ours:
        with _uninterrupted():
          self._delete(delete)

  def _create(self):
    lines: list[str] = []
    if _stream(commands.create(self.request), lines.append):
      raise _refusal(self.request, '\n'.join(lines))

  def _delete(self, argv):
    for _ in range(_TRIES):
      if not _stream(argv, print) or self._state().name == 'NOT_FOUND':
        return
      time.sleep(self.poll)
    raise LaunchError(
      f'{self.request.name} could not be deleted and may still cost money:'
      f' {shlex.join(argv)}',
      _TRY_AGAIN,
    )

  def _state(self):
    found = subprocess.run(
      commands.describe(self.request), capture_output=True, text=True
    )
    if found.returncode:
      missing = 'NOT_FOUND' in found.stderr
      return _State('NOT_FOUND' if missing else None, found.stderr.strip())
    state = json.loads(found.stdout)['state']
    return _State(state['state'], json.dumps(state))

  def _check_there(self):
    """Raises LostError for a machine that is not there any more."""
    state = self._state()
    if state.name not in ('ACTIVE', None):
      raise LostError(f'{self.request.name} was taken away ({state.name})')

  def _train(self, *, started):
    self._wait()
    if not started:
      source.write_archive(self.request.archive)
      self._persist(commands.copy(self.request))
      self._persist(commands.install(self.request))
    try:
      if not started:
        self._persist(commands.start(self.request))
      return self._outcome()
    except KeyboardInterrupt:
      if not self.keep:
        say('training saves and ends; Ctrl-C again to not wait for it')
        _stream(commands.stop(self.request), print)
      raise

  def _wait(self):
    """Waits until the machine is there."""
    last, unknown = None, 0
    while True:
      state = self._state()
      if state != last:
        say(f'{self.request.name}: {state.name or state.words}')
        last = state
      if state.name == 'ACTIVE':
        return
      if state.name in _TAKEN:
        raise LostError(f'{self.request.name} was taken away ({state.name})')
      unknown = 0 if state.name else unknown + 1
      if unknown == _TRIES or (state.name and state.name not in _WAITING):
        raise _refusal(self.request, state.words)
      time.sleep(self.poll)

  def _persist(self, argv, log=None):
    """Runs a command on the workers until it has run to its end.

    Args:
      argv: the command.
      log: what takes its lines.

    Raises:
      LostError: the machine is no more.
      LaunchError: the command failed there, or they cannot be reached.
    """
    log, failures = log or _Log(), 0
    while failures < _TRIES:
      before = log.lines
      code = _stream(argv, log.show)
      if code == 0:
        return
      if code == commands.FAILED:
        raise LaunchError('a worker failed, see above', code)
      self._check_there()
      failures = failures + 1 if log.lines == before else 1
      say(f'no connection to {self.request.name} (gcloud ended with {code})')
      time.sleep(self.poll)
    raise LaunchError(f'{self.request.name} cannot be reached', _TRY_AGAIN)

  def _outcome(self):
    """Follows the training to its end; returns its exit code."""
    log = _Log()
    self._persist(commands.follow(self.request, log.nonce), log)
    if log.code == 0 and log.finished:
      return 0
    if log.code == 0:
      raise LostError('training saved its state and stopped')
    if log.code != _USER_ERROR:
      # Workers that lose another crash before Cloud says why.
      for _ in range(_LOOKS):
        time.sleep(self.poll)
        self._check_there()
    say(f'training failed with exit code {log.code}')
    return log.code


def _refusal(request, words):
  """The error for a machine that is not to be had."""
  what = f'{request.accelerator_type} in {request.zone}: {words}'
  if _QUOTA.search(words):
    kind = 'preemptible' if request.spot else 'on-demand'
    return LaunchError(
      f'no quota for {what}\nAsk for {kind} TPU quota in that zone at'
      ' https://console.cloud.google.com/iam-admin/quotas, delete what holds it'
      ' (gcloud compute tpus queued-resources list'
      f' --zone={request.zone}), or choose another zone or a smaller type'
    )
  return LaunchError(f'cannot have {what}')
