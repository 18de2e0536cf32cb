"""The study's figures: fronts, and a forest plot of differences."""

from __future__ import annotations

import itertools
import pathlib
from collections.abc import Mapping, Sequence

from hier_jax import paths
from hier_jax.errors import UserError

__all__ = ['draw']

_DPI = 80


def draw(folder: pathlib.Path, fronts: Mapping, found: Sequence) -> dict:
  """Draws what there is to draw.

  Args:
    folder: for the files.
    fronts: see `comparisons.fronts`.
    found: comparisons of `comparisons.compare`.

  Returns:
    title -> name of its file.

  Raises:
    UserError: matplotlib is missing, or a file cannot be written.
  """
  try:
    import matplotlib.figure  # noqa: F401
  except ImportError as error:
    raise UserError(
      "figures need matplotlib: pip install 'hier_jax[study]'"
    ) from error
  drawn = {}
  if fronts:
    title = 'Hierarchy against retrieval on the folds of the train classes'
    _save(_front_figure(fronts), folder / 'front.png', title)
    drawn[title] = 'front.png'
  if found:
    title = 'Differences on the test classes, 95 % intervals'
    _save(_forest(found), folder / 'forest.png', title)
    drawn[title] = 'forest.png'
  return drawn


def _save(figure, path: pathlib.Path, title: str):
  with paths.replacing(path) as temporary:
    figure.savefig(temporary, format='png', dpi=_DPI, metadata={'Title': title})


def _front_figure(fronts: Mapping):
  """A panel a base loss, regime and split."""
  from matplotlib.figure import Figure

  figure = Figure((8, 4.5 * len(fronts)), layout='constrained')
  axes = figure.subplots(len(fronts), 1, squeeze=False)[:, 0]
  for axis, (title, series) in zip(axes, fronts.items(), strict=True):
    _front(axis, series)
    axis.set(title=title, xlabel='MAP@R (%)', ylabel='mAP-subgroup (%)')
    axis.legend(loc='upper left', bbox_to_anchor=(1, 1), fontsize='small')
  return figure


def _front(axis, series: Mapping):
  """The line, and the arms in a window about them."""
  arms = [name for name, points in series.items() if len(points) == 1]
  markers = itertools.cycle('osD^v<>PX*')
  for name, points in series.items():
    retrieval, kin = zip(*points, strict=True)
    if name in arms:
      axis.plot(retrieval, kin, next(markers), label=name.partition('+')[2])
    else:
      axis.plot(retrieval, kin, '.-', color='gray', label=name, zorder=1)
  for set_limits, places in (
    (axis.set_xlim, [series[name][0][0] for name in arms]),
    (axis.set_ylim, [series[name][0][1] for name in arms]),
  ):
    margin = max(0.25 * (max(places) - min(places)), 0.1)
    set_limits(min(places) - margin, max(places) + margin)


def _forest(found: Sequence):
  """A panel a metric, a row a comparison."""
  from matplotlib.figure import Figure

  metrics = list(dict.fromkeys(c.metric for c in found))
  number = len(found) // len(metrics)
  size = (5 * len(metrics) + 2, 1 + 0.3 * number)
  figure = Figure(size, layout='constrained')
  axes = figure.subplots(1, len(metrics), squeeze=False, sharey=True)[0]
  for axis, metric in zip(axes, metrics, strict=True):
    rows = [c for c in found if c.metric == metric]
    places = range(len(rows))[::-1]
    mean = [c.difference.mean for c in rows]
    low = [c.difference.mean - c.difference.low for c in rows]
    high = [c.difference.high - c.difference.mean for c in rows]
    axis.errorbar(mean, places, xerr=[low, high], fmt='o', capsize=3)
    axis.axvline(0, color='gray', linewidth=1)
    labels = [f'{c.split} {c.regime} {c.arm} - {c.against}' for c in rows]
    axis.set_yticks(list(places), labels, fontsize='small')
    axis.set(xlabel=f'difference of {metric}, points')
  return figure
