"""Colors and marks of the classes, or of what lies above them."""

from typing import NamedTuple

import numpy as np

from hier_jax.errors import UserError, did_you_mean, plain
from hier_jax.viz import _hierarchy
from hier_jax.viz.theme import Theme

_MARKERS = 'o', '^', 's'
# Characters of a name in a legend.
_LONG = 32


class Kinds(NamedTuple):
  """What items are told apart by.

  Attributes:
    names: what the legend lists, the most frequent first; the last may be
      'others'. None where there are no labels.
    colors: of each.
    markers: of each.
    code: int `[n]`, the name of each item.
  """

  names: list[str]
  colors: list[str]
  markers: list[str]
  code: np.ndarray


def level(collection, name: str | None) -> int:
  """The number of a level; None is the coarsest.

  Raises:
    UserError: there is none of that name.
  """
  known = _hierarchy.level_names(collection)
  if name is None:
    return 0
  if name not in known:
    hint = did_you_mean(name, known) or '; leave it out'
    raise UserError(
      f'there is no level {name!r}; expected one of {known}{hint}'
      if known
      else f'there is no level {name!r}: the images have no labels'
    )
  return known.index(name)


def kinds(
  levels, number: int, n: int, look: Theme, *, markers: int = len(_MARKERS)
) -> Kinds:
  """The kinds of items at a level.

  The most frequent have a hue each, and after all hues the same with another
  marker; others are gray.

  Args:
    levels: of each level, coarsest first, names and the code of each item.
    number: of the level.
    n: items.
    look: of the figure.
    markers: how many are used.
  """
  if not levels:
    return Kinds([], [look.hues[0]], [_MARKERS[0]], np.zeros(n, int))
  names, codes = levels[number]
  count = np.bincount(codes, minlength=len(names))
  most = np.argsort(-count, kind='stable')
  most = most[count[most] > 0]
  hues = len(look.hues)
  own = most[: markers * hues]
  found = np.full(len(names), len(own))
  found[own] = np.arange(len(own))
  shown = [short(names[i], _LONG) for i in own]
  colors = [look.hues[i % hues] for i in range(len(own))]
  marks = [_MARKERS[i // hues] for i in range(len(own))]
  if rest := len(most) - len(own):
    shown.append(f'{rest:,} others')
    colors.append(look.other)
    marks.append('.')
  return Kinds(shown, colors, marks, found[codes])


def short(name: str, room: int) -> str:
  """So many characters of a name, on one line."""
  name = plain(name)
  return name if len(name) <= room else f'{name[: room - 1]}…'
