"""Aligns the icon names of a set with code points."""

import collections
import csv
import pathlib
import re
import unicodedata

from classes import Emoji, hex_id
from sets import IconSet

__all__ = ['align', 'read_by_hand', 'table']

# Where Streamline draws an emoji more than once it numbers the drawings.
_FIRST_OF_SEVERAL = re.compile(r'-1$')


def _norm(name: str) -> str:
  """Keeps ASCII letters and digits, without accents, in lower case."""
  plain = unicodedata.normalize('NFKD', name).lower().replace('&', 'and')
  return re.sub(r'[^a-z0-9]', '', plain)


def table(emoji: list[Emoji], sets: list[IconSet]) -> dict[str, str]:
  """Maps normalized names to `Emoji.hex`, or to the code points of no class.

  CLDR's names go before those that sets with code points use, and these
  before Unicode's character names, which older sets follow.
  """
  pairs = [(e.label, e.hex) for e in emoji]
  pairs += [(n, hex_id(h)) for s in sets for h, n in s.chars.items()]
  pairs += [
    # Python may not know the newest; the sets that need this are older.
    (unicodedata.name(e.plain, ''), e.hex)
    for e in emoji
    if len(e.plain) == 1
  ]
  known: dict[str, str] = {}
  for name, code_points in pairs:
    known.setdefault(_norm(name), code_points)
  return known


def read_by_hand(path: pathlib.Path) -> dict[str, dict[str, str]]:
  """Reads names.csv: style -> icon -> `Emoji.hex`, looked at one by one."""
  by_hand = collections.defaultdict(dict)
  with path.open(encoding='utf-8', newline='') as f:
    for row in csv.DictReader(f):
      by_hand[row['style']][row['icon']] = row['hex']
  return by_hand


def align(
  icons: IconSet, known: dict[str, str], by_hand: dict[str, str]
) -> dict[str, str]:
  """Maps `Emoji.hex` (and code points of no class) to the icon that draws it.

  Args:
    icons: the set.
    known: the `table` of names.
    by_hand: icon -> `Emoji.hex`; goes before the set's own code points, and
      these before names.
  """
  found = {h: icon for icon, h in by_hand.items()}
  for code_points, icon in icons.chars.items():
    found.setdefault(hex_id(code_points), icon)
  used = set(found.values())
  for icon in icons.names:
    name = _norm(_FIRST_OF_SEVERAL.sub('', icon))
    if icon not in used and name in known:
      found.setdefault(known[name], icon)
  return found
