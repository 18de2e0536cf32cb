"""What keeps several threads from holding too much memory."""

import collections
import contextlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import TypeVar

__all__ = ['Budget', 'in_order']

Item = TypeVar('Item')
Made = TypeVar('Made')


class Budget:
  """An amount that several threads share; who finds too little left waits.

  Args:
    most: the amount. Who wants more waits for all of it.
  """

  def __init__(self, most: int) -> None:
    self._most = self._left = most
    self._changed = threading.Condition()

  @contextlib.contextmanager
  def taken(self, wanted: int) -> Iterator[None]:
    """Takes a part of it for the time of a block."""
    wanted = min(wanted, self._most)
    with self._changed:
      self._changed.wait_for(lambda: self._left >= wanted)
      self._left -= wanted
    try:
      yield
    finally:
      with self._changed:
        self._left += wanted
        self._changed.notify_all()


def in_order(
  make: Callable[[Item], Made], items: Iterable[Item], num_threads: int
) -> Iterator[Made]:
  """Yields what is made of each item, in order.

  Args:
    make: called by the threads; what it raises is raised here.
    items: what to make it of.
    num_threads: threads; twice as many results are made ahead, and no more. 0
      makes each in the caller's when it is asked for.
  """
  if not num_threads:
    yield from map(make, items)
    return
  waiting: collections.deque[futures.Future[Made]] = collections.deque()
  with futures.ThreadPoolExecutor(num_threads) as pool:
    for item in items:
      waiting.append(pool.submit(make, item))
      if len(waiting) > 2 * num_threads:
        yield waiting.popleft().result()
    while waiting:
      yield waiting.popleft().result()
