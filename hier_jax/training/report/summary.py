"""Runs side by side: figures over seeds, where time went, curves."""

import html
import json
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from scipy import special, stats

from hier_jax import paths
from hier_jax.errors import plain
from hier_jax.training.logs import names, progress
from hier_jax.training.report import curves
from hier_jax.training.report import runs as runs_lib

__all__ = ['as_markdown', 'summary', 'write']

_CONFIDENCE = 0.95
_BY_SEED = ('run', 'metric', 'mean', 'std', 'interval')


def summary(runs: Sequence[runs_lib.Run]) -> dict[str, Any]:
  """All figures, as `report.json` holds them.

  Args:
    runs: of `runs.load`.

  Returns:
    'groups', a list: 'label', 'folders', 'systems' (system -> metric -> its
    'mean', 'std', 'low' and 'high' over seeds, and 'values' by seed) and, where
    the runs have them, figures of 'time'; and 'unfinished', a list.
  """
  return {
    'groups': [
      {
        'label': group.label,
        'folders': [str(run.folder) for run in group.runs],
        'systems': _systems(group.runs),
        'time': _time([r for run in group.runs for r in run.timing]),
      }
      for group in runs_lib.groups(runs)
    ],
    'unfinished': [
      {
        'folder': str(run.folder),
        'seed': run.seed,
        'step': max((r['step'] for r in run.metrics), default=0),
      }
      for run in runs
      if run.results is None
    ],
  }


def _systems(runs):
  return {
    system: {
      metric: _over_seeds(
        {run.seed: run.figures(system)[metric] for run in runs}
      )
      for metric in _common(runs, system)
    }
    for system in runs[0].results
    if all(system in run.results for run in runs)
  }


def _common(runs, system) -> list[str]:
  """Metrics that all the runs have of a system, in the first one's order."""
  first, *others = (run.figures(system) for run in runs)
  return [metric for metric in first if all(metric in o for o in others)]


def _over_seeds(values):
  """Mean, standard deviation (ddof 1) and interval of a proportion."""
  found = np.array(list(values.values()))
  low, high = _interval(found)
  return {
    'mean': float(found.mean()),
    'std': float(found.std(ddof=1)) if len(found) > 1 else None,
    'low': low,
    'high': high,
    'values': values,
  }


def _interval(values) -> tuple[float | None, float | None]:
  """Student's interval on the logit scale, which stays within 0 to 1.

  Near either end it also covers the mean as often as it says, where that of the
  values themselves does not. There is none of a single value, nor with a value
  of 0 or 1, which has no logit.
  """
  n = len(values)
  if n < 2 or values.min() <= 0 or values.max() >= 1:
    return None, None
  logits = special.logit(values)
  quantile = stats.t.ppf((1 + _CONFIDENCE) / 2, n - 1)
  half = quantile * logits.std(ddof=1) / math.sqrt(n)
  low, high = special.expit(logits.mean() + np.array([-half, half]))
  return float(low), float(high)


def _time(records):
  """Where the time of a group's runs went, None without records."""
  seconds = sum(r['seconds'] for r in records)
  timed = [r for r in records if r.get('images_per_second') is not None]
  # Older runs did not tell compiling apart.
  share = lambda r, *parts: sum(r.get(f'share/{part}') or 0 for part in parts)
  training = [r['seconds'] * (1 - share(r, *progress.APART)) for r in timed]
  if not sum(training) > 0:
    return None
  rates = [r['images_per_second'] for r in timed]
  return {'hours': seconds / 3600} | {
    'images_per_second': float(np.average(rates, weights=training)),
    **{
      part: sum(r['seconds'] * share(r, part) for r in records) / seconds
      for part in progress.PARTS
    },
  }


