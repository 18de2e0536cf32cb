"""A comparison of runs as files: Markdown, JSON, curves."""

import html
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence

from hier_jax import paths
from hier_jax.errors import plain
from hier_jax.evaluation.retrieval import rankings
from hier_jax.training.logs import names, progress
from hier_jax.training.report import curves, summary
from hier_jax.training.report import runs as runs_lib
from hier_jax.viz import theme as themes

__all__ = ['as_markdown', 'write']

_BY_SEED = ('run', 'metric', 'mean', 'std', 'interval')


def as_markdown(found: summary.Report) -> str:
  """Tables of what `summary.summarize` returns, in Markdown."""
  groups = found['groups']
  trained = [group['systems'][names.TRAINED] for group in groups]
  metrics = list(dict.fromkeys(m for of in trained for m in _told(of)))
  parts = [
    '# Runs compared',
    'In per cent, mean and standard deviation over seeds.',
    _table(
      ['run', 'system', 'seeds', *map(_title, metrics)],
      _overview(groups, metrics),
    ),
    *_seeds_section(groups, trained),
    *_time_section(groups),
    *_unfinished_section(found['unfinished']),
  ]
  return '\n\n'.join(parts) + '\n'


def _seeds_section(
  groups: Sequence[summary.GroupSummary],
  trained: Sequence[Mapping[str, summary.OverSeeds]],
) -> Iterator[str]:
  seeds = sorted(
    {s for of in trained for m in of.values() for s in m['values']}
  )
  for system in (names.TRAINED, names.BEST):
    rows = list(_by_seed(groups, system, seeds))
    if rows:
      yield f'## {system.capitalize()}'
      yield (
        f'In per cent. The {summary.CONFIDENCE:.0%} interval over seeds is'
        " Student's on the logit scale; there is none of a single seed, nor"
        ' where one has 0 or 100.'
      )
      yield _table([*_BY_SEED, *(f'seed {s}' for s in seeds)], rows)


def _time_section(groups: Sequence[summary.GroupSummary]) -> Iterator[str]:
  rows = [
    [group['label'], *_time_cells(group['time'])]
    for group in groups
    if group['time'] is not None
  ]
  if rows:
    yield '## Time'
    yield (
      'Shares of the time of all runs of a group: waiting for data, in training'
      ' steps, in evaluation, in saving; images a second while training.'
    )
    yield _table(['run', 'hours', 'images/s', *progress.PARTS], rows)


def _unfinished_section(
  unfinished: Sequence[summary.Unfinished],
) -> Iterator[str]:
  if unfinished:
    yield '## Unfinished'
    yield 'Runs without a results.json, not counted above.'
    yield '\n'.join(
      f'- `{plain(run["folder"])}`, seed {run["seed"]}, at step {run["step"]}'
      for run in unfinished
    )


def _title(metric: str) -> str:
  """`recall@1` as R@1, `map@r` as MAP@R."""
  return metric.replace('recall@', 'R@').upper()


def _overview(
  groups: Sequence[summary.GroupSummary], metrics: Sequence[str]
) -> Iterator[list[str]]:
  for group in groups:
    for system, measured in group['systems'].items():
      first = next(iter(measured.values()))
      yield [
        group['label'],
        system,
        str(len(first['values'])),
        *(_spread(measured.get(metric)) for metric in metrics),
      ]


def _told(
  measured: Mapping[str, summary.OverSeeds],
) -> dict[str, summary.OverSeeds]:
  """Metrics without a ranking by cosine that is the same in every run."""
  seeds = {seed for found in measured.values() for seed in found['values']}
  rows = [{k: v['values'][s] for k, v in measured.items()} for s in seeds]
  told = {key for row in rows for key in rankings.distinct(row)}
  return {key: found for key, found in measured.items() if key in told}


def _spread(found: summary.OverSeeds | None) -> str:
  if found is None:
    return ''
  std = '' if found['std'] is None else f' ± {100 * found["std"]:.2f}'
  return f'{100 * found["mean"]:.2f}{std}'


def _by_seed(
  groups: Sequence[summary.GroupSummary], system: str, seeds: Sequence[int]
) -> Iterator[list[str]]:
  for group in groups:
    for metric, found in _told(group['systems'].get(system, {})).items():
      ends = [_cell(found['low']), _cell(found['high'])]
      yield [
        group['label'],
        _title(metric),
        _cell(found['mean']),
        _cell(found['std']),
        ' to '.join(ends) if all(ends) else '',
        *(_cell(found['values'].get(seed)) for seed in seeds),
      ]


def _cell(value: float | None) -> str:
  return '' if value is None else f'{100 * value:.2f}'


def _time_cells(time: Mapping[str, float]) -> list[str]:
  shares = (f'{time[part]:.1%}' for part in progress.PARTS)
  return [f'{time["hours"]:.2f}', f'{time["images_per_second"]:.0f}', *shares]


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
  """Lines of a Markdown table, the first column of which is text."""
  rule = [':--', *['--:'] * (len(titles) - 1)]
  lines = [titles, rule, *(map(_escaped, row) for row in rows)]
  return '\n'.join(f'| {" | ".join(line)} |' for line in lines)


def _escaped(cell: str) -> str:
  # A folder's name, or a value of a config, may hold anything.
  return html.escape(plain(cell), quote=False).replace('|', r'\|')


def write(
  runs: Sequence[runs_lib.Run],
  folder: str | os.PathLike[str],
  *,
  theme: str = 'light',
) -> None:
  """Writes report.md, report.json and curves.png into a folder.

  Args:
    runs: of `runs.load`.
    folder: made if need be.
    theme: 'light' or 'dark', of the curves.

  Raises:
    UserError: an unknown theme, or Matplotlib is not installed.
    WriteError: the folder cannot be written to.
  """
  groups = runs_lib.groups(runs)
  # The first of those that all have: the lowest K of Recall@K.
  finished = [run for group in groups for run in group.runs]
  metric = summary.common_metrics(finished, names.TRAINED)[0]
  figure = curves.figure(groups, metric, _title(metric), theme=theme)
  found = summary.summarize(runs)
  shown = (
    f'{as_markdown(found)}\n'
    '## Curves\n\n![loss and retrieval by epoch](curves.png)\n\n'
    'Lines are means over seeds; bands go from the lowest to the highest.\n'
  )
  folder = paths.as_path(folder)
  themes.write(figure, folder / 'curves.png')
  paths.write_text(folder / 'report.json', json.dumps(found, indent=2) + '\n')
  paths.write_text(folder / 'report.md', shown)
