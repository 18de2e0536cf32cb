"""What exact retrieval metrics cost, beside index libraries and loops.

Every measurement is a process of its own, so that its peak memory is its own,
and contenders take turns: a busy machine hits them all alike.
"""

import collections
import dataclasses
import functools
import json
import statistics
import subprocess
import sys

from experiments.benchmarks.common import report, timing

_SCRIPT = 'experiments/benchmarks/retrieval/__main__.py'
_PACKAGES = (
  *('hier_jax', 'jax', 'jaxlib', 'numpy', 'faiss-cpu'),
  *('pytorch-metric-learning', 'torch'),
)
_RATE = 'matmul'
_BASE = 'best'
_NAMES = {
  'best': 'hier_jax, R@K',
  'map@r': 'hier_jax, R@K and MAP@R',
  'bfloat16': 'hier_jax, R@K, in bfloat16 first',
  'faiss, 1000': 'FAISS flat, the 1,001 nearest',
  'faiss, 12': 'FAISS flat, the 12 nearest',
  'metric learning': 'pytorch-metric-learning, R@1 and MAP@R',
  'row by row': 'a query at a time, R@K, extrapolated from 40',
}
_ONCE = 'metric learning', 'row by row'
_TASKS = {
  ('products', 'cosine'): tuple(_NAMES),
  ('products', 'hyperbolic'): (
    *('best', 'map@r', 'faiss, 1000', 'faiss, 12', 'row by row'),
  ),
  ('million', 'cosine'): ('best', 'map@r', 'faiss, 1000'),
}
_TITLES = {
  'products': '60,502 queries, themselves the gallery, 11,316 classes',
  'million': '10,000 queries, 1,000,000 others, 100,000 classes',
}


@dataclasses.dataclass(frozen=True)
class Sizes:
  """What is measured.

  Attributes:
    rounds: processes of each contender.
    share: of the classes and items.
  """

  rounds: int = 3
  share: float = 1.0


_QUICK = Sizes(1, 0.02)


def measure(contender, task, distance, share, runs=1) -> dict | None:
  """What a process of the contender reports; None where it cannot run."""
  command = [sys.executable, '-m', 'experiments.benchmarks.retrieval.cases']
  command += [contender, task, distance]
  command += ['--runs', str(runs), '--share', str(share)]
  done = subprocess.run(
    command, capture_output=True, text=True, check=False, cwd=report.ROOT
  )
  if done.returncode:
    last = done.stderr.strip().splitlines()[-1]
    print(f'{contender}: {last}', file=sys.stderr, flush=True)
    return None
  told = done.stdout.strip()
  print(contender, task, distance, told, file=sys.stderr, flush=True)
  return json.loads(done.stdout)


def measure_all(task, distance, sizes) -> dict[str, list[dict]]:
  """Measurements of each contender, a round each."""
  found = collections.defaultdict(list)
  names = [_RATE, *_TASKS[task, distance]]
  for turn in range(sizes.rounds):
    for name in list(names):
      if name in _ONCE and turn:
        continue
      runs = 1 if name in _ONCE else 2
      measured = measure(name, task, distance, sizes.share, runs)
      if measured is None:
        names.remove(name)
      else:
        found[name].append(measured)
  return found


def rows(found):
  """Table rows; the ratio is the median of the rounds' ratios."""
  rate = {
    clock: max(m[f'by_{clock}'] for m in found[_RATE])
    for clock in ('wall', 'cpu')
  }
  base = found[_BASE]
  for name, title in _NAMES.items():
    if not found[name]:
      continue
    median = lambda key, of=found[name]: statistics.median(m[key] for m in of)
    ratios = [
      statistics.median(
        m[clock] / b[clock] for m, b in zip(found[name], base, strict=False)
      )
      for clock in ('wall', 'cpu')
    ]
    shares = [base[0]['flop'] / median(k) / rate[k] for k in ('wall', 'cpu')]
    yield [
      title,
      f'{median("wall"):.3g}',
      timing.short(ratios[0]),
      f'{median("cpu"):.3g}',
      timing.short(ratios[1]),
      ' / '.join(f'{100 * share:.2g} %' for share in shares),
      f'{median("peak_mb") / 1e3:.2g}',
    ]


def section(task, distance, sizes):
  """Table, agreement and figures of one task."""
  found = measure_all(task, distance, sizes)
  heading = ['', 'wall, s', 'its ratio', 'CPU, s', 'its ratio']
  heading += ['of the rate, wall / CPU', 'peak, GB']
  table = list(rows(found))
  rate = max(m['by_wall'] for m in found[_RATE]) / 1e9
  text = [
    report.table(heading, table),
    'The rate is what a float32 product of 4096 x 4096 matrices reaches, the'
    f' best of {5 * sizes.rounds}: {rate:.0f} GFLOP/s.',
  ]
  if found['bfloat16']:
    share = (
      found['bfloat16'][0]['num_repeated'] / found[_BASE][0]['num_queries']
    )
    text.append(f'After bfloat16 {100 * share:.0f} % of the queries went on.')
  agreed = measure('agreement', task, distance, sizes.share)
  if agreed:
    text.append(
      f'Of {agreed["sampled"]} queries, {agreed["rank"]} have the rank and'
      f' {agreed["ap"]} the AP@R of a float64 ranking by the formula;'
      f' {agreed["near"]} have a positive and a negative so near that float32'
      f' may swap them, and {agreed["wrong"]} a rank that this does not'
      ' account for.'
    )
  rounds = 'a round' if sizes.rounds == 1 else f'{sizes.rounds} rounds'
  part = '' if sizes.share == 1 else f', {100 * sizes.share:g} % of all items'
  text.append(f'Medians of {rounds}{part}.')
  return [*text, *_figures(task, distance, table)]


def _figures(task, distance, table):
  """What a table says of R@K, and of FAISS beside it."""
  told = {row[0]: row[1:] for row in table}
  wall, _, cpu, _, rate, _ = told[_NAMES[_BASE]]
  where = f'{_TITLES[task]}, {distance}'
  yield report.Figure(
    f'R@K: {where}', f'{wall} s, {rate} of a product (wall / CPU)', '70 %'
  )
  if theirs := told.get(_NAMES['faiss, 1000']):
    yield report.Figure(
      f'R@K beside FAISS flat: {where}',
      f'{wall} s ({cpu} of CPU), FAISS {theirs[0]} s ({theirs[2]} of CPU)',
      'no slower than FAISS',
    )


_SECTIONS = {
  f'{task}/{distance}': (
    f'{_TITLES[task]}, D = 128, {distance}',
    functools.partial(section, task, distance),
  )
  for task, distance in _TASKS
}


def main():
  """Reads the command line."""
  parser = report.parser(__doc__, 'retrieval.md', _SECTIONS)
  parser.add_argument('--rounds', type=int, help='processes of each contender')
  args = parser.parse_args()
  sizes = report.chosen(args, _QUICK if args.quick else Sizes())
  report.emit_sections(args, _SCRIPT, _SECTIONS, _PACKAGES, sizes)


if __name__ == '__main__':
  main()
