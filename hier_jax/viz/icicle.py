"""The tree of a collection as an icicle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hier_jax.errors import UserError, plain
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.tree._parents import depths
from hier_jax.viz import _hierarchy, _kinds, _thumbnails
from hier_jax.viz import theme as themes

if TYPE_CHECKING:
  from matplotlib.figure import Figure

__all__ = ['figure']

# Inches; the share of the width that a picture or a name needs; pixels.
_SIZE, _WIDE, _PICTURE = (12.0, 5.0), 0.035, 64


def figure(
  collection: Collection,
  *,
  source: str | _hierarchy.Hierarchy = 'auto',
  level: str | None = None,
  theme: str = 'light',
) -> Figure:
  """The tree from its root downward; a node's width shows its number of items.

  An inner node has the color of its largest group at a level, paler if that
  group is a smaller part of it; if wide enough, it also shows its most typical
  picture and its name. The lowest strip shows the items.

  Args:
    collection: of two items or more.
    source: 'proxies', 'linkage', 'auto' for proxies where there are any, or the
      `hierarchy` of an `Outline`.
    level: level whose groups colors show; None for the coarsest.
    theme: 'light' or 'dark'.

  Raises:
    UserError: fewer items, an unknown level or theme, see `outline`; Matplotlib
      is not installed.
  """
  n = len(collection)
  if n < 2:
    raise UserError(f'there are {n} images; expected two or more for a figure')
  number = _kinds.level(collection, level)
  with themes.drawing(theme) as look:
    levels = _hierarchy.levels(collection)
    made = _hierarchy.hierarchy(collection, source)
    kinds = _kinds.kinds(levels, number, n, look, markers=1)
    drawn = look.figure(*_SIZE)
    axes = look.axes(drawn)
    axes.set_xlim(0, n)
    axes.set_ylim(int(depths(made.parent)[n:].max()) + 2, 0)
    axes.set_axis_off()
    title = plain(f'{collection.title}: {made.note}')
    axes.set_title(title, fontsize=9)
    _draw(axes, collection, made, levels, kinds, look)
    if kinds.names:
      handles = [axes.bar(0, 0, color=color) for color in kinds.colors]
      themes.legend(drawn, kinds.names, handles)
  return drawn


def _draw(axes, collection, made, levels, kinds, look):
  """The strip of the items, and a bar a node."""
  n, depth = len(collection), depths(made.parent)
  colors = _colors(kinds, made, n, look)
  names, _ = _hierarchy.names(made, levels)
  typical = _hierarchy.representatives(made, collection.c)
  strip = colors[made.order]
  starts = np.flatnonzero(np.any(np.diff(strip, axis=0, prepend=-1), axis=1))
  axes.bar(
    starts, 1, width=np.diff(starts, append=n), bottom=depth[n:].max() + 1,
    align='edge', color=strip[starts],
  )  # fmt: skip
  for node in range(n, len(made.parent)):
    start, size, top = made.start[node], made.size[node], depth[node]
    axes.bar(
      start, 1, width=size, bottom=top, align='edge', color=colors[node],
      edgecolor=look.paper, linewidth=0.5,
    )  # fmt: skip
    if size >= _WIDE * n:
      middle = start + size / 2
      _picture(axes, collection, int(typical[node - n]), middle, top + 0.4)
      room = max(3, int(size / n * 170))
      axes.text(
        middle, top + 0.97, _kinds.short(names[node - n], room), fontsize=6,
        ha='center', va='bottom', color='black', clip_on=True,
      )  # fmt: skip


def _colors(kinds, made, n, look):
  """A color of each node `[nodes, 3]`."""
  from matplotlib import colors

  palette = np.array([colors.to_rgb(color) for color in kinds.colors])
  found = np.tile(colors.to_rgb(look.other), (len(made.parent), 1))
  if not kinds.names:
    return found
  found[:n] = palette[kinds.code]
  for node in range(n, len(made.parent)):
    count = np.bincount(kinds.code[made.leaves(node)], minlength=len(palette))
    share = count.max() / count.sum()
    found[node] = 1 - share * (1 - palette[count.argmax()])
  return found


def _picture(axes, collection, item, x, y):
  """An item's picture at a place; nothing where it has none."""
  from matplotlib import offsetbox

  pixels = _thumbnails.pixels(collection, item, _PICTURE)
  if pixels is None:
    return
  box = offsetbox.OffsetImage(pixels, zoom=26 / _PICTURE)
  axes.add_artist(offsetbox.AnnotationBbox(box, (x, y), frameon=False))
