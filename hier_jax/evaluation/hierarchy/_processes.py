"""Ranking by levels in several processes, each of which takes one core.

It takes many short calls of NumPy, and threads wait for Python's lock between
these: two threads take 1.6 times the CPU time of one, and two processes the
same as one.

A process here is Python that is started anew. Unlike a worker of
`multiprocessing` it does not run the main module of the program, and it ends
within a second of the program, even where that was killed.
"""

import contextlib
import os
import pickle
import subprocess
import sys
import threading
import time
from typing import Any

import numpy as np

from hier_jax.errors import UserError
from hier_jax.evaluation.hierarchy import graded
from hier_jax.evaluation.hierarchy.graded import GradedPerQuery
from hier_jax.evaluation.retrieval._ranking import cores
from hier_jax.evaluation.retrieval.per_query import PerQuery

# Scores of a process at least: some five seconds of work, where a process takes
# two to start. And processes at most, as each takes 0.35 GB.
_SCORES, _MOST = 1 << 28, 8
# First of all it finds modules where the parent does, which may not be in the
# current folder. The parent is the one to take interrupts: it ends its
# processes.
_CODE = f"""
import sys
sys.path[:] = sys.argv[1:]
import signal
signal.signal(signal.SIGINT, signal.SIG_IGN)
from {__name__} import end_with_parent, main
end_with_parent()
main()
"""
# Seconds between two looks at whether the parent is there.
_LOOK = 1
_ONE_THREAD = dict.fromkeys(
  ('MKL_NUM_THREADS', 'OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS'), '1'
)

_Ranked = tuple[GradedPerQuery, PerQuery | None]


def number(num_queries: int, num_items: int) -> int:
  """How many processes are worth starting, on the cores of this one."""
  work = num_queries * num_items // _SCORES
  return max(1, min(work, cores(), _MOST if sys.executable else 1))


def ranked(processes: int, *, progress: bool = False, **arguments: Any) -> Any:
  """`graded.ranked` of all queries, shared out among processes.

  The share of a process that does not start or ends early, such as for lack of
  memory, is ranked in this one.

  Args:
    processes: how many to start; with 1 this one ranks all, in threads.
    progress: whether to show a bar, of the first process.
    **arguments: of `graded.ranked`, by name; not `rows`, `block` and `threads`.

  Returns:
    What `graded.ranked` returns.

  Raises:
    UserError: see `graded.ranked`.
  """
  if processes == 1:
    return graded.ranked(progress=progress, **arguments)
  num = len(arguments['embeddings'])
  items = arguments.get('gallery')
  block = graded.block_of(num if items is None else len(items)) // processes
  arguments |= {'block': max(1, block), 'threads': 1}
  shares = [np.arange(first, num, processes) for first in range(processes)]
  given = [
    arguments | {'rows': rows, 'progress': progress and rows is shares[0]}
    for rows in shares
  ]
  parts = [
    found or graded.ranked(**one)
    for found, one in zip(_found(given), given, strict=True)
  ]
  back = np.argsort(np.concatenate(shares))
  first, second = zip(*parts, strict=True)
  flat = None if second[0] is None else _together(second, back)
  return _together(first, back), flat


def _together(parts: tuple, back: np.ndarray) -> Any:
  """The results of all shares as one, in the order `back` of their rows."""
  columns = (
    np.concatenate(column)[back]
    if isinstance(column[0], np.ndarray)
    else column[0]
    for column in zip(*parts, strict=True)
  )
  return type(parts[0])(*columns)


def _found(given: list[dict[str, Any]]) -> list[_Ranked | None]:
  """What processes find; None of one that did not start or ended early."""
  # `Any`, for a type checker does not know that both pipes are there.
  children: list[Any] = []
  try:
    # All of them import their modules while the first is told its share.
    # The system may refuse to start more.
    with contextlib.suppress(OSError):
      for _ in given:
        children.append(_started())
    for child, one in zip(children, given, strict=False):
      # One that has ended reads nothing.
      with contextlib.suppress(OSError), child.stdin:
        pickle.dump(one, child.stdin)
    missing = len(given) - len(children)
    return [_result(child) for child in children] + [None] * missing
  finally:
    for child in children:
      child.kill()
      child.stdout.close()
      child.wait()


def _started() -> subprocess.Popen:
  """A process that runs `main`, and finds modules where this one does."""
  return subprocess.Popen(
    [sys.executable, '-c', _CODE, *sys.path],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    env={**os.environ, **_ONE_THREAD},
  )


def _result(child: Any) -> _Ranked | None:
  """What a process found, once it is there; None if it ended early."""
  written = child.stdout.read()
  if child.wait():
    return None
  found = pickle.loads(written)
  if isinstance(found, UserError):
    raise found
  return found


def end_with_parent() -> None:
  """Lets a thread end this process once its parent has ended."""
  watch = threading.Thread(target=_watch, args=[os.getppid()], daemon=True)
  watch.start()


def _watch(parent: int) -> None:
  while os.getppid() == parent:
    time.sleep(_LOOK)
  # No other call ends a process from a thread.
  os._exit(1)


def main() -> None:
  """Ranks what stdin holds, and writes what it finds to stdout."""
  # Whatever is printed must not get between.
  out, sys.stdout = sys.stdout.buffer, sys.stderr
  found: _Ranked | UserError
  try:
    found = graded.ranked(**pickle.load(sys.stdin.buffer))
  except UserError as error:
    found = error
  pickle.dump(found, out)
