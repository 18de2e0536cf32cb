"""Retrieval figures of several systems as text."""

from collections.abc import Mapping, Sequence

from hier_jax.evaluation.retrieval.metrics import RECALL_AT, metric_keys


def format_table(
  rows: Mapping[str, Mapping[str, float]],
  recall_at: Sequence[int] = RECALL_AT,
) -> str:
  """An aligned plain-text table, a line a system, in per cent.

  Args:
    rows: name of the system -> result of `retrieval_metrics`.
    recall_at: the K of the columns R@K; the last column is MAP@R.

  Returns:
    A heading and the lines, without a newline at the end.

  Raises:
    KeyError: a row lacks one of the columns.
  """
  titles = ['', *(f'R@{k}' for k in recall_at), 'MAP@R']
  keys = metric_keys(recall_at)
  lines = [titles]
  for name, metrics in rows.items():
    lines.append([name, *(f'{100 * metrics[key]:.1f}' for key in keys)])
  first, *widths = (
    max(map(len, column)) for column in zip(*lines, strict=True)
  )
  return '\n'.join(
    '  '.join([name.ljust(first), *map(str.rjust, figures, widths)])
    for name, *figures in lines
  )
