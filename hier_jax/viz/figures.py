"""Figures of the hierarchy, for papers and reports: PNG and SVG."""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

import numpy as np

from hier_jax import paths
from hier_jax.errors import UserError, plain
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.tree._parents import depths
from hier_jax.viz import _hierarchy

if TYPE_CHECKING:
  from matplotlib.figure import Figure

__all__ = ['check', 'icicle', 'write']

# Okabe and Ito's colors, which the color-blind tell apart.
_COLORS = (
  '#0072B2', '#E69F00', '#009E73', '#CC79A7', '#56B4E9', '#D55E00', '#F0E442',
)  # fmt: skip
_OTHER = '#999999'
_INK, _PAPER = (
  {False: '#1f2328', True: '#e6edf3'},
  {False: 'white', True: '#0d1117'},
)
# Inches; the share of the width that a picture or a name needs; pixels.
_SIZE, _WIDE, _PICTURE = (12.0, 5.0), 0.035, 64


def check() -> None:
  """Raises UserError where Matplotlib is not installed."""
  try:
    import matplotlib.figure  # noqa: F401
  except ImportError as error:
    raise UserError(
      "figures need Matplotlib: pip install 'hier_jax[plots]'"
    ) from error


def icicle(
  collection: Collection, *, source: str = 'auto', dark: bool = False
) -> Figure:
  """The tree from its root downward: a node is as wide as it has items.

  Inner nodes have the color of their largest group of the coarsest level, the
  paler the less of them it is, and, where they are wide enough, their most
  typical picture and their name. The lowest strip shows the items.

  Args:
    collection: of two items or more.
    source: 'proxies', 'linkage', or 'auto' for proxies where there are any.
    dark: whether the paper is dark.

  Raises:
    UserError: fewer items, see `outline`; Matplotlib is not installed.
  """
  check()
  from matplotlib import figure

  n = len(collection)
  if n < 2:
    raise UserError(f'there are {n} images; expected two or more for a figure')
  levels = _hierarchy.levels(collection)
  made = _hierarchy.hierarchy(collection, source, _hierarchy.rank(levels, n))
  names, _ = _hierarchy.names(made, levels)
  typical = _hierarchy.representatives(made, collection.c)
  depth = depths(made.parent)
  lowest = int(depth[n:].max()) + 1
  drawn = figure.Figure(
    figsize=_SIZE, layout='constrained', facecolor=_PAPER[dark]
  )
  axes = drawn.subplots()
  axes.set_xlim(0, n)
  axes.set_ylim(lowest + 1, 0)
  axes.set_axis_off()
  axes.set_title(
    plain(f'{collection.title}: {made.note}'),
    color=_INK[dark],
    parse_math=False,
    fontsize=9,
  )
  colors, legend = _colors(levels, made, n)
  order = made.order
  axes.bar(np.arange(n) + 0.5, 1, width=1.0, bottom=lowest, color=colors[order])
  for node in range(n, len(made.parent)):
    start, size, top = made.start[node], made.size[node], depth[node]
    axes.bar(
      start, 1, width=size, bottom=top, align='edge', color=colors[node],
      edgecolor=_PAPER[dark], linewidth=0.5,
    )  # fmt: skip
    if size >= _WIDE * n:
      middle = start + size / 2
      _picture(axes, collection, int(typical[node - n]), middle, top + 0.4)
      axes.text(
        middle, top + 0.97, _short(names[node - n], size / n), fontsize=6,
        ha='center', va='bottom', color='black', parse_math=False, clip_on=True,
      )  # fmt: skip
  for name, color in legend:
    axes.bar(0, 0, color=color, label=f' {plain(name)}')
  if legend:
    found = drawn.legend(
      loc='outside lower center', ncols=len(legend), frameon=False, fontsize=7
    )
    for text in found.get_texts():
      text.set_color(_INK[dark])
      text.set_parse_math(False)
  return drawn


def _colors(levels, made, n):
  """A color of each node `[nodes, 3]`, and names with their colors."""
  from matplotlib import colors

  found = np.tile(colors.to_rgb(_OTHER), (len(made.parent), 1))
  if not levels:
    return found, []
  names, codes = levels[0]
  most = np.argsort(-np.bincount(codes, minlength=len(names)), kind='stable')
  palette = np.tile(colors.to_rgb(_OTHER), (len(names), 1))
  own = most[: len(_COLORS)]
  palette[own] = [colors.to_rgb(color) for color in _COLORS[: len(own)]]
  found[:n] = palette[codes]
  for node in range(n, len(made.parent)):
    count = np.bincount(codes[made.leaves(node)], minlength=len(names))
    share = count.max() / count.sum()
    found[node] = 1 - share * (1 - palette[count.argmax()])
  legend = [(names[i], palette[i]) for i in own]
  if len(most) > len(own):
    legend.append(('others', colors.to_rgb(_OTHER)))
  return found, legend


def _picture(axes, collection, item, x, y):
  """An item's picture at a place; nothing where it has none."""
  from matplotlib import offsetbox

  if collection.image is None:
    return
  try:
    image = collection.image(item).convert('RGB')
  except UserError:
    return
  image.thumbnail((_PICTURE, _PICTURE))
  box = offsetbox.OffsetImage(np.asarray(image), zoom=26 / max(image.size))
  axes.add_artist(offsetbox.AnnotationBbox(box, (x, y), frameon=False))


def _short(name, share):
  """As much of a name as has room in a share of the width."""
  room = max(3, int(share * 170))
  name = plain(name)
  return name if len(name) <= room else f'{name[: room - 1]}…'


def write(drawn: Figure, path: pathlib.Path) -> None:
  """Writes a figure as PNG or SVG, by its path's suffix, atomically."""
  with paths.replacing(path) as temporary:
    drawn.savefig(temporary, format=path.suffix[1:], dpi=150)
