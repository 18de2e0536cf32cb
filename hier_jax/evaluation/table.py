"""Retrieval metrics of several systems as text."""

from collections.abc import Mapping, Sequence
from typing import Any

from hier_jax.evaluation.retrieval import rankings
from hier_jax.evaluation.retrieval.metrics import RECALL_AT, metric_keys

_STAR = ' *'


def format_table(
  rows: Mapping[str, Mapping[str, Any]],
  recall_at: Sequence[int] = RECALL_AT,
) -> str:
  """An aligned plain-text table, a line a system, in per cent.

  Its caption says by what distance and with what ties, where the rows know. A
  system that was ranked by cosine too has a line for that where the two differ,
  and the line with the higher MAP@R a star.

  Args:
    rows: maps the name of each system to its result of `retrieval_metrics` or
      of `rankings.both`.
    recall_at: the K of the columns R@K; the last column is MAP@R.

  Returns:
    Heading, lines and caption, without a newline at the end.

  Raises:
    KeyError: a row lacks one of the columns.

  Example:
    >>> from hier_jax import evaluation
    >>> row = {'recall@1': 0.75, 'map@r': 0.5}
    >>> row |= {'distance': 'cosine', 'ties': 'pessimistic'}
    >>> print(evaluation.format_table({'HIER': row}, recall_at=[1]))
           R@1  MAP@R
    HIER  75.0   50.0
    In per cent, by cosine; ties pessimistic.
  """
  titles = ['', *(f'R@{k}' for k in recall_at), 'MAP@R']
  keys = metric_keys(recall_at)
  lines = [titles]
  for name, metrics in rows.items():
    lines += _lines(name, metrics, keys)
  first, *widths = (
    max(map(len, column)) for column in zip(*lines, strict=True)
  )
  text = [
    '  '.join([name.ljust(first), *map(str.rjust, values, widths)])
    for name, *values in lines
  ]
  starred = any(name.endswith(_STAR) for name, *_ in lines)
  note = ['* the better of the two rankings, by MAP@R.'] if starred else []
  return '\n'.join([*text, *_caption(rows), *note])


def _lines(name, metrics, keys):
  """The line of a system, or its two where the rankings differ."""
  cells = lambda row: [f'{100 * row[key]:.1f}' for key in keys]
  mine, cosine = cells(metrics), rankings.by_cosine(metrics)
  if not cosine or cells(cosine) == mine:
    return [[name, *mine]]
  stars = ['', _STAR] if cosine['map@r'] > metrics['map@r'] else [_STAR, '']
  names = name, f'{name}, by cosine'
  return [
    [f'{name}{star}', *line]
    for name, star, line in zip(
      names, stars, [mine, cells(cosine)], strict=True
    )
  ]


def _caption(rows):
  """Lines that say what the rows were ranked by."""
  systems: dict[str, list[str]] = {}
  for name, row in rows.items():
    if 'distance' in row:
      how = f'{row["distance"]}; ties {row["ties"]}'
      systems.setdefault(how, []).append(name)
  if len(systems) == 1:
    return [f'In per cent, by {how}.' for how in systems]
  return [
    f'{", ".join(names)}: in per cent, by {how}.'
    for how, names in systems.items()
  ]
