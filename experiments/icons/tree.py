"""Levels above the classes out of WordNet's hypernyms, and the split."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence

__all__ = ['GROUP', 'SUBGROUP', 'cut', 'levels', 'sides']

# Least number of classes of a node of each level.
SUBGROUP = 8
GROUP = 60

# From the root to a node, itself included.
Path = Sequence[str]


def cut(paths: Mapping[str, Path], weights: Mapping[str, int], least: int):
  """Parts a tree's items among the deepest nodes that are large enough.

  From the deepest nodes up, a node takes the items below it that none has
  taken yet, once these are `least` or more. The root takes the rest.

  Args:
    paths: item -> its path.
    weights: item -> what it counts for.
    least: the least weight of a node.

  Returns:
    Item -> its node, which is on its path.

  Example:
    >>> paths = {'cat': ['animal', 'cat'], 'dog': ['animal', 'dog']}
    >>> cut(paths, {'cat': 1, 'dog': 1}, 2)
    {'cat': 'animal', 'dog': 'animal'}
  """
  node, free = {}, set(paths)
  deepest = max(map(len, paths.values()))
  for depth in range(deepest, 0, -1):
    below: dict[str, list[str]] = collections.defaultdict(list)
    for item in paths:
      if item in free and len(paths[item]) >= depth:
        below[paths[item][depth - 1]].append(item)
    for name, items in below.items():
      if depth == 1 or sum(weights[item] for item in items) >= least:
        node |= dict.fromkeys(items, name)
        free.difference_update(items)
  return {item: node[item] for item in paths}


def levels(paths: Mapping[str, Path]) -> dict[str, tuple[str, str]]:
  """Class -> its group and its subgroup, nodes of its path.

  Subgroups have `SUBGROUP` classes or more, and groups, which are made of whole
  subgroups, `GROUP`; but for the root, which takes what is left.
  """
  subgroup = cut(paths, dict.fromkeys(paths, 1), SUBGROUP)
  sizes = collections.Counter(subgroup.values())
  above = {
    subgroup[name]: path[: list(path).index(subgroup[name]) + 1]
    for name, path in paths.items()
  }
  group = cut(above, sizes, GROUP)
  return {name: (group[node], node) for name, node in subgroup.items()}


def sides(found: Mapping[str, tuple[str, str]]) -> dict[str, str]:
  """Subgroup -> 'train' or 'test', about half of each group's classes on each.

  Inside a group each subgroup, the largest first, goes to the side with fewer
  classes of the group so far, and where these are as many, to the side with
  fewer classes in all.

  Args:
    found: class -> its group and its subgroup.
  """
  sizes: dict[str, collections.Counter] = {}
  for group, subgroup in found.values():
    sizes.setdefault(group, collections.Counter())[subgroup] += 1
  side, overall = {}, {'train': 0, 'test': 0}
  for _, subgroups in sorted(sizes.items()):
    total = {'train': 0, 'test': 0}
    ordered = sorted(subgroups.items(), key=lambda item: (-item[1], item[0]))
    for subgroup, size in ordered:
      chosen = min(total, key=lambda k: (total[k], overall[k]))
      side[subgroup] = chosen
      total[chosen] += size
      overall[chosen] += size
  return side
