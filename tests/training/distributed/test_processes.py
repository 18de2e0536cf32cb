"""Two real processes of two devices each, and what a lone one is told."""

import contextlib
import functools
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import jax
import numpy as np
import pytest

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.training.distributed import mapping, preemption, processes
from hier_jax.training.run.checkpoint import Checkpoints
from tests.support import (
  fake_bucket,
  places,
  ports,
  process_child,
  shared_programs,
)

ROOT = places.ROOT
# Seconds in which a child that works has long ended, on a busy machine too.
PATIENCE = 600


def start(*args, stdout=subprocess.PIPE, **env):
  return subprocess.Popen(
    [sys.executable, '-m', 'tests.support.process_child', *map(str, args)],
    cwd=ROOT,
    env={**os.environ, 'NPROC': '64', **env},
    stdout=stdout,
    stderr=subprocess.PIPE,
    text=True,
  )


def told(text):
  """The lines that a child says, of all that was printed."""
  words = 'start|step|batch|state|threads'
  return [line for line in text.splitlines() if re.match(words, line)]


class Pair:
  """Two processes of one run; what differs of the second is in `second`."""

  def __init__(self, *args, second=()):
    self.reserved = contextlib.ExitStack()
    address = f'localhost:{self.reserved.enter_context(ports.reserved())}'
    # Files can be read while the children write, and again at the end.
    self.outputs = [tempfile.TemporaryFile() for _ in range(2)]  # noqa: SIM115
    self.children = [
      start(
        *args,
        *(second if i else ()),
        stdout=self.outputs[i],
        JAX_COORDINATOR_ADDRESS=address,
        JAX_NUM_PROCESSES='2',
        JAX_PROCESS_ID=str(i),
      )
      for i in range(2)
    ]

  def __enter__(self):
    return self

  def __exit__(self, *unused):
    for child in self.children:
      child.kill()
      child.communicate()
    for output in self.outputs:
      output.close()
    self.reserved.close()

  def lines(self, i):
    """Whole lines of a child's output so far."""
    # A descriptor is shared with the child, and so is its place in the file.
    found = os.pread(self.outputs[i].fileno(), 2**20, 0).decode()
    return told(found[: found.rfind('\n') + 1])

  def wait_for(self, word, number):
    begins = [word, str(number)]
    for i, child in enumerate(self.children):
      while not any(line.split()[:2] == begins for line in self.lines(i)):
        if child.poll() is not None:
          raise AssertionError(child.stderr.read()[-2000:])
        time.sleep(0.01)

  def end(self):
    """Exit codes, lines of the outputs, and the errors."""
    errors = [c.communicate(timeout=PATIENCE)[1] for c in self.children]
    codes = [child.returncode for child in self.children]
    lines = [self.lines(i) for i in range(2)]
    if codes == [0, 0]:
      # Another that came back to Python while that ends would abort it.
      assert [found.pop() for found in lines] == ['threads MainThread'] * 2
    return codes, lines, errors


def alone(capfd, made, workdir, *args, **mapped):
  """What a child would say that is alone, in this process."""
  args = process_child.parsed(workdir, *args)
  capfd.readouterr()
  process_child.train(args, made, workdir, **mapped)
  return told(capfd.readouterr().out)


def steps_in(folder):
  return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def losses(lines):
  found = [line.split() for line in lines if line.startswith('step')]
  return np.array([float.fromhex(line[2]) for line in found])


@pytest.mark.slow
def test_two_processes_make_the_numbers_of_one(tmp_path, monkeypatch, capfd):
  args = '--vit', '--steps', 4
  with Pair(*(tmp_path / by for by in mapping.MAPS), *args) as pair:
    codes, (first, second), errors = pair.end()
  assert codes == [0, 0], errors
  assert first == second
  half = len(first) // 2
  two = first[:half]
  assert two == first[half:]
  # Sums over devices are in another order: a few units of the last place of
  # float32 after so few steps.
  close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
  shared_programs.use(monkeypatch)
  made = process_child.vit()
  one = alone(capfd, made, tmp_path / 'one', *args)
  assert len(two) == len(one) == 7
  close(losses(two), losses(one))
  state, _, _ = made
  states = []
  for name in ('pmap', 'one'):
    with Checkpoints(tmp_path / name) as checkpoints:
      assert checkpoints.latest_step == 3
      states.append(checkpoints.restore(state))
  assert_close(*states)

  # What two processes have saved, one goes on with.
  for mapped in (
    {},
    {'by': 'shard_map', 'devices': jax.local_devices()[:1]},
  ):
    folder = shutil.copytree(tmp_path / 'pmap', tmp_path / f'on{len(mapped)}')
    lines = alone(capfd, made, folder, *args, **mapped)
    assert lines[0] == 'start 3'
    close(losses(lines), losses(one)[3:])


