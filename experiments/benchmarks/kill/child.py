r"""`hier-jax`, which kills itself with SIGKILL at a moment it is told.

    python -m experiments.benchmarks.kill.child PHASE:COUNT:SECONDS \
        train --config FILE --workdir DIR

COUNT-th time the phase begins, and so many seconds after that.
"""

import functools
import os
import signal
import sys
import threading

from hier_jax import cli
from hier_jax.data import datasets
from hier_jax.training.config import files as config_files
from hier_jax.training.distributed import mapping
from hier_jax.training.run import checkpoint, evaluator, loop

# Phase -> whose function it begins with.
_BEGINS = {
  'start': (config_files, 'load'),
  'data': (datasets, 'load'),
  'step': (mapping, 'map_step'),
  'save': (checkpoint.Checkpoints, 'save'),
  'evaluation': (evaluator.Evaluator, '_ranked'),
  'end': (loop._Run, '_results'),
}
PHASES = tuple(_BEGINS)


def _kill():
  os.kill(os.getpid(), signal.SIGKILL)


def _counting(function, count, seconds):
  """The function, whose `count`-th call is one of the last things done."""
  calls = 0

  @functools.wraps(function)
  def called(*args, **kwargs):
    nonlocal calls
    calls += 1
    if calls == count:
      timer = threading.Timer(seconds, _kill)
      timer.daemon = True
      timer.start()
    return function(*args, **kwargs)

  return called


def _arm(phase, count, seconds):
  owner, name = _BEGINS[phase]
  function = getattr(owner, name)
  if phase == 'step':
    made = lambda *args, **kwargs: _counting(
      function(*args, **kwargs), count, seconds
    )
  else:
    made = _counting(function, count, seconds)
  setattr(owner, name, made)


if __name__ == '__main__':
  _phase, _count, _seconds = sys.argv[1].split(':')
  _arm(_phase, int(_count), float(_seconds))
  sys.exit(cli.main(['hier-jax', *sys.argv[2:]]))
