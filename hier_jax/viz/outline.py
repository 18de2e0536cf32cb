"""A hierarchy as text: nodes, their number of items, and typical items."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator

import numpy as np
import rich.text
import rich.tree

from hier_jax.errors import UserError, plain
from hier_jax.evaluation import _checks, _distances
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.retrieval import _spaces
from hier_jax.evaluation.tree.structure import Tree
from hier_jax.viz import _hierarchy

__all__ = ['Outline', 'outline']

# Typical items that are named, and children of a node that are listed.
_TYPICAL, _CHILDREN = 3, 12


@dataclasses.dataclass(frozen=True, eq=False)
class Outline:
  """The hierarchy of a collection, to print or to write.

  Attributes:
    tree: over the items, which are called by their ids.
    hierarchy: the same, as the figures take it in place of a source.
    text: a `rich` tree; `rich.print(text)` shows it.
  """

  tree: Tree
  hierarchy: _hierarchy.Hierarchy
  text: rich.tree.Tree

  @property
  def note(self) -> str:
    """Where the tree comes from, for people."""
    return self.hierarchy.note


def outline(
  collection: Collection, *, source: str = 'auto', depth: int = 3
) -> Outline:
  """Makes the tree of a collection and its text.

  Each line of the text is an inner node: the class of at least half of its
  items, or else its two main groups; that class's share; the number of items
  below; and the classes or ids of its most typical items.

  Args:
    collection: of one item or more.
    source: 'proxies', 'linkage', or 'auto' for proxies where there are any.
    depth: levels of the text below its root.

  Raises:
    UserError: no items, an unknown source, proxies asked for where there are
      none, a depth that is not a positive integer.

  Example:
    >>> import numpy as np, rich
    >>> from hier_jax.evaluation.collection import Collection
    >>> from hier_jax.viz.outline import outline
    >>> rows = np.eye(3)[[0, 0, 1]]
    >>> made = Collection(rows, None, ids=('a', 'b', 'c'))
    >>> print(outline(made).tree.num_leaves)
    3
  """
  depth = _checks.positive_int('depth', depth)
  if not len(collection):
    raise UserError('there are no images to make a tree of')
  levels = _hierarchy.levels(collection)
  made = _hierarchy.hierarchy(collection, source)
  tree = Tree(made.parent, names=collection.ids, proxy=made.proxy)
  return Outline(tree, made, _text(collection, made, levels, depth))


def _text(
  collection: Collection,
  made: _hierarchy.Hierarchy,
  levels: list[tuple[list[str], np.ndarray]],
  depth: int,
) -> rich.tree.Tree:
  n = len(collection)
  names, shares = _hierarchy.names(made, levels)
  below: dict[int, list[int]] = {}
  for node in range(n, len(made.parent)):
    below.setdefault(int(made.parent[node]), []).append(node)

  def line(node: int) -> rich.text.Text:
    name, share = names[node - n], shares[node - n]
    who = f'proxy {made.proxy[node]}: ' if made.proxy[node] >= 0 else ''
    kind = f'{plain(name)} ({100 * share:.0f} %), ' if name else ''
    size = int(made.size[node])
    typical = ', '.join(plain(x) for x in _typical(collection, made, node))
    images = f'{size:,} image{"s" * (size != 1)}'
    return rich.text.Text(f'{who}{kind}{images}: {typical}')

  (root,) = below.get(-1, [0])
  if root < n:
    return rich.tree.Tree(rich.text.Text(plain(collection.ids[0])))
  shown = rich.tree.Tree(line(root))
  # Without recursion: a chain of thousands of nodes is no trouble.
  waiting = [(root, shown, 1)]
  while waiting:
    node, branch, level = waiting.pop()
    children = sorted(below.get(node, []), key=lambda i: -made.size[i])
    listed = children[:_CHILDREN] if level <= depth else []
    for child in listed:
      waiting.append((child, branch.add(line(child)), level + 1))
    if rest := len(children) - len(listed):
      branch.add(rich.text.Text(f'... {rest} more'))
  return shown


def _typical(
  collection: Collection, made: _hierarchy.Hierarchy, node: int
) -> Iterator[str]:
  """Classes of the items nearest to a node's point, or else of some below.

  Their ids where they have no class.
  """
  items = made.leaves(node)
  point = made.points[node]
  if np.isfinite(point[0]) and point.any():
    distance, c = _spaces.resolve(None, collection.c)
    rows = np.broadcast_to(point, (len(items), len(point)))
    far = _distances.paired(made.points[items], rows, distance, c)
    items = items[np.argsort(far, kind='stable')]
  names = (collection.label(i) or collection.ids[i] for i in items.tolist())
  yield from itertools.islice(dict.fromkeys(names), _TYPICAL)
