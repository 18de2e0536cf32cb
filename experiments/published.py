"""README's table of our results beside the published ones.

    python -m experiments.published

writes the table's rows into README.md. Ours are the quickstart's runs
(`results/quickstart.json`) with the interval over seeds that `hier-jax report`
prints; the published ones stand in docs/reproduce.md.
"""

import argparse
import pathlib
import re
import sys

from experiments import command_line
from hier_jax import json_files, paths
from hier_jax.errors import UserError
from hier_jax.training.report import runs, summary

ROOT = pathlib.Path(__file__).parents[1]
QUICKSTART = ROOT / 'experiments' / 'results' / 'quickstart.json'
README = ROOT / 'README.md'
REPRODUCE = ROOT / 'docs' / 'reproduce.md'
_HEADING = (
  '| Recall@1, % | ours, 95 % interval | published | what differs |',
  '|---|---|---|---|',
)


def over_seeds(seeds):
  """Each system's Recall@1 over the seeds of one config.

  Args:
    seeds: seed as text -> system -> its metrics, as `results.json` holds them.

  Returns:
    System -> `summary.OverSeeds`.

  Example:
    >>> from experiments import published
    >>> row = lambda value: {'after training': {'recall@1': value}}
    >>> found = published.over_seeds({'0': row(0.5), '1': row(0.5)})
    >>> found['after training']['mean'], found['after training']['low']
    (0.5, 0.5)
  """
  trials = [
    runs.Run(pathlib.Path(f'seed{seed}'), int(seed), {}, results, [], [])
    for seed, results in seeds.items()
  ]
  (group,) = summary.summarize(trials)['groups']
  return {
    system: metrics['recall@1'] for system, metrics in group['systems'].items()
  }


def published(text, method, backbone):
  """A row of the page's table of published results.

  Args:
    text: the page, in Markdown.
    method: first cell of the row, such as 'HIER'.
    backbone: second cell of the row, such as 'DINO, 384'.

  Returns:
    Its numbers as text, a column each.

  Raises:
    UserError: the page has no such row.
  """
  start = re.escape(f'| {method} | {backbone} | ')
  found = re.search(rf'^{start}(.+) \|$', text, flags=re.M)
  if not found:
    raise UserError(
      f'docs/reproduce.md has no row {method!r}, {backbone!r}: expected one in'
      ' its table of published results'
    )
  return found[1].split(' | ')


def _ours(value):
  """A mean over seeds in per cent, with its interval where it varies."""
  shown = f'{100 * value["mean"]:.1f}'
  low, high = value['low'], value['high']
  # One seed has no interval.
  if low is None or high - low < 5e-4:
    return shown
  return f'{shown} ({100 * low:.1f} to {100 * high:.1f})'


def rows(seeds, page):
  """The lines of the table.

  Args:
    seeds: see `over_seeds`.
    page: docs/reproduce.md.

  Returns:
    Lines of Markdown.
  """
  ours = over_seeds(seeds)
  sets = 'CUB / Cars / SOP / In-Shop'
  theirs = published(page, 'HIER', 'DINO, 384')
  start = published(page, 'no training', 'DINO, 384 features')
  lines = [
    (
      f'Emoji, the quickstart, {len(seeds)} seeds',
      _ours(ours['after training']),
      'none',
      'small ResNet from scratch, on our own data',
    ),
    (
      'Emoji, raw pixels by cosine',
      _ours(ours['raw pixels']),
      'none',
      'the baseline to beat there',
    ),
    (
      f'{sets}, HIER with DINO, 384',
      '**not run**',
      ' / '.join(theirs),
      'data and weights were not at hand; run `cub:dino_vits16-384`',
    ),
    (
      'the same, DINO without training',
      '**not run**',
      ' / '.join(start),
      'as above',
    ),
  ]
  return [*_HEADING, *(f'| {" | ".join(line)} |' for line in lines)]


def replaced(readme, lines):
  """README with these lines in the place of the table's.

  Raises:
    UserError: README has no such table.
  """
  head, found, rest = readme.partition(_HEADING[0] + '\n')
  if not found:
    raise UserError(f'README.md lacks the line {_HEADING[0]!r}: add it')
  rest = re.sub(r'\A(\|.*\n)*', '', rest)
  return head + '\n'.join(lines) + '\n' + rest


def main(arguments: list[str] | None = None) -> int:
  """Writes the table; returns the exit code."""
  argparse.ArgumentParser(
    prog='python -m experiments.published',
    description=__doc__,
    formatter_class=argparse.RawDescriptionHelpFormatter,
  ).parse_args(arguments)
  return command_line.run(_write)


def _write():
  wanted = 'what `python -m experiments.study.quickstart` writes'
  seeds = json_files.read_object(QUICKSTART, wanted).get('seeds')
  if not seeds:
    raise UserError(f'{QUICKSTART} has no seeds; expected {wanted}')
  lines = rows(seeds, REPRODUCE.read_text('utf-8'))
  paths.write_text(README, replaced(README.read_text('utf-8'), lines))
  print('\n'.join(lines))


if __name__ == '__main__':
  sys.exit(main())
