"""How long programs compile: the step by its cache, and in CPU seconds."""

import dataclasses
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np

from experiments.benchmarks.common import report
from experiments.benchmarks.loss import cases
from experiments.benchmarks.step import step_cases
from hier_jax.training.distributed import mapping
from hier_jax.training.run import program_cache


def compile_step(sizes):
  """Compilation of the whole step in new processes, cache empty and filled."""
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    for name in ('empty', 'filled'):
      found = _in_new_process(sizes, folder)
      rows.append(
        [
          f'cache {name}',
          *(f'{found[k]:.1f}' for k in ('imports', 'trace', 'compile', 'all')),
          f'{found["hits"]} of {found["asked"]}',
        ]
      )
    cached = sum(
      f.stat().st_size for f in pathlib.Path(folder).rglob('*-cache')
    )
  heading = ['new process', 'imports, s', 'trace, s', 'compile, s', 'all, s']
  return [
    report.table([*heading, 'from the cache'], rows),
    f'{step_cases.in_words(sizes)}. From the start of the process to a'
    f' compiled step; the programs take {cached / 1e6:.1f} MB of the cache'
    ' that `hier-jax train` keeps for its user.',
  ]


def _in_new_process(sizes, cache):
  begin = time.time()
  command = [
    sys.executable,
    '-m',
    'experiments.benchmarks.step.train_step',
    '--compile_once',
    json.dumps(dataclasses.asdict(sizes)),
  ]
  ran = subprocess.run(
    command,
    env=step_cases.cached_in(cache) | {'BEGIN': str(begin)},
    cwd=report.ROOT,
    stdout=subprocess.PIPE,
    check=True,
    text=True,
  )
  return json.loads(ran.stdout.splitlines()[-1])


def compile_once(sizes):
  """What a new process runs: prints seconds as JSON."""
  begin = float(os.environ['BEGIN'])
  imported = time.time()
  counts = dict.fromkeys(('compile_requests_use_cache', 'cache_hits'), 0)

  def count(event, **_):
    name = event.rpartition('/')[2]
    if name in counts:
      counts[name] += 1

  jax.monitoring.register_event_listener(count)
  program_cache.keep_programs()
  made = step_cases.engine_of(sizes)
  seconds = {}
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, duration, **_: seconds.__setitem__(
      event, seconds.get(event, 0) + duration
    )
  )
  start = time.time()
  made.compile()
  compiling = seconds['/jax/core/compile/backend_compile_duration']
  done = time.time()
  print(
    json.dumps(
      {
        'imports': imported - begin,
        'trace': done - start - compiling,
        'compile': compiling,
        'all': done - begin,
        'hits': counts['cache_hits'],
        'asked': counts['compile_requests_use_cache'],
      }
    )
  )


_BLOCKS = {'a loop of Python': False, 'one loop on the device': True}


def hier_seconds(sizes):
  """CPU seconds of HIER's value and gradient, of a small batch and a usual."""
  del sizes

  def program(b, p):
    arguments = cases.Case.create(b, p, 128, 0).arguments
    return lambda: jax.jit(cases.value_and_grad()).lower(*arguments)

  lowers = {
    f'HIER, B = {b}, P = {p}, D = 128': program(b, p)
    for b, p in ((80, 64), (180, 512))
  }
  return [
    *_seconds(lowers, rounds=3, target=2),
    'CPU seconds of all threads, the least of 3.',
  ]


def step_seconds(sizes):
  """CPU seconds of the step, by how blocks are run."""

  def program(scan):
    made = step_cases.engine_of(sizes, scan_blocks=scan)
    return lambda: mapping.lower_step(made.step, made.state, made.batch)

  lowers = {
    f'ViT-S/16 step, blocks as {name}': program(scan)
    for name, scan in _BLOCKS.items()
  }
  return [
    *_seconds(lowers, rounds=1, target=8),
    f'CPU seconds of all threads: {step_cases.in_words(sizes)}.',
  ]


def _seconds(lowers, rounds, target):
  """A table of what programs take, by name, and a figure of each."""
  found = {name: _least(lower, rounds) for name, lower in lowers.items()}
  rows = [[name, *(f'{s:.1f}' for s in pair)] for name, pair in found.items()]
  return [
    report.table(['program', 'trace and lower, s', 'compile, s'], rows),
    *(
      report.Figure(
        f'{name}, traced and compiled',
        f'{sum(pair):.1f} s of CPU',
        f'at most {target} s of CPU',
      )
      for name, pair in found.items()
    ),
  ]


def _least(lower, rounds):
  """The least CPU seconds of tracing and lowering, and of compiling."""
  found = []
  for _ in range(rounds):
    jax.clear_caches()
    start = time.process_time()
    lowered = lower()
    middle = time.process_time()
    lowered.compile()
    found.append((middle - start, time.process_time() - middle))
  return min(found, key=sum)


def blocks(sizes):
  """Memory and CPU time of steps, by how blocks are run."""
  small = dataclasses.replace(
    sizes, images=sizes.micro_batch or sizes.images, micro_batch=0
  )
  steps = {
    name: _Step(step_cases.engine_of(small, scan_blocks=scan))
    for name, scan in _BLOCKS.items()
  }
  for _ in range(sizes.steps):
    for step in steps.values():
      step.run()
  first = next(iter(steps.values())).seconds
  rows = [
    [
      name,
      f'{1e3 * statistics.median(step.seconds):,.0f}',
      f'{statistics.median(np.divide(step.seconds, first)):.3f}',
      f'{step.temporary_mb:,.0f}',
    ]
    for name, step in steps.items()
  ]
  return [
    report.table(['blocks as', 'CPU ms', 'ratio', 'temporaries, MB'], rows),
    f'{step_cases.in_words(small)}. Medians of {sizes.steps} steps in turns.',
  ]


class _Step:
  """A compiled step, and the CPU seconds of each time."""

  def __init__(self, made):
    self._step = made.compile()
    memory = self._step.memory_analysis()
    self.temporary_mb = memory.temp_size_in_bytes / 1e6
    batch = jax.tree.map(np.asarray, made.draw())
    self._batch = jax.device_put(mapping.spread(batch))
    self._state = made.init()
    self.seconds = []
    self.run()
    self.seconds.clear()

  def run(self):
    """One step."""
    start = time.process_time()
    self._state, _ = self._step(self._state, self._batch)
    jax.block_until_ready(self._state)
    self.seconds.append(time.process_time() - start)
