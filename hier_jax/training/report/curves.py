"""Curves of groups of runs by epoch."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hier_jax.errors import plain
from hier_jax.training.logs import names
from hier_jax.training.logs.records import Record
from hier_jax.training.report import runs as runs_lib
from hier_jax.viz import theme as themes

if TYPE_CHECKING:
  from matplotlib.axes import Axes
  from matplotlib.figure import Figure

__all__ = ['figure']

# Hues of the theme, those first that lines show best; where two print in the
# same gray, dashes tell them apart.
_HUES = (0, 5, 2, 3, 1, 4)
_DASHES = ('-', '--', '-.', ':')


def figure(
  groups: Sequence[runs_lib.Group],
  metric: str,
  title: str,
  *,
  theme: str = 'light',
) -> 'Figure':
  """Loss and a retrieval metric by epoch: a line a group, a band of its seeds.

  Args:
    groups: of `runs.groups`.
    metric: a key of the evaluation records.
    title: what to call it.
    theme: 'light' or 'dark'.

  Returns:
    A Matplotlib `Figure`, which no window knows.

  Raises:
    UserError: an unknown theme, or Matplotlib is not installed.
  """
  with themes.drawing(theme) as look:
    return _drawn(groups, metric, title, look)


def _drawn(
  groups: Sequence[runs_lib.Group], metric: str, title: str, look: themes.Theme
) -> 'Figure':
  drawn = look.figure(9, 3.6)
  left, right = look.axes(drawn, 1, 2)
  for i, group in enumerate(groups):
    style = {
      'color': look.hues[_HUES[i % len(_HUES)]],
      'linestyle': _DASHES[i % len(_DASHES)],
    }
    losses = [_losses(run) for run in group.runs]
    retrieval = [_retrieval(run, metric) for run in group.runs]
    # A label that begins with _ is left out of a legend.
    _draw(left, losses, style, label=f' {plain(group.label)}')
    _draw(right, retrieval, style)
  left.set_ylabel('training loss, mean of an epoch')
  right.set_ylabel(f'{title} on {_where(groups)} (%)')
  for axes in (left, right):
    axes.set_xlabel('epoch')
  drawn.legend(loc='outside lower center', ncols=min(len(groups), 3))
  return drawn


def _draw(
  axes: 'Axes',
  curves: Sequence[Mapping[Any, float]],
  style: Mapping[str, str],
  label: str | None = None,
) -> None:
  """The mean of curves, each epoch -> value, and the band they lie in."""
  epochs = sorted(set.intersection(*map(set, curves)))
  values = np.array([[curve[epoch] for epoch in epochs] for curve in curves])
  # A line of one point would not be seen without its marker.
  axes.plot(
    epochs,
    values.mean(0),
    marker='o',
    markersize=3,
    linewidth=1.5,
    color=style['color'],
    linestyle=style['linestyle'],
    label=label,
  )
  if len(curves) > 1:
    low, high = values.min(0), values.max(0)
    axes.fill_between(
      epochs, low, high, color=style['color'], alpha=0.2, linewidth=0
    )


def _train_records(run: runs_lib.Run) -> list[Record]:
  return [r for r in run.records if r['kind'] == 'train']


def _losses(run: runs_lib.Run) -> dict[int, float]:
  """Mean loss of the steps logged in each epoch, the first being 1."""
  losses: dict[int, list[float]] = {}
  for record in _train_records(run):
    if record['loss'] is not None:
      losses.setdefault(math.ceil(record['epoch']), []).append(record['loss'])
  return {epoch: float(np.mean(found)) for epoch, found in losses.items()}


def _evaluations(run: runs_lib.Run) -> list[Record]:
  """Those of a run over its time: on the test split, or on classes held out."""
  held_out = [r for r in run.records if r['kind'] == names.VALIDATION]
  return held_out or [r for r in run.records if r['kind'] == 'eval']


def _where(groups: Sequence[runs_lib.Group]) -> str:
  kinds = {
    record['kind']
    for group in groups
    for run in group.runs
    for record in _evaluations(run)
  }
  texts = {'eval': 'the test split', names.VALIDATION: 'classes held out'}
  return ' or '.join(text for kind, text in texts.items() if kind in kinds)


def _retrieval(run: runs_lib.Run, metric: str) -> dict[float, float]:
  """A metric in per cent by epoch, before training at 0."""
  records = _train_records(run)
  if not records:
    return {}
  per_epoch = max(1, round(records[-1]['step'] / records[-1]['epoch']))
  # Of two at a step the later is the network: pixels come first.
  return {
    record['step'] / per_epoch: 100 * record[metric]
    for record in _evaluations(run)
    if record.get(metric) is not None
  }
