"""Threads that hold no more than they may."""

import threading
import time
from concurrent import futures

import pytest

from hier_jax.data import threads


def test_a_budget_is_never_exceeded():
  budget, lock = threads.Budget(10), threading.Lock()
  now, peak = 0, 0

  def work(amount):
    nonlocal now, peak
    with budget.taken(amount):
      with lock:
        now += min(amount, 10)
        peak = max(peak, now)
      time.sleep(0.002)
      with lock:
        now -= min(amount, 10)

  with futures.ThreadPoolExecutor(8) as pool:
    # 25 is more than there is: it goes on alone.
    list(pool.map(work, [3, 4, 10, 25, 1, 6] * 8))
  assert (now, peak) == (0, 10)


def test_a_budget_is_given_back_after_an_error():
  budget = threads.Budget(1)
  for _ in range(2):
    with pytest.raises(KeyError), budget.taken(1):
      raise KeyError


@pytest.mark.parametrize('num_threads', [0, 1, 4])
def test_results_come_in_order_and_few_are_made_ahead(num_threads):
  made = []

  def make(i):
    time.sleep(0.001 * (i % 3))
    made.append(i)
    return i

  found = threads.in_order(make, iter(range(100)), num_threads)
  assert [next(found) for _ in range(10)] == list(range(10))
  assert len(made) <= 10 + 2 * num_threads + 1
  assert list(found) == list(range(10, 100))


@pytest.mark.parametrize('num_threads', [0, 3])
def test_errors_are_raised(num_threads):
  found = threads.in_order(lambda i: 1 // i, [1, 2, 0, 3], num_threads)
  with pytest.raises(ZeroDivisionError):
    list(found)
