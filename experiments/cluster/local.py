"""One command as several processes of this machine, which find each other."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
import time

__all__ = ['environment', 'run']

# Seconds between looks at the processes.
_PERIOD = 0.1


def environment(index, count, port):
  """What tells process `index` of `count` who and where it is."""
  return {
    'JAX_COORDINATOR_ADDRESS': f'localhost:{port}',
    'JAX_NUM_PROCESSES': str(count),
    'JAX_PROCESS_ID': str(index),
    # With fewer threads than devices the collectives of fake CPU devices
    # deadlock.
    'NPROC': os.environ.get('NPROC', '64'),
    'PYTHONUNBUFFERED': '1',
  }


def run(argv, count, *, grace=45):
  """Runs a command as several processes, and prints what each says after [i].

  Where one fails, the others end as well: by themselves, which they do when
  they miss it, or else by SIGTERM, or else by SIGKILL. SIGINT and SIGTERM of
  this process are passed on to all.

  Args:
    argv: the command.
    count: how many.
    grace: seconds from the failure to SIGTERM, and from there to SIGKILL.

  Returns:
    0, or the exit code of the first that failed, 128 + the signal's number
    where a signal ended it.
  """
  with socket.socket() as free:
    free.bind(('localhost', 0))
    port = free.getsockname()[1]
  processes: list[subprocess.Popen] = []
  with _passed_on(processes):
    for i in range(count):
      processes.append(
        subprocess.Popen(
          argv,
          env=os.environ | environment(i, count, port),
          stdin=subprocess.DEVNULL,
          stdout=subprocess.PIPE,
          stderr=subprocess.STDOUT,
          text=True,
          errors='replace',
          # A terminal's Ctrl-C reaches them once, by way of this process.
          start_new_session=True,
        )
      )
    printers = [
      threading.Thread(target=_print_lines, args=(i, process.stdout))
      for i, process in enumerate(processes)
    ]
    for printer in printers:
      printer.start()
    code = _wait(processes, grace)
    for printer in printers:
      printer.join()
  return code


def _print_lines(index, lines):
  for line in lines:
    # One write a line, so that other processes' lines don't come between.
    sys.stdout.write(f'[{index}] {line.rstrip()}\n')
    sys.stdout.flush()


@contextlib.contextmanager
def _passed_on(processes):
  def send(number, _):
    for process in processes:
      process.send_signal(number)

  numbers = signal.SIGINT, signal.SIGTERM
  before = [signal.signal(number, send) for number in numbers]
  try:
    yield
  finally:
    for process in processes:
      if process.poll() is None:
        process.kill()
    for number, handler in zip(numbers, before, strict=True):
      signal.signal(number, handler)


def _wait(processes, grace):
  """Waits for all; returns the first exit code that is not 0."""
  code, deadline, measures = 0, 0.0, ['terminate', 'kill']
  while True:
    codes = [process.poll() for process in processes]
    if code == 0 and any(codes):
      code = next(c for c in codes if c)
      deadline = time.monotonic() + grace
    if None not in codes:
      return code if code >= 0 else 128 - code
    if code and measures and time.monotonic() > deadline:
      measure = measures.pop(0)
      for process in processes:
        # Does nothing to one that has ended.
        getattr(process, measure)()
      deadline = time.monotonic() + grace
    time.sleep(_PERIOD)
