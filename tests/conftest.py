"""Four fake CPU devices, strict shapes, and programs that compile quickly.

Compiling is most of what the tests take. Without optimization it takes a fifth,
and says the same of formulas, of devices and of runs. Tests of digits, memory,
or the program as a user has it are marked `optimized`.
"""

import gc
import importlib.metadata
import os
import pathlib
import signal
import tempfile
import time

# `JAX_PLATFORMS=cuda pytest -m accelerator` runs there what must hold there.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# With fewer threads than devices the collectives of fake devices deadlock.
os.environ.setdefault('NPROC', '64')
if os.environ['JAX_PLATFORMS'] == 'cpu':
  # For the tests' own programs as well as for those in processes of theirs.
  os.environ['JAX_DISABLE_MOST_OPTIMIZATIONS'] = '1'
  # Splitting a program to compile its parts in parallel takes a tenth more CPU
  # time in all.
  _flags = ['--xla_cpu_parallel_codegen_split_count=1']
  # These emitters double what compiling takes, and only XLA_FLAGS can choose
  # them: `XLA_FLAGS=--xla_cpu_use_fusion_emitters=true pytest -m optimized`
  # compiles as users do. From 0.11 on jaxlib does not know the flag and exits.
  if importlib.metadata.version('jaxlib').startswith('0.10.'):
    _flags.append('--xla_cpu_use_fusion_emitters=false')
  os.environ['XLA_FLAGS'] = ' '.join([*_flags, os.environ.get('XLA_FLAGS', '')])
# Tests that train compile the same step again and again, also in processes of
# their own, and beside each other: by a limit JAX locks the folder.
if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
  _programs = tempfile.TemporaryDirectory(prefix='hier_jax_tests_')
  os.environ |= {
    'JAX_COMPILATION_CACHE_DIR': _programs.name,
    'JAX_COMPILATION_CACHE_MAX_SIZE': str(2 * 10**9),
    'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.3',
  }

import jax
import pytest

from tests.support import schedule

_ON_CPU = os.environ['JAX_PLATFORMS'] == 'cpu'
if _ON_CPU:
  jax.config.update('jax_num_cpu_devices', 4)
jax.config.update('jax_numpy_rank_promotion', 'raise')

# Tracing makes so many objects that Python's own thresholds take a tenth of the
# time. With these all garbage still goes about twice a minute, and with it the
# programs that cycles keep.
gc.set_threshold(20_000, 10, 5)

# A shell that runs the tests in the background has all of them ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)

# Seconds of CPU time.
_LONG = 5


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
  """As `--dist loadfile`, by the scopes and the order of tests/support."""
  from xdist.scheduler import LoadFileScheduling

  class Scheduling(LoadFileScheduling):
    def _split_scope(self, nodeid):
      return schedule.scope(nodeid)

  if config.getvalue('dist') == 'loadfile':
    # From 3.7 on, pytest-xdist would begin with the files of most tests.
    config.option.loadscopereorder = False
    return Scheduling(config, log)
  return None


# Folders and files of tests/ whose tests are `accelerator`'s, but for those of
# several devices.
_ON_ACCELERATORS = (
  'evaluation/retrieval/test_metrics.py',
  'evaluation/retrieval/test_ranking.py',
  'losses/',
  'models/test_resnet.py',
  'models/test_transformer.py',
  'models/test_vit.py',
  'poincare/',
  'test_layers.py',
  'test_lorentz.py',
  'test_mining.py',
  'test_numerics.py',
  'training/step/test_accelerator.py',
)


def pytest_collection_modifyitems(items):
  """Marks what must hold on an accelerator as well; the longest begin first."""
  here = pathlib.Path(__file__).parent
  for item in items:
    if str(item.path.relative_to(here)).startswith(_ON_ACCELERATORS):
      item.add_marker('accelerator')
  items.sort(key=lambda item: schedule.rank(item.nodeid))


def pytest_collection_finish():
  """Spares the garbage collector what lasts as long as the process."""
  gc.freeze()


def pytest_runtest_setup(item):
  """Has programs optimized for tests that are marked so."""
  quick = _ON_CPU and item.get_closest_marker('optimized') is None
  if jax.config.read('jax_disable_most_optimizations') != quick:
    jax.clear_caches()
    jax.config.update('jax_disable_most_optimizations', quick)


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
  start = time.process_time()
  yield
  if time.process_time() - start > _LONG:
    jax.clear_caches()
