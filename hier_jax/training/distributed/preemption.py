"""SIGTERM, on which all processes of a run stop in the same place."""

import contextlib
import itertools
import signal
import threading

from hier_jax.training.distributed import agreement

__all__ = ['Preemption']


class Preemption(contextlib.AbstractContextManager):
  """Asks a run to stop once SIGTERM has reached any of its agreement.

  SIGTERM is caught while the block runs, the first time alone: one more ends
  the process as it would have. All processes enter such blocks in the same
  order.
  """

  _blocks = itertools.count()

  def __init__(self):
    self._key = f'preemption/{next(self._blocks)}'
    self._asked = self._told = False
    self._previous = None
    self._lock = threading.Lock()
    self._place, self._last = 0, None
    self._open = contextlib.ExitStack()

  def __enter__(self):
    # No other thread may, nor does it get one.
    if threading.current_thread() is threading.main_thread():
      self._previous = signal.signal(signal.SIGTERM, self._ask)
    if not agreement.alone():
      listener = agreement.Listener(self._key, self._find_last)
      self._open.enter_context(listener)
    return self

  def __exit__(self, *unused):
    self._restore()
    self._open.close()

  def _ask(self, *unused):
    self._asked = True
    self._restore()

  def _restore(self):
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)
      self._previous = None

  def reached(self):
    """Whether the run is to stop here; the same in all agreement.

    Every process asks in the same places, such as after each step.
    """
    if agreement.alone():
      return self._asked
    if self._asked and not self._told:
      self._told = True
      agreement.tell_each(self._key, 'asked')
    with self._lock:
      self._place += 1
      return self._last is not None and self._place >= self._last

  def _find_last(self, asked):
    """Once any process is asked, finds a place that none is past."""
    # None goes on while they tell where they are.
    with self._lock:
      here = f'{self._key}/place'
      agreement.tell(f'{here}/{agreement.index()}', str(self._place))
      if not asked:
        return
      places = [
        int(agreement.ask(f'{here}/{i}')) for i in range(agreement.count())
      ]
      self._last = max(places) + 1