def assert_close(a, b):
  """Of two states after three steps."""
  for ours, theirs in zip(*map(process_child.leaves, (a, b)), strict=True):
    scale = max(np.abs(ours).max(initial=0), 1e-3)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-5 * scale)


def test_sigterm_to_one_stops_both_after_the_same_step(tmp_path):
  """They start, agree, step together, save the same and exit with code 0."""
  args = (tmp_path, '--save_every', 10**6, '--sleep', 0.1, '--steps', 10**6)
  with Pair(*args) as pair:
    pair.wait_for('step', 3)
    first = terminated(pair, 1)
  last = int(first[-3].split()[1])
  assert last >= 3
  assert steps_in(tmp_path) == [last]


@pytest.mark.slow
def test_sigterm_to_one_stops_both_in_the_same_batch(tmp_path, capfd):
  """They go on with what one has saved."""
  alone(capfd, process_child.toy(), tmp_path)
  args = '--sleep', 0.1, '--steps', 5, '--batches', 10**6
  with Pair(tmp_path, *args) as pair:
    pair.wait_for('batch', 3)
    first = terminated(pair, 0)
  assert first[0] == 'start 3'
  assert int(first[-2].split()[1]) >= 3


def terminated(pair, number):
  """Lines of both, after SIGTERM to one."""
  pair.children[number].send_signal(signal.SIGTERM)
  asked = time.monotonic()
  codes, (first, second), errors = pair.end()
  assert time.monotonic() - asked < 30
  assert codes == [0, 0], errors
  assert first == second
  return first


@pytest.mark.slow
def test_a_second_sigterm_ends_a_process_at_once(tmp_path):
  with Pair(tmp_path, '--sleep', PATIENCE) as pair:
    pair.wait_for('step', 1)
    child, asked = pair.children[1], time.monotonic()
    # Two that come before the first is handled are one to the process.
    while child.poll() is None and time.monotonic() - asked < 30:
      child.send_signal(signal.SIGTERM)
      time.sleep(0.1)
    assert child.poll() == -signal.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize('killed', [0, 1])
def test_when_one_is_killed_the_other_ends_within_a_minute(tmp_path, killed):
  with Pair(tmp_path, '--steps', 10**6, '--sleep', 0.1) as pair:
    # By then the save of step 3 has ended, which that of step 6 waited for.
    pair.wait_for('step', 7)
    pair.children[killed].kill()
    dead = time.monotonic()
    codes, _, errors = pair.end()
    assert time.monotonic() - dead < 60
  assert codes[killed] == -signal.SIGKILL
  assert codes[1 - killed] not in (0, 2)
  # JAX's words where the coordinator has died.
  words = ['the leader (usually slice 0 task 0)', 'process 1 did not answer']
  assert words[killed] in errors[1 - killed]
  assert 3 in steps_in(tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize('failing', [0, 1])
def test_an_error_in_one_is_told_by_both(tmp_path, failing):
  args = ('--steps', 10**6, '--sleep', 0.1, '--fail', 3, failing)
  with Pair(tmp_path, *args) as pair:
    codes, _, errors = pair.end()
  assert codes == [2, 2], errors
  error = 'no space left for step 3'
  assert f'hier-jax: error: {error}\n' in errors[failing]
  other = f'hier-jax: error: process {failing} of 2 has stopped: {error}\n'
  assert other in errors[1 - failing]


@pytest.mark.slow
def test_different_configs_are_told_by_both(tmp_path):
  with Pair(tmp_path, second=['--seed', '7']) as pair:
    codes, _, errors = pair.end()
  assert codes == [2, 2], errors
  for error in errors:
    assert 'config.seed is 0 in process 0 and 7 in process 1' in error


@pytest.mark.parametrize('refusals', [0, 2])
def test_an_error_is_told_by_a_notice_in_a_bucket(monkeypatch, refusals):
  """Which the other process finds, also where the store refuses at first."""
  store, told, exits = fake_bucket.use(monkeypatch), threading.Event(), []
  refused = iter([True] * refusals)
  exists = fake_bucket.Buckets.exists

  def refusing(self, path, **kwargs):
    if next(refused, False):
      raise RuntimeError('503: try again')
    return exists(self, path, **kwargs)

  def leave():
    # Who failed leaves once the other has read why.
    if threading.current_thread() is threading.main_thread():
      assert told.wait(30)

  def exit(*args):
    exits.append(args)
    told.set()

  monkeypatch.setattr(fake_bucket.Buckets, 'exists', refusing)
  for name, replacement in {
    '_PERIOD': 0.01,
    '_missing': lambda name: 'process 0',
    '_leave': leave,
    '_exit': exit,
    'index': lambda: 1,
    'count': lambda: 2,
  }.items():
    monkeypatch.setattr(processes, name, replacement)
  monkeypatch.setattr(processes.atexit, 'register', lambda *unused: None)
  notice = paths.as_path('gs://bucket/runs/a') / 'stopped.1f.tmp'
  with processes._listening(notice):
    processes._part(UserError('no space left\nmuch more'), notice)
  assert exits[0] == (2, 'process 1 of 2 has stopped: no space left')
  assert next(refused, None) is None
  assert not store


def set_variables(monkeypatch, *values):
  for name, value in zip(processes._VARIABLES, values, strict=True):
    monkeypatch.delenv(name, raising=False)
    if value is not None:
      monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
  ('env', 'message'),
  [
    (('localhost:1', '2', None), 'JAX_NUM_PROCESSES set, but not JAX_PROCESS'),
    ((None, '2', '0'), 'but not JAX_COORDINATOR_ADDRESS: set all'),
    (('localhost:1', 'two', '0'), "JAX_NUM_PROCESSES is 'two', expected an"),
    (('localhost:1', '2', '2'), 'JAX_PROCESS_ID is 2, expected less than'),
    (('localhost', '2', '0'), "is 'localhost', expected HOST:PORT"),
    (('localhost:0', '2', '0'), "is 'localhost:0', expected HOST:PORT"),
  ],
)
def test_variables_that_are_wrong_are_named(monkeypatch, env, message):
  set_variables(monkeypatch, *env)
  with pytest.raises(UserError, match=message):
    processes.initialize()


