"""How soon a killed run's next process takes its first step."""

import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

from experiments.benchmarks.common import report
from experiments.benchmarks.step import step_cases


def first_step(sizes):
  """From the start of a killed run's next process to its first step."""
  rows = []
  with tempfile.TemporaryDirectory() as folder:
    folder = pathlib.Path(folder)
    _until(_Run(folder / 'run', folder / 'first').has_checkpoint)
    for name in ('empty', 'filled'):
      seconds = []
      for i in range(sizes.starts):
        cache = folder / ('kept' if name == 'filled' else f'empty{i}')
        if name == 'filled' and not i:
          _until(_Run(folder / 'run', cache).has_stepped)
        seconds.append(_until(_Run(folder / 'run', cache).has_stepped))
      rows.append(
        [
          f'cache {name}',
          f'{statistics.median(seconds):.1f}',
          ', '.join(f'{s:.1f}' for s in sorted(seconds)),
        ]
      )
  return [
    report.table(['restart of `quickstart.py`', 'median, s', 'each, s'], rows),
    '`hier-jax train` after `kill -9`: from the start of its process over'
    ' imports, data, the last checkpoint and the compiled step to the record of'
    f' its first step in `metrics.jsonl`. {sizes.starts} starts each.',
  ]


class _Run:
  """A process of `hier-jax train`.

  Args:
    workdir: of the run.
    cache: the user's cache folder.
  """

  def __init__(self, workdir, cache):
    self._workdir, self._log = workdir, workdir / 'metrics.jsonl'
    self._before = self._file()
    self.begin = time.monotonic()
    self.process = subprocess.Popen(
      [
        *(sys.executable, '-m', 'hier_jax', 'train'),
        '--config=quickstart',
        f'--workdir={workdir}',
        '--config.log_every=1',
        '--config.eval.pixels=False',
        '--config.checkpoint.every_epochs=1',
      ],
      env=step_cases.cached_in(cache),
      stdout=subprocess.DEVNULL,
      stderr=subprocess.DEVNULL,
      cwd=report.ROOT,
    )

  def _file(self):
    return self._log.stat().st_ino if self._log.exists() else None

  def _last_step(self):
    lines = self._log.read_text().splitlines()
    found = [json.loads(line) for line in lines if line.endswith('}')]
    return max((r['step'] for r in found if r['kind'] == 'train'), default=0)

  def _checkpoint(self):
    folders = (self._workdir / 'checkpoints').glob('[0-9]*')
    return max((int(f.name) for f in folders if f.name.isdecimal()), default=0)

  def has_checkpoint(self):
    return self._checkpoint() > 0

  def has_stepped(self):
    # At its start a run writes the log anew, up to its checkpoint.
    return (
      self._file() not in (None, self._before)
      and self._last_step() > self._checkpoint()
    )


def _until(condition):
  """Seconds from the start of the condition's run until it holds; kills it."""
  run = condition.__self__
  try:
    while not condition():
      if run.process.poll() is not None:
        raise SystemExit(f'the run ended with {run.process.returncode}')
      time.sleep(0.01)
    return time.monotonic() - run.begin
  finally:
    run.process.kill()
    run.process.wait()
