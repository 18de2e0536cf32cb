"""A run that is killed again and again, beside one that is left alone.

Each time the same command goes on. At the end the files are compared byte for
byte, and every array of every checkpoint bit for bit.
"""

import collections
import dataclasses
import os
import pathlib
import random
import shutil
import subprocess
import sys
import tempfile
import time

import numpy as np
import orbax.checkpoint as ocp

from experiments.benchmarks.common import report
from experiments.benchmarks.kill import child

_SCRIPT = 'experiments/benchmarks/kill/__main__.py'
_PACKAGES = 'hier_jax', 'jax', 'orbax-checkpoint', 'grain'
_FILES = 'config.json', 'metrics.jsonl', 'results.json'
# A run of seconds with all that a long one has: classes held out, checkpoints
# between evaluations and at them, an evaluation of the best at the end.
_SETTINGS = {
  'model.backbone': 'vit_test_patch4',
  'model.image_size': '8',
  'model.embedding_dim': '16',
  'model.dtype': 'float32',
  'loss.num_proxies': '32',
  'loss.hier.k': '6',
  'loss.hier.triplets_per_anchor': '5',
  'optim.lr': '1e-3',
  'optim.warmup_epochs': '0',
  'optim.adam_eps': '1e-8',
  'epochs': '4',
  'log_every': '5',
  'eval.hold_out': '5',
  'eval.every_epochs': '2',
  'eval.pixels': 'False',
  'checkpoint.every_epochs': '1',
}
# Phase -> times it begins before a run of a start is over, about, and seconds
# in which what it began is over.
_EXTENT = {
  'start': (1, 1.5),
  'data': (1, 1.0),
  'step': (25, 0.05),
  'save': (4, 0.4),
  'evaluation': (3, 0.4),
  'end': (1, 0.5),
}


@dataclasses.dataclass(frozen=True)
class Moment:
  """When a process is killed: so long after a phase began for the n-th time."""

  phase: str
  count: int
  seconds: float

  def __str__(self):
    return f'{self.phase}:{self.count}:{self.seconds:.3f}'


def moments(seed, phases=child.PHASES):
  """Yields moments without end, phase by phase."""
  rng = random.Random(seed)
  while True:
    for phase in phases:
      most, within = _EXTENT[phase]
      yield Moment(phase, rng.randint(1, most), rng.uniform(0, within))


def command(workdir):
  """Arguments of `hier-jax`."""
  settings = [f'--config.{key}={value}' for key, value in _SETTINGS.items()]
  return ['train', '--config=emoji', f'--workdir={workdir}', *settings]


def start(workdir, moment=None):
  """Runs the command to its end, or to a moment; returns its exit code."""
  program = ['-m', 'hier_jax']
  if moment is not None:
    program = ['-m', child.__name__, str(moment)]
  home = workdir.parent
  return subprocess.run(
    [sys.executable, *program, *command(workdir)],
    # Data are prepared anew, unless the environment knows a place.
    env={'TFDS_DATA_DIR': str(home / f'data_{workdir.name}')}
    | os.environ
    | {'JAX_COMPILATION_CACHE_DIR': str(home / 'programs')},
    stdout=subprocess.DEVNULL,
    stderr=(home / f'{workdir.name}.err').open('a'),
    check=False,
    cwd=report.ROOT,
  ).returncode


def steps(workdir):
  """Steps of the checkpoints that are whole."""
  names = [path.name for path in (workdir / 'checkpoints').glob('*')]
  return sorted(int(name) for name in names if name.isdigit())


def differences(ours, theirs):
  """What two workdirs differ in; nothing but the clock may."""
  found = [
    name
    for name in _FILES
    if (ours / name).read_bytes() != (theirs / name).read_bytes()
  ]
  if steps(ours) != steps(theirs):
    return [*found, f'checkpoints {steps(ours)} and {steps(theirs)}']
  for step in steps(ours):
    a, b = (_arrays(w / 'checkpoints' / str(step)) for w in (ours, theirs))
    if a.keys() != b.keys():
      found.append(f'arrays of checkpoint {step}')
      continue
    found += [
      f'{name} of checkpoint {step}'
      for name in a
      if not _same(a[name], b[name])
    ]
  return found


def _arrays(folder):
  """Name -> array of a checkpoint."""
  with ocp.StandardCheckpointer() as reader:
    found = reader.restore(folder / 'state')
  return {name: np.asarray(array) for name, array in found.items()}


def _same(a, b):
  return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def kill(folder, chosen, kills, tell=lambda *row: None):
  """Kills runs so many times in all; a run that ends makes room for a new one.

  Args:
    folder: where runs are made: `whole`, left alone, and `killed0` ...
    chosen: iterator of moments.
    kills: how many times a process must have been killed.
    tell: called with each moment, steps of checkpoints and lines of the log
      that were there when it had come.

  Returns:
    How often each phase was hit, and a list a run of what differs from `whole`.
  """
  if code := start(folder / 'whole'):
    raise RuntimeError(f'the run that is left alone ended with {code}')
  hit: collections.Counter = collections.Counter()
  differing, killed = [], None
  while hit.total() < kills:
    killed = folder / f'killed{len(differing)}' if killed is None else killed
    moment = next(chosen)
    code = start(killed, moment)
    if code == -9:
      hit[moment.phase] += 1
      log = killed / 'metrics.jsonl'
      lines = len(log.read_text().splitlines()) if log.exists() else 0
      tell(moment, steps(killed), lines)
    elif code == 0:
      differing.append(differences(folder / 'whole', killed))
      killed = None
    else:
      raise RuntimeError(f'a run ended with {code}, see {killed}.err')
  if killed is not None:
    if code := start(killed):
      raise RuntimeError(f'the last start ended with {code}, see {killed}.err')
    differing.append(differences(folder / 'whole', killed))
  return hit, differing


def main():
  """Kills a run, prints when and what came of it, and fails if it shows."""
  parser = report.parser(__doc__.splitlines()[0], 'kill_test.md')
  parser.add_argument('--kills', type=int, default=30)
  parser.add_argument('--seed', type=int, default=0)
  args = parser.parse_args()
  kills = 6 if args.quick else args.kills
  folder, began = pathlib.Path(tempfile.mkdtemp()), time.monotonic()
  rows = []

  def tell(moment, steps, lines):
    row = [
      f'{moment.phase}, time {moment.count}',
      f'{moment.seconds:.2f} s',
      ', '.join(map(str, steps)) or 'none',
      str(lines),
    ]
    rows.append(row)
    print(len(rows), *row, sep=' | ', file=sys.stderr, flush=True)

  hit, differing = kill(folder, moments(args.seed), kills, tell)
  wrong = [name for names in differing for name in names]
  heading = ['killed in', 'after', 'checkpoints then', 'log lines then']
  text = '\n\n'.join(
    [
      f'{report.machine()}; {report.versions(_PACKAGES)}; seed {args.seed},'
      f' {(time.monotonic() - began) / 60:.0f} min.',
      report.table(heading, rows),
      f'{hit.total()} kills ('
      + ', '.join(f'{name} {n}' for name, n in hit.items())
      + f') in {len(differing)} runs. Different from the run that was left'
      f' alone: {", ".join(wrong) or "nothing"}, in {", ".join(_FILES)} and'
      ' in the arrays of the checkpoints'
      f' {", ".join(map(str, steps(folder / "whole")))}.',
    ]
  )
  report.emit(args, _SCRIPT, text)
  shutil.rmtree(folder)
  if wrong:
    sys.exit('error: a killed run did not end as the one left alone')


if __name__ == '__main__':
  main()
