"""A collection and its tree on the Poincare disk."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

import numpy as np

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.retrieval import _spaces
from hier_jax.viz import (
  _hierarchy,
  _kinds,
  _layout,
  _thumbnails,
  geodesics,
  projection,
)
from hier_jax.viz import theme as themes

if TYPE_CHECKING:
  from matplotlib.figure import Figure

__all__ = ['LAYOUTS', 'THUMBNAILS', 'figure']

LAYOUTS = ('tree', *projection.METHODS)
# So many thumbnails at most.
THUMBNAILS = 150
# Sides of thumbnails on a disk of radius 1, pixels of one.
_LARGEST, _SMALLEST, _PIXELS = 0.16, 0.035, 96
# What the figure shows beyond the disk.
_EDGE = 1.02
# Radians between the points of an arc.
_STEP = 0.05
# Of more items the points of an SVG are pixels.
_VECTORS = 20_000


def figure(
  collection: Collection,
  *,
  layout: str = 'tree',
  source: str | _hierarchy.Hierarchy = 'auto',
  level: str | None = None,
  thumbnails: int = THUMBNAILS,
  theme: str = 'light',
  seed: int = 0,
) -> Figure:
  """Items, the proxies above them and the tree's edges on the Poincare disk.

  Edges are geodesics of the disk. Small points are items, squares are items
  with their picture, and circles are inner nodes with the picture of their most
  typical item, if there is room. The caption says how far distances can be
  trusted.

  Args:
    collection: one item or more, in a ball of any curvature, or compared by
      cosine or Euclidean distance.
    layout: 'tree' gives each node a sector in proportion to its number of
      items; a method of `projection.project` places embeddings by projection.
    source: 'proxies', 'linkage', 'auto' for proxies if there are any, or the
      `hierarchy` of an `Outline`.
    level: level of the taxonomy that colors show, or 'class'; None for the
      coarsest.
    thumbnails: largest number of pictures to draw.
    theme: 'light' or 'dark'.
    seed: seed of random draws.

  Raises:
    UserError: no items, an unknown layout, level or theme; see `outline` and
      `projection.project`; Matplotlib is not installed.

  Example:
    >>> import numpy as np
    >>> from hier_jax.evaluation.collection import Collection
    >>> from hier_jax.viz import disk
    >>> made = Collection(np.eye(3) / 2, 1.0, ids=('a', 'b', 'c'))
    >>> drawn = disk.figure(made, layout='pca')
  """
  if layout not in LAYOUTS:
    raise UserError(
      f'the layout is {layout!r}; expected one of {", ".join(LAYOUTS)}'
    )
  n = len(collection.ids)
  if not n:
    raise UserError('there are no images to draw')
  if thumbnails:
    _checks.positive_int('thumbnails', thumbnails)
  number = _kinds.level(collection, level)
  with themes.drawing(theme) as look:
    levels = _hierarchy.levels(collection)
    made = _hierarchy.hierarchy(collection, source)
    places, note = _placed(made, layout, collection.c, seed)
    kinds = _kinds.kinds(levels, number, n, look)
    caption = _caption(collection, made, note)
    drawn, axes = _empty(look, caption, kinds.names)
    axes.set_title(_kinds.short(collection.title, 100), fontsize=11)
    _edges(axes, made, places, look)
    draw = np.random.default_rng(seed)
    handles = _points(axes, places[:n], kinds, draw)
    _nodes(axes, made, places, look)
    if collection.image is not None and thumbnails:
      candidates = _candidates(made, collection.c, draw)
      _pictures(axes, collection, candidates, places, kinds, look, thumbnails)
    if kinds.names:
      themes.legend(drawn, kinds.names, handles, loc='lower center')
  return drawn


def _placed(made, layout, c, seed):
  """Places of all nodes `[nodes, 2]`, and what to tell of them."""
  if layout != 'tree':
    return _layout.of_points(made, c, method=layout, seed=seed)
  places = _layout.of_tree(made)
  return places, (
    'Places are those in the tree, each node with a sector by its number of'
    f' images: {_layout.kept(made, places, c, seed)}.'
  )


def _empty(look, caption, names):
  """A figure with the disk, above room for a caption and a legend."""
  from matplotlib import patches

  # Inches: the layouts of Matplotlib are at odds with a fixed aspect.
  side, top, line = 9.0, 0.4, 0.17
  rows = -(-len(names) // themes.columns(names, side)) if names else 0
  print_ = line * (caption.count('\n') + 1)
  below = print_ + 0.19 * rows + 0.25
  height = top + side + below
  drawn = look.figure(side, height)
  drawn.set_layout_engine('none')
  axes = look.axes(drawn)
  axes.set_position([0.01, below / height, 0.98, side / height])
  axes.set_axis_off()
  axes.set_aspect('equal')
  axes.set_xlim(-_EDGE, _EDGE)
  axes.set_ylim(-_EDGE, _EDGE)
  axes.add_patch(
    patches.Circle((0, 0), 1, facecolor='none', edgecolor=look.soft, zorder=0)
  )
  drawn.text(
    0.5, (below - 0.05) / height, caption, ha='center', va='top', fontsize=8,
    linespacing=1.4,
  )  # fmt: skip
  return drawn, axes


def _edges(axes, made, places, look):
  """Geodesics from each node to its parent, thin from items."""
  from matplotlib import patches, path

  n = len(made.order)
  nodes = np.flatnonzero(made.parent >= 0)
  # Of many they are but a ground.
  thin, faint = np.clip(150 / n, 0.3, 1), np.clip(20 / n**0.5, 0.2, 0.8)
  inner = nodes >= n
  for own, width, alpha in ((~inner, thin, faint), (inner, 1.4, 1.0)):
    lines = _arcs(places, nodes[own], made.parent[nodes[own]])
    if not lines:
      continue
    codes = [
      code
      for line in lines
      for code in [path.Path.MOVETO, *[path.Path.LINETO] * (len(line) - 1)]
    ]
    axes.add_patch(
      patches.PathPatch(
        path.Path(np.concatenate(lines), codes),
        facecolor='none', edgecolor=look.soft, linewidth=width, alpha=alpha,
        zorder=1, gid='tree' if own is inner else 'items',
      )
    )  # fmt: skip


def _arcs(places, nodes, parents):
  """A geodesic of each edge, with as many points as it bends."""
  start, end = places[nodes], places[parents]
  turn = np.abs(geodesics.turns(start, end))
  count = 2 + np.ceil(turn / _STEP).astype(int)
  found = []
  for num in np.unique(count):
    own = count == num
    found += list(geodesics.arcs(start[own], end[own], int(num)))
  return found


def _points(axes, places, kinds, draw):
  """Items in random order, so that no kind hides the others."""
  from matplotlib import lines

  size = np.clip(6_000 / len(places), 2.5, 40)
  order = draw.permutation(len(places))
  colors = np.array(kinds.colors)[kinds.code[order]]
  marks = np.array(kinds.markers)[kinds.code[order]]
  for mark in dict.fromkeys(kinds.markers):
    own = marks == mark
    axes.scatter(
      *places[order[own]].T, s=size, c=colors[own], marker=mark, linewidths=0,
      zorder=2, rasterized=len(places) > _VECTORS,
    )  # fmt: skip
  return [
    lines.Line2D([], [], linestyle='', color=color, marker=mark, markersize=6)
    for color, mark in zip(kinds.colors, kinds.markers, strict=True)
  ]


def _nodes(axes, made, places, look):
  """Inner nodes, the larger the more items lie below them."""
  n = len(made.order)
  size = 8 + 60 * np.sqrt(made.size[n:] / n)
  axes.scatter(
    *places[n:].T, s=size, c=look.paper, edgecolors=look.ink, linewidths=0.8,
    zorder=3,
  )  # fmt: skip


def _candidates(made, c, draw):
  """What may have a thumbnail, what matters most first: (node, item)."""
  n = len(made.order)
  typical = _hierarchy.representatives(made, c)
  inner = n + np.argsort(-made.size[n:], kind='stable')
  inner = inner[made.size[inner] > 1]
  yield from ((node, typical[node - n]) for node in inner.tolist())
  yield from ((item, item) for item in draw.permutation(n).tolist())


def _pictures(axes, collection, candidates, places, kinds, look, most):
  """Thumbnails where they hide no other, smaller toward the boundary."""
  from matplotlib import patches

  n, count = len(collection), 0
  # Middles, and half of the sides.
  taken = np.zeros((0, 3))
  for node, item in candidates:
    x, y = places[node]
    half = max(_SMALLEST, _LARGEST * (1 - x * x - y * y)) / 2
    gap = np.abs(taken[:, :2] - places[node]).max(1)
    if (gap < half + taken[:, 2]).any() or np.hypot(x, y) + half > _EDGE:
      continue
    pixels = _thumbnails.pixels(collection, int(item), _PIXELS)
    if pixels is None:
      continue
    inner = node >= n
    image = axes.imshow(
      pixels, extent=(x - half, x + half, y - half, y + half), zorder=4,
      aspect='equal',
    )  # fmt: skip
    edge = look.ink if inner else kinds.colors[kinds.code[item]]
    frame = (
      patches.Circle((x, y), half) if inner
      else patches.Rectangle((x - half, y - half), 2 * half, 2 * half)
    )  # fmt: skip
    frame.set(facecolor='none', edgecolor=edge, linewidth=1.2, zorder=5)
    axes.add_patch(frame)
    image.set_clip_path(frame)
    taken = np.vstack([taken, [x, y, half]])
    count += 1
    if count == most:
      break
  axes.set_xlim(-_EDGE, _EDGE)
  axes.set_ylim(-_EDGE, _EDGE)


def _caption(collection, made, note):
  n = len(collection)
  distance, c = _spaces.resolve(None, collection.c)
  text = (
    f'{n:,} image{"s" * (n != 1)} by {distance} distance'
    f'{f" (c = {c:g})" if c else ""} on the Poincare disk. {made.note} {note}'
  )
  return textwrap.fill(text, 120)
