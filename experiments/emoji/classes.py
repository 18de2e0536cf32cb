"""Which emoji are classes, in what order, and how they are split.

The tree is Unicode's: group -> subgroup -> emoji, as `emojibase-data` has it.
"""

import collections
import dataclasses
import json
import pathlib
import re

__all__ = [
  'Emoji',
  'hex_id',
  'in_class_order',
  'read',
  'split_class',
  'split_subgroup',
  'without_sizes',
]

# Flags are told apart by text and color alone; components are skin tones
# and hair, not emoji of their own.
_GROUPS_LEFT_OUT = ('component', 'flags')

# Variants of another emoji: gendered, of a man's or woman's role or couple,
# family, hair, facing right.
_VARIANT = re.compile(
  r'200D-264[02]|^1F46[89]-200D|200D-1F9D2|200D-1F9B[0-3]|200D-27A1$'
)

# Squares and diamonds that differ from another emoji in their size only, which
# the ink crop takes away.
_SIZE_ONLY = frozenset(
  ('25AA', '25AB', '25FB', '25FC', '25FD', '25FE', '1F538', '1F539')
)


@dataclasses.dataclass(frozen=True)
class Emoji:
  """One class: an emoji and its place in Unicode's tree.

  Attributes:
    hex: code points as `hex_id` writes them, the class's identity.
    emoji: the characters themselves.
    label: the CLDR short name.
    group: Unicode's group, the root's child.
    subgroup: Unicode's subgroup; a name is used in one group only.
    version: the Emoji version that brought it.
  """

  hex: str
  emoji: str
  label: str
  group: str
  subgroup: str
  version: float

  @property
  def plain(self) -> str:
    """The characters without variation selectors, as fonts have them."""
    return self.emoji.replace('\ufe0f', '')


def hex_id(code_points: str) -> str:
  """Writes `0023-fe0f-20e3` as `23-20E3`: no variation selector, no zeros."""
  parts = (part.lstrip('0').upper() for part in code_points.split('-'))
  return '-'.join(part for part in parts if part != 'FE0F')


def read(npm: pathlib.Path) -> list[Emoji]:
  """Returns the base emoji without their variants, in Unicode's order.

  Args:
    npm: the `node_modules` folder with `emojibase-data`.
  """
  folder = npm / 'emojibase-data'
  tree = json.loads((folder / 'meta/groups.json').read_text('utf-8'))
  rows = json.loads((folder / 'en/data.json').read_text('utf-8'))
  # A regional indicator (half of a flag) has no group.
  rows = sorted((r for r in rows if 'group' in r), key=lambda r: r['order'])
  emoji = [
    Emoji(
      hex=hex_id(row['hexcode']),
      emoji=row['emoji'],
      label=row['label'],
      group=tree['groups'][str(row['group'])],
      subgroup=tree['subgroups'][str(row['subgroup'])],
      version=row['version'],
    )
    for row in rows
  ]
  return [
    e
    for e in emoji
    if e.group not in _GROUPS_LEFT_OUT and not _VARIANT.search(e.hex)
  ]


def in_class_order(emoji: list[Emoji]) -> list[Emoji]:
  """Sorts by subgroup in Unicode's order, inside one by code points."""
  place = {s: i for i, s in enumerate(dict.fromkeys(e.subgroup for e in emoji))}

  def key(e):
    return place[e.subgroup], [int(part, 16) for part in e.hex.split('-')]

  return sorted(emoji, key=key)


def without_sizes(emoji: list[Emoji]) -> list[Emoji]:
  """Leaves out what differs from another emoji in its size only."""
  return [e for e in emoji if e.hex not in _SIZE_ONLY]


def split_class(classes: list[Emoji]) -> list[str]:
  """Split A: `train` and `test` by turns, so that subgroups are shared.

  Args:
    classes: in class order. The turns go on over the borders of subgroups, so
      that subgroups of odd size don't all favor `train`.
  """
  return [('train', 'test')[i % 2] for i in range(len(classes))]


def split_subgroup(emoji: list[Emoji]) -> dict[str, str]:
  """Split B: subgroup -> side, about half of each group's emoji on each.

  Inside a group each subgroup, the largest first, goes to the side with fewer
  emoji so far.

  Args:
    emoji: in class order, with those that `without_sizes` leaves out: they
      were classes when this split was fixed, and without them the subgroups of
      symbols would fall otherwise.
  """
  sizes: dict[str, collections.Counter] = {}
  for e in emoji:
    sizes.setdefault(e.group, collections.Counter())[e.subgroup] += 1
  side = {}
  for subgroups in sizes.values():
    total = {'train': 0, 'test': 0}
    for subgroup, size in subgroups.most_common():
      side[subgroup] = 'test' if total['test'] < total['train'] else 'train'
      total[side[subgroup]] += size
  return side
