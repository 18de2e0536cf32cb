"""How long the step compiles, its cache empty and filled."""

import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax

from experiments.benchmarks.common import report
from experiments.benchmarks.step import step_cases
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