def as_markdown(found: dict[str, Any]) -> str:
  """Tables of a `summary`, in Markdown."""
  groups = found['groups']
  trained = [group['systems'][names.TRAINED] for group in groups]
  metrics = list(dict.fromkeys(m for of in trained for m in of))
  seeds = sorted(
    {s for of in trained for m in of.values() for s in m['values']}
  )
  parts = [
    '# Runs compared',
    'In per cent, mean and standard deviation over seeds.',
    _table(
      ['run', 'system', 'seeds', *map(_title, metrics)],
      _overview(groups, metrics),
    ),
  ]
  for system in (names.TRAINED, names.BEST):
    rows = list(_by_seed(groups, system, seeds))
    if rows:
      parts += [
        f'## {system.capitalize()}',
        f'In per cent. The {_CONFIDENCE:.0%} interval over seeds is'
        " Student's on the logit scale; there is none of a single seed, nor"
        ' where one has 0 or 100.',
        _table([*_BY_SEED, *(f'seed {s}' for s in seeds)], rows),
      ]
  times = [g for g in groups if g['time'] is not None]
  if times:
    parts += [
      '## Time',
      'Shares of the time of all runs of a group: waiting for data, in training'
      ' steps, in evaluation, in saving; images a second while training.',
      _table(
        ['run', 'hours', 'images/s', *progress.PARTS],
        [[g['label'], *_time_cells(g['time'])] for g in times],
      ),
    ]
  if found['unfinished']:
    parts += [
      '## Unfinished',
      'Runs without a results.json, not counted above.',
    ]
    parts.append(
      '\n'.join(
        f'- `{plain(run["folder"])}`, seed {run["seed"]}, at step {run["step"]}'
        for run in found['unfinished']
      )
    )
  return '\n\n'.join(parts) + '\n'


def _title(metric):
  """`recall@1` as R@1, `map@r` as MAP@R."""
  return metric.replace('recall@', 'R@').upper()


def _overview(groups, metrics) -> Iterator[list[str]]:
  for group in groups:
    for system, figures in group['systems'].items():
      first = next(iter(figures.values()))
      yield [
        group['label'],
        system,
        str(len(first['values'])),
        *(_spread(figures.get(metric)) for metric in metrics),
      ]


def _spread(figure):
  if figure is None:
    return ''
  std = '' if figure['std'] is None else f' ± {100 * figure["std"]:.2f}'
  return f'{100 * figure["mean"]:.2f}{std}'


def _by_seed(groups, system, seeds) -> Iterator[list[str]]:
  cell = lambda value: '' if value is None else f'{100 * value:.2f}'
  for group in groups:
    for metric, figure in group['systems'].get(system, {}).items():
      ends = [cell(figure[end]) for end in ('low', 'high')]
      yield [
        group['label'],
        _title(metric),
        cell(figure['mean']),
        cell(figure['std']),
        ' to '.join(ends) if all(ends) else '',
        *(cell(figure['values'].get(seed)) for seed in seeds),
      ]


def _time_cells(time):
  shares = (f'{time[part]:.1%}' for part in progress.PARTS)
  return [f'{time["hours"]:.2f}', f'{time["images_per_second"]:.0f}', *shares]


def _table(titles, rows):
  """Lines of a Markdown table, the first column of which is text."""
  # A folder's name, or a value of a config, may hold anything.
  escape = lambda cell: html.escape(plain(cell), quote=False).replace(
    '|', r'\|'
  )
  rule = [':--', *['--:'] * (len(titles) - 1)]
  lines = [titles, rule, *(map(escape, row) for row in rows)]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def write(runs: Sequence[runs_lib.Run], folder: str | os.PathLike) -> None:
  """Writes report.md, report.json and curves.png into a folder.

  Args:
    runs: of `runs.load`.
    folder: made if need be.

  Raises:
    UserError: Matplotlib is not installed.
    WriteError: the folder cannot be written to.
  """
  groups = runs_lib.groups(runs)
  # The first of those that all have: the lowest K of Recall@K.
  metric = _common([r for g in groups for r in g.runs], names.TRAINED)[0]
  figure = curves.figure(groups, metric, _title(metric))
  found = summary(runs)
  shown = (
    f'{as_markdown(found)}\n'
    '## Curves\n\n![loss and retrieval by epoch](curves.png)\n\n'
    'Lines are means over seeds; bands go from the lowest to the highest.\n'
  )
  folder = paths.as_path(folder)
  with paths.replacing(folder / 'curves.png') as path:
    # The library's version would make equal figures unequal files.
    figure.savefig(path, format='png', dpi=150, metadata={'Software': None})
  paths.write_text(folder / 'report.json', json.dumps(found, indent=2) + '\n')
  paths.write_text(folder / 'report.md', shown)
