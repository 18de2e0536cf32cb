"""Four fake CPU devices, strict shapes, and each program compiled once."""

import os
import signal
import tempfile
import time

# With fewer threads than devices the collectives of fake devices deadlock.
os.environ.setdefault('NPROC', '64')

import jax
import pytest
from jax._src import compiler

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


_QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_cpu_use_fusion_emitters': False,
}


@pytest.fixture(scope='module')
def compiled_quickly():
  """Programs run slower, and are compiled in a sixth of the time.

  For tests of what whole steps do, not of digits; child processes too.
  """
  plain = compiler.get_compile_options

  def quick(*args, env_options_overrides=None, **others):
    overrides = _QUICK | (env_options_overrides or {})
    return plain(*args, env_options_overrides=overrides, **others)

  # XLA reads its flags once, which are to be those of other modules.
  jax.devices()
  flags = ' '.join(f'--{name}={value}' for name, value in _QUICK.items())
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(compiler, 'get_compile_options', quick)
    patch.setenv('XLA_FLAGS', flags)
    yield


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
