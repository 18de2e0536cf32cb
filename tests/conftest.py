"""Four fake CPU devices, strict shapes, and each program compiled once."""

import os
import signal
import tempfile
import time

# With fewer threads than devices the collectives of fake devices deadlock.
os.environ.setdefault('NPROC', '64')

import jax
import pytest

jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')
# Tests that train compile the same step again and again.
_cache = tempfile.TemporaryDirectory(prefix='hier_jax_tests_')
jax.config.update('jax_compilation_cache_dir', _cache.name)
jax.config.update('jax_persistent_cache_min_compile_time_secs', 0.3)

# A shell that runs the tests in the background has all of them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Seconds.
_LONG = 5


@pytest.fixture(autouse=True, scope='module')
def _forget_programs():
  """Frees each module's compiled programs.

  All of them together would hold more memory maps than Linux lets a process
  have (65,530), at which the compiler crashes.
  """
  yield
  jax.clear_caches()


@pytest.fixture(autouse=True)
def _forget_large_programs():
  """Frees them after a long test too: a whole run has thousands of maps."""
  start = time.monotonic()
  yield
  if time.monotonic() - start > _LONG:
    jax.clear_caches()
