"""What exact retrieval metrics cost, beside index libraries and loops.

Every measurement is a process of its own, so that its peak memory is its own,
and contenders take turns: a busy machine hits them all alike.
"""

import argparse
import collections
import json
import statistics
import subprocess
import sys

from experiments import command_line
from experiments.benchmarks.common import report, timing

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


def measure(contender, task, distance, runs=1) -> dict | None:
  """What a process of the contender reports; None where it cannot run."""
  command = [sys.executable, '-m', 'experiments.benchmarks.retrieval.cases']
  command += [contender, task, distance, '--runs', str(runs)]
  done = subprocess.run(
    command, capture_output=True, text=True, check=False, cwd=report.ROOT
  )
  if done.returncode:
    print(f'{contender}: {done.stderr.strip().splitlines()[-1]}')
    return None
  print(contender, task, distance, done.stdout.strip(), flush=True)
  return json.loads(done.stdout)


def measure_all(task, distance, rounds) -> dict[str, list[dict]]:
  """Measurements of each contender, a round each."""
  found = collections.defaultdict(list)
  names = [_RATE, *_TASKS[task, distance]]
  for turn in range(rounds):
    for name in list(names):
      if name in _ONCE and turn:
        continue
      measured = measure(name, task, distance, 1 if name in _ONCE else 2)
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


def section(task, distance, rounds):
  """Heading, table and agreement of one task."""
  found = measure_all(task, distance, rounds)
  heading = ['', 'wall, s', 'its ratio', 'CPU, s', 'its ratio']
  heading += ['of the rate, wall / CPU', 'peak, GB']
  rate = max(m['by_wall'] for m in found[_RATE]) / 1e9
  text = [
    f'## {_TITLES[task]}, D = 128, {distance}',
    report.table(heading, rows(found)),
    f'The rate is that of a float32 product of 4096 x 4096 matrices, the best'
    f' of {5 * rounds}: {rate:.0f} GFLOP/s.',
  ]
  if found['bfloat16']:
    share = (
      found['bfloat16'][0]['num_repeated'] / found[_BASE][0]['num_queries']
    )
    text.append(f'After bfloat16 {100 * share:.0f} % of the queries went on.')
  agreed = measure('agreement', task, distance)
  if agreed:
    text.append(
      f'Of {agreed["sampled"]} queries, {agreed["rank"]} have the rank and'
      f' {agreed["ap"]} the AP@R of a float64 ranking by the formula;'
      f' {agreed["near"]} have a positive and a negative so near that float32'
      f' may swap them, and {agreed["wrong"]} a rank that this does not'
      ' account for.'
    )
  return text


def main():
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  parser.add_argument(
    '--out', type=command_line.path, default=report.RESULTS / 'retrieval.md'
  )
  parser.add_argument('--rounds', type=int, default=3)
  parser.add_argument(
    '--tasks', nargs='+', default=[f'{t}/{m}' for t, m in _TASKS]
  )
  args = parser.parse_args()
  text = ['# Exact retrieval: time and memory']
  for task in args.tasks:
    text += section(*task.split('/'), args.rounds)
  text += [
    f'Medians of {args.rounds} rounds of a process each, the second of its two'
    ' runs (pytorch-metric-learning and the loop: one run). K = 1, 10, 100,'
    ' 1000. Peak memory is of the whole process, data and libraries with it.'
    ' FAISS has vectors that rank the same (`evaluation.lift`), as many threads'
    ' as there are cores, and only searches. The loop is compiled; its'
    " hyperbolic distances are HIER's formula. Ratios are to the first row, of"
    ' the same round.',
    f'{report.versions(_PACKAGES)}. {report.machine()}.',
    'Written by `experiments/benchmarks/retrieval/__main__.py`.',
  ]
  args.out.parent.mkdir(parents=True, exist_ok=True)
  args.out.write_text('\n\n'.join(text) + '\n', 'utf-8')
  print(args.out.read_text('utf-8'))


if __name__ == '__main__':
  main()
