"""What hierarchy metrics and trees of many items cost in time and memory.

Every measurement is a process of its own, so that its peak memory is its own.
"""

import contextlib
import dataclasses
import json
import os
import pathlib
import re
import resource
import subprocess
import sys
import tempfile
import time

from experiments.benchmarks.common import report
from experiments.benchmarks.hierarchy import cases

_SCRIPT = 'experiments/benchmarks/hierarchy/__main__.py'
_PACKAGES = 'hier_jax', 'numpy', 'scipy', 'jax'
_HEADING = 'CPU, s', 'wall, s', 'peak, GB'


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What is measured."""

  products: int = 60_502
  items: tuple[int, ...] = (5_000, 20_000, 60_502, 1_000_000)
  leaves: int = 1_000_000
  queries: int | None = None


_QUICK = Sizes(2_000, (500, 2_000), 10_000)


def _case(name: str, num: int, *options: str) -> dict:
  """What a process of a case reports."""
  command = [sys.executable, '-m', 'experiments.benchmarks.hierarchy.cases']
  done = subprocess.run(
    [*command, name, str(num), *options],
    capture_output=True,
    text=True,
    check=True,
    cwd=report.ROOT,
  )
  print(name, num, done.stdout.strip(), file=sys.stderr, flush=True)
  return json.loads(done.stdout)


def _row(name: str, found: dict, *more: str) -> list[str]:
  seconds = [found[key] for key in ('cpu', 'wall')]
  numbers = [f'{x:,.0f}' if x > 100 else f'{x:.2g}' for x in seconds]
  return [name, *numbers, f'{found["peak_mb"] / 1e3:.2g}', *more]


def _watched(pid: int) -> tuple[int, resource.struct_rusage, float]:
  """Waits for a process: its status, what it used, and its peak in MB."""
  ended, most = 0, 0.0
  while not ended:
    time.sleep(0.25)
    most = max(most, _memory(pid))
    ended, status, used = os.wait4(pid, os.WNOHANG)
  # What the largest process held for a moment may have been missed.
  return status, used, max(most, used.ru_maxrss / 1e3)


def _memory(pid: int | str) -> float:
  """MB of a process and of all below it, shared pages counted once."""
  total = 0.0
  process = pathlib.Path('/proc', str(pid))
  # One that has ended holds nothing.
  with contextlib.suppress(OSError):
    told = (process / 'smaps_rollup').read_text()
    found = re.search(r'^Pss:\s+(\d+)', told, re.M)
    total += int(found[1]) / 1e3 if found else 0
    for task in process.glob('task/*/children'):
      total += sum(map(_memory, task.read_text().split()))
  return total


def evaluate(sizes: Sizes) -> list:
  """The command line on files of one data set's size."""
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    files = cases.write_products(folder, sizes.products)
    command = [sys.executable, '-m', 'hier_jax', 'evaluate', *files]
    start = time.perf_counter()
    with (folder / 'out').open('w') as out:
      child = subprocess.Popen(command, stdout=out, cwd=report.ROOT)
      status, used, peak = _watched(child.pid)
    if status:
      sys.exit(f'error: {" ".join(command)} ended with {status}')
    found = {
      'wall': time.perf_counter() - start,
      'cpu': used.ru_utime + used.ru_stime,
      'peak_mb': peak,
    }
  title = f'evaluate, {sizes.products:,} items'
  return [
    f'`hier-jax evaluate` of {sizes.products:,} points of the ball, D = 128,'
    ' with 12 super classes above their classes: retrieval by hyperbolic'
    ' distance and by cosine, then all of the hierarchy. The command and the'
    ' processes that it starts, pages that they share counted once.',
    report.table(['', *_HEADING], [_row(title, found)]),
    report.Figure(
      f'`evaluate` of {sizes.products:,} x 128 with 12 super classes',
      f'{found["wall"]:.0f} s ({found["cpu"]:.0f} of CPU),'
      f' {found["peak_mb"] / 1e3:.1f} GB',
      '60 s on two cores',
    ),
  ]


