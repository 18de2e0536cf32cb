"""Distances between items of the same class and between others."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks, _distances
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.retrieval import _spaces
from hier_jax.viz import _hierarchy, _kinds, _pairs
from hier_jax.viz import theme as themes

if TYPE_CHECKING:
  from matplotlib.figure import Figure

__all__ = ['PAIRS', 'Sample', 'figure', 'samples']

# Of each kind.
PAIRS = 100_000
_BINS = 80
# Pairs whose rows are held at a time.
_BLOCK = 1 << 14
# Hues and lines, which tell them apart in gray too.
_STYLES = ((0, '-'), (1, '--'), (2, ':'))


class Sample(NamedTuple):
  """Distances of pairs of one kind.

  Attributes:
    name: of the kind.
    distances: float64 `[m]`.
    total: how many pairs of this kind there are.
  """

  name: str
  distances: np.ndarray
  total: int


def samples(
  collection: Collection, *, pairs: int = PAIRS, seed: int = 0
) -> list[Sample]:
  """Distances of pairs of one class, of one parent, and of all others.

  Pairs of one parent belong to two classes under the same parent; they exist
  only with a taxonomy of two or more levels. Other pairs belong to two parents,
  or to two classes if there are no parents.

  Args:
    collection: with labels.
    pairs: largest number of pairs of a kind; of more, that many are drawn with
      replacement.
    seed: of what is drawn.

  Returns:
    A sample for each kind that has a pair. Distances are the model's own,
    computed in float64 in all dimensions.

  Raises:
    UserError: no labels, or fewer than two items.
  """
  if collection.labels is None:
    raise UserError(
      'the images have no labels, which histograms of distances compare: label'
      ' them, as by a folder a class'
    )
  n = len(collection)
  if n < 2:
    raise UserError(
      f'there are {n} images; expected two or more to compare distances'
    )
  pairs = _checks.positive_int('pairs', pairs)
  draw = np.random.default_rng(seed)
  *above, (_, classes) = _hierarchy.levels(collection)
  everything = np.zeros(n, int)
  wanted = [('same class', classes, None)]
  if above:
    level = _hierarchy.level_names(collection)[-2]
    parents = above[-1][1]
    name = f'same {_kinds.short(level, 30)}, another class'
    wanted += [
      (name, parents, classes),
      (f'another {_kinds.short(level, 30)}', everything, parents),
    ]
  else:
    wanted += [('another class', everything, classes)]
  found = []
  for name, coarse, fine in wanted:
    first, second, total = _pairs.pairs(coarse, fine, pairs, draw)
    if len(first):
      far = _far(collection, first, second)
      found.append(Sample(name, far, total))
  return found


def _far(collection, first, second):
  """Distances `[m]` of the items of each pair."""
  x = np.asarray(collection.embeddings)
  distance, c = _spaces.resolve(None, collection.c)
  found = [
    _distances.paired(
      x[first[block : block + _BLOCK]].astype(np.float64),
      x[second[block : block + _BLOCK]].astype(np.float64),
      distance,
      c,
    )
    for block in range(0, len(first), _BLOCK)
  ]
  return np.concatenate(found)


def figure(
  collection: Collection,
  *,
  pairs: int = PAIRS,
  theme: str = 'light',
  seed: int = 0,
) -> Figure:
  """Histograms of distances of one class, of one parent, and of all others.

  Each histogram shows shares of its own pairs, so that kinds can be compared;
  vertical lines are medians.

  Args:
    collection: with labels, see `samples`.
    pairs: see `samples`.
    theme: 'light' or 'dark'.
    seed: of what is drawn.

  Raises:
    UserError: as `samples`; an unknown theme; Matplotlib is not installed.

  Example:
    >>> import numpy as np
    >>> from hier_jax.evaluation.collection import Collection
    >>> from hier_jax.viz import histograms
    >>> made = Collection(
    ...   np.eye(4)[[0, 0, 1, 1]], None, tuple('abcd'),
    ...   np.array([0, 0, 1, 1]), ('cat', 'dog'),
    ... )
    >>> [(s.name, s.total) for s in histograms.samples(made)]
    [('same class', 2), ('another class', 4)]
  """
  with themes.drawing(theme) as look:
    found = samples(collection, pairs=pairs, seed=seed)
    drawn = look.figure(8.0, 4.4)
    axes = look.axes(drawn)
    everything = np.concatenate([sample.distances for sample in found])
    edges = np.histogram_bin_edges(everything, _BINS)
    handles, names = [], []
    for sample, (hue, line) in zip(found, _STYLES, strict=False):
      color = look.hues[hue]
      handles.append(_steps(axes, sample.distances, edges, color, line))
      names.append(_described(sample))
    axes.set_ylim(0)
    axes.set_xlim(edges[0], edges[-1])
    distance, c = _spaces.resolve(None, collection.c)
    axes.set_xlabel(f'{distance} distance' + (f' (c = {c:g})' if c else ''))
    axes.set_ylabel('share of the pairs (%)')
    axes.set_title(_kinds.short(collection.title, 100), fontsize=11)
    themes.legend(drawn, names, handles)
  return drawn


def _steps(axes, distances, edges, color, line):
  """A histogram and its median; returns what stands for it in a legend."""
  from matplotlib import colors

  weights = np.full(len(distances), 100 / len(distances))
  *_, (patch,) = axes.hist(
    distances, edges, weights=weights, histtype='stepfilled', linewidth=1.5,
    facecolor=colors.to_rgba(color, 0.2), edgecolor=color, linestyle=line,
  )  # fmt: skip
  axes.axvline(np.median(distances), color=color, linestyle=line, linewidth=1)
  return patch


def _described(sample):
  num, total = len(sample.distances), sample.total
  which = (
    f'all {total:,} pairs' if num == total else f'{num:,} of {total:,} pairs'
  )
  return f'{sample.name}: median {np.median(sample.distances):.3g}, {which}'