def initialize(monkeypatch, *env):
  """Exit code and errors of a new process that waits two seconds for others."""
  set_variables(monkeypatch, *env)
  code = """
import sys
from hier_jax.errors import UserError
from hier_jax.training.distributed import processes

try:
  processes.initialize(timeout_s=2)
except UserError as error:
  sys.exit(str(error))
"""
  done = subprocess.run(
    [sys.executable, '-c', code],
    stderr=subprocess.PIPE,
    text=True,
    timeout=PATIENCE,
  )
  return done.returncode, done.stderr


@pytest.mark.slow
@pytest.mark.parametrize('place', ['0', '1'])
def test_a_process_whose_others_do_not_come_ends(monkeypatch, place):
  with ports.reserved() as port:
    address = f'localhost:{port}'
    code, error = initialize(monkeypatch, address, '2', place)
  assert code == 2
  assert f'has not met all others at {address} within 2 s' in error


@pytest.mark.slow
def test_an_address_alone_says_what_is_missing(monkeypatch):
  code, error = initialize(monkeypatch, 'localhost:1', None, None)
  assert code == 1
  assert 'is set, but not JAX_NUM_PROCESSES and JAX_PROCESS_ID' in error


def test_a_port_in_use_is_named(monkeypatch):
  with socket.socket(socket.AF_INET6) as other:
    other.bind(('::', 0))
    other.listen()
    address = f'localhost:{other.getsockname()[1]}'
    set_variables(monkeypatch, address, '2', '0')
    with pytest.raises(UserError, match=f'cannot listen at {address}'):
      processes.initialize()


@pytest.mark.parametrize('env', [{}, {'JAX_NUM_PROCESSES': '1'}])
def test_a_process_is_alone_where_nothing_says_otherwise(
  tmp_path, monkeypatch, env
):
  set_variables(monkeypatch, None, env.get('JAX_NUM_PROCESSES'), None)
  with processes.joined(tmp_path):
    assert (processes.index(), processes.count()) == (0, 1)
    processes.agree({'config.seed': '0'})
    assert processes.from_first(lambda: 'made') == 'made'


def test_all_that_differs_is_counted_and_named():
  same = {'code': 'a', 'config.seed': '0', 'split train': '7 records'}
  processes._compare([same, dict(same)])
  with pytest.raises(UserError) as caught:
    processes._compare(
      [same, same, {'code': 'b', 'config.seed': '0'}, {**same, 'code': 'c'}]
    )
  assert str(caught.value) == (
    'the processes of this run differ in 2 of 3 things: code is a in process 0'
    ' and b in process 2, split train is 7 records in process 0 and None in'
    ' process 2. Start all with the same code, packages, config and data'
  )


def test_the_first_sigterm_asks_and_the_next_is_as_before():
  caught = []
  before = signal.signal(signal.SIGTERM, lambda *unused: caught.append(1))
  try:
    with preemption.Preemption() as asked:
      assert not asked.reached()
      os.kill(os.getpid(), signal.SIGTERM)
      assert asked.reached()
      assert not caught
      os.kill(os.getpid(), signal.SIGTERM)
      assert caught == [1]
    with preemption.Preemption() as asked:
      assert not asked.reached()
    os.kill(os.getpid(), signal.SIGTERM)
    assert caught == [1, 1]
  finally:
    signal.signal(signal.SIGTERM, before)