def metrics(sizes: Sizes) -> list:
  """All metrics of the hierarchy, by the number of items."""
  rows, figures = [], []
  for num in sizes.items:
    # The last is the one that takes long.
    fewer = sizes.queries and num == sizes.items[-1]
    options = ['--queries', str(sizes.queries)] if fewer else []
    found = _case('metrics', num, *options)
    ranked = found.get('num_ranked', num)
    value = f'{found["h_ap"]:.4f}'
    if 'h_ap/ci95' in found:
      value += f' +- {found["h_ap/ci95"]:.4f}'
    rows.append(_row(f'{num:,}', found, f'{ranked:,}', value))
    figures.append(
      report.Figure(
        f'hierarchy metrics of {num:,} x 128, {ranked:,} queries ranked',
        f'{found["cpu"]:.0f} s of CPU, {found["peak_mb"] / 1e3:.1f} GB',
        'minutes, 4 GB',
      )
    )
  return [
    '`evaluation.hierarchy_metrics`, hyperbolic, 5 items a class, 12 super'
    ' classes. Where all items with one another would be more than 2^33 scores,'
    ' queries are drawn at random; the interval is one of 95 %. Peak memory is'
    ' of the whole process, data and libraries with it.',
    report.table(['items', *_HEADING, 'queries ranked', 'H-AP'], rows),
    *figures[-2:],
  ]


def trees(sizes: Sizes) -> list:
  """A large tree, written, read, cut and measured."""
  rows, found = [], {}
  for name in list(cases.CASES)[1:]:
    found[name] = _case(name, sizes.leaves)
    told = ''
    if 'file_mb' in found[name]:
      told = f'{found[name]["file_mb"]:.0f} MB'
    elif 'low' in found[name]:
      told = '{value:.4f} ({low:.4f} to {high:.4f})'.format(**found[name])
    elif 'value' in found[name]:
      told = f'{found[name]["value"]:.4f}'
    rows.append(_row(name, found[name], told))
  steps = 'write .json', 'read .json', 'cut into 1,000'
  took = [f'{found[name]["cpu"]:.0f}' for name in steps]
  most = max(found[name]['peak_mb'] for name in steps)
  more = {
    f'metrics of common ancestors of {sizes.leaves:,} leaves': cases.TRIPLES,
    f'tree of {sizes.leaves:,} items by {cases.NUM_PROXIES} proxies': (
      cases.PROXY_TREE
    ),
  }
  return [
    f'A random binary tree of {sizes.leaves:,} leaves with names, heights and'
    ' lengths of edges. Purity is taken over classes of about 5 leaves, with a'
    ' 95 % interval; above 1,000,000 leaves pairs are drawn unless'
    ' `max_exact` says otherwise. The triples are 1,000 leaves drawn at random'
    ' with all pairs of others (`lca_agreement`); its value is the share that'
    ' the tree orders as the taxonomy. The tree by proxies is `proxy_tree` of'
    f' {sizes.leaves:,} points, D = 128, at k = 1.',
    report.table(['', *_HEADING, ''], rows),
    report.Figure(
      f'tree of {sizes.leaves:,} leaves: write JSON, read, cut',
      f'{", ".join(took)} s of CPU; at most {most / 1e3:.1f} GB',
      'minutes, 4 GB',
    ),
    *(
      report.Figure(
        what,
        f'{found[name]["cpu"]:.0f} s of CPU,'
        f' {found[name]["peak_mb"] / 1e3:.1f} GB',
        'minutes, 4 GB',
      )
      for what, name in more.items()
    ),
  ]


_SECTIONS = {
  'evaluate': ('The command line', evaluate),
  'metrics': ('Metrics by the number of items', metrics),
  'trees': ('A large tree', trees),
}


def main() -> None:
  """Reads the command line."""
  parser = report.parser(__doc__, 'hierarchy.md', _SECTIONS)
  parser.add_argument(
    '--items', type=int, nargs='+', help='items of the section of metrics'
  )
  parser.add_argument(
    '--queries',
    type=int,
    help='queries to rank of the last of these, in place of 2^33 scores',
  )
  args = parser.parse_args()
  sizes = report.chosen(args, _QUICK if args.quick else Sizes())
  report.emit_sections(args, _SCRIPT, _SECTIONS, _PACKAGES, sizes)


if __name__ == '__main__':
  main()
