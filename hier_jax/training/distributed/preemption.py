"""SIGTERM, on which all processes of a run stop in the same place.

JAX's preemption service tells the other processes and chooses the place.
"""

import contextlib
import ctypes
import functools
import itertools
import signal
import threading
import types
from collections.abc import Callable
from typing import Self

import jax
from jax.experimental import multihost_utils

__all__ = ['Preemption', 'jax_handler']

# What catches a signal, as `signal.signal` takes and returns it.
_Handler = Callable[[int, types.FrameType | None], object] | int | None


class Preemption(contextlib.AbstractContextManager['Preemption']):
  """Asks a run to stop once SIGTERM has reached any of its processes.

  SIGTERM is caught while the block runs, the first time only: one more ends the
  process as it would have.
  """

  # JAX takes the step after the latest at which any process has asked, so
  # that all places of a program need numbers of their own.
  _places = itertools.count(1)

  def __init__(self) -> None:
    self._asked = self._reached = False
    self._previous: _Handler = None
    self._tell_jax: Callable[[int], object] | None = None

  def __enter__(self) -> Self:
    # Only the main thread may catch signals.
    if threading.current_thread() is threading.main_thread():
      if jax.distributed.is_initialized():
        self._tell_jax = jax_handler()
      self._previous = signal.signal(signal.SIGTERM, self._ask)
    return self

  def __exit__(self, *unused: object) -> None:
    self._restore()

  def _ask(self, number: int, _: object) -> None:
    self._asked = True
    self._restore()
    if self._tell_jax is not None:
      self._tell_jax(number)

  def _restore(self) -> None:
    if self._previous is not None:
      signal.signal(signal.SIGTERM, self._previous)
      self._previous = None

  def reached(self) -> bool:
    """Whether the run is to stop here, the same in all processes.

    Every process asks in the same places, such as after each step.
    """
    if not jax.distributed.is_initialized():
      return self._asked
    if not self._reached:
      place = next(self._places)
      self._reached = multihost_utils.reached_preemption_sync_point(place)
    return self._reached


@functools.cache
def jax_handler() -> Callable[[int], object]:
  """Takes SIGTERM from JAX, and returns what JAX does on it as a function.

  JAX's own handler, in C, catches every SIGTERM. Called from one of Python's
  that catches the first, it tells the other processes just as well.
  """
  exchange = ctypes.CDLL(None).signal
  exchange.restype = ctypes.CFUNCTYPE(None, ctypes.c_int)
  handler = exchange(signal.SIGTERM, None)
  previous = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL
  signal.signal(signal.SIGTERM, previous)
  return handler
