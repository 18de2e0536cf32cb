"""A taxonomy of classes: a tree that people made, to measure against."""

import dataclasses
import os
import unicodedata
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from hier_jax.errors import UserError
from hier_jax.evaluation import _taxonomy_rows as _rows
from hier_jax.evaluation._taxonomy_rows import counted

_EDGES = ['child', 'parent']


@dataclasses.dataclass(frozen=True, eq=False)
class Taxonomy:
  """The classes as leaves of a tree, made by `from_csv` or `from_levels`.

  Levels are counted from the root, which is not a level. A class that lies
  higher than others stands for itself at the levels below it, so every class
  has a node at each level and the last level is the class itself.

  Attributes:
    classes: names `[C]`.
    path: int32 `[C, L]`, the node of each class at each level, coarsest first.
      A node has the same number at all levels.
    depth: int32 `[C]`, edges from the root down to the class, 1 to L.
    level_names: L names, coarsest first.
    node_names: what the nodes are called, by number.

  Example:
    >>> from hier_jax import evaluation
    >>> taxonomy = evaluation.Taxonomy.from_levels(
    ...   [['cats'], ['cats'], ['dogs']], classes=['lion', 'tiger', 'wolf']
    ... )
    >>> print(taxonomy.distance(0, [1, 2]))
    [2 4]
  """

  classes: tuple[str, ...]
  path: np.ndarray
  depth: np.ndarray
  level_names: tuple[str, ...]
  node_names: tuple[str, ...]

  @classmethod
  def from_csv(cls, path: str | os.PathLike[str]) -> 'Taxonomy':
    """Reads a taxonomy from a CSV file with a header, in UTF-8.

    Either each row is a class: the class first, then its ancestors from coarse
    to fine. The header names the levels; empty cells at the end of a row make
    the class lie higher:

      species,order,family
      lion,carnivora,felidae
      platypus,monotremata,

    Or, if the header is `child,parent`, each row is an edge. The one node that
    is not a child (or whose parent is empty) is the root, which is not a level;
    nodes that are not parents are the classes. Levels are then called
    `level1`, ..., `class`.

    Raises:
      UserError: a file that cannot be read or is not such a table; rows that
        are longer or shorter than the header; repeated classes; levels without
        a name; nodes with several parents; cycles; no root or several; more
        than 255 levels.
    """
    header, rows = _rows.read_rows(path)
    if [name.lower() for name in header] == _EDGES:
      return _build(_rows.paths_of_edges(rows), None)
    if [name.lower() for name in header] == _EDGES[::-1]:
      raise UserError(
        f'{path} has the header {",".join(header)}; expected child,parent, the '
        'child first: exchange the two columns'
      )
    doubled = _rows.repeated(row[0] for row in rows)
    if doubled:
      raise UserError(
        f'{path} holds {counted(doubled, "class")} more than once; expected '
        'one row a class'
      )
    paths = {row[0]: _rows.trimmed(row[0], row[1:]) for row in rows}
    return _build(paths, [*header[1:], header[0]])

  @classmethod
  def from_levels(
    cls,
    levels: ArrayLike,
    classes: Sequence[object] | None = None,
    level_names: Sequence[str] | None = None,
  ) -> 'Taxonomy':
    """Makes a taxonomy from arrays.

    Args:
      levels: `[C, A]`, what each class belongs to at each level above the
        classes, coarsest first; integers or strings. -1 or '' at the end of a
        row makes that class lie higher.
      classes: names `[C]` or integers; None for 0 .. C - 1.
      level_names: names of the A levels and of the classes' own level; None for
        `level1`, ..., `class`.

    Raises:
      UserError: wrong shapes or dtypes; repeated classes; nodes with several
        parents.
    """
    levels = np.asarray(levels)
    if levels.ndim != 2 or not len(levels) or levels.dtype.kind not in 'iuU':
      raise UserError(
        f'`levels` is {levels.dtype} {levels.shape}; expected integers or '
        'strings [classes, levels above them], one class or more'
      )
    names = [
      str(x) for x in (range(len(levels)) if classes is None else classes)
    ]
    if len(names) != len(levels):
      raise UserError(
        f'`classes` holds {len(names)} names for the {len(levels)} rows of '
        '`levels`; expected as many'
      )
    if doubled := _rows.repeated(names):
      raise UserError(
        f'`classes` holds {counted(doubled, "class")} more than once'
      )
    cells = np.where(levels.astype(str) == '-1', '', levels.astype(str))
    rows = zip(names, cells.tolist(), strict=True)
    paths = {name: _rows.trimmed(name, row) for name, row in rows}
    width = levels.shape[1] + 1
    if level_names is not None and len(level_names) != width:
      raise UserError(
        f'`level_names` holds {len(level_names)} names; expected {width}, the '
        'last that of the classes'
      )
    return _build(paths, level_names or _default_names(width))

  @property
  def num_levels(self) -> int:
    """L, the number of levels, including the classes' own level."""
    return self.path.shape[1]

  def codes(self, labels: ArrayLike, name: str = 'labels') -> np.ndarray:
    """Returns the row of each label's class, int64 `[n]`.

    Args:
      labels: `[n]`, strings or integers; a class is found by its name as text.
      name: what messages call the labels.

    Raises:
      UserError: missing labels, or classes that are not in the taxonomy.
    """
    labels = np.asarray(labels)
    text = np.array([_as_text(x) for x in labels.tolist()])
    if missing := np.flatnonzero(text == '').tolist():
      raise UserError(
        f'`{name}` lacks {counted(missing, "label")} of {len(text)} (by row); '
        'expected a class for every row'
      )
    row = {name: i for i, name in enumerate(self.classes)}
    used, inverse = np.unique(text, return_inverse=True)
    if unknown := [str(x) for x in used if x not in row]:
      hint = self._why_unknown(unknown)
      raise UserError(
        f'`{name}` holds {counted(unknown, "class")} that the taxonomy lacks'
        f'{hint}; expected some of its {len(self.classes)} classes: add these '
        'to it, or leave their rows out'
      )
    return np.array([row[x] for x in used], np.int64)[inverse.reshape(-1)]

  def _why_unknown(self, names: Sequence[str]) -> str:
    """What may be wrong with names that are none of the classes'."""
    if set(self.node_names).intersection(names):
      return ' (some are inner nodes: label by classes)'
    known = {unicodedata.normalize('NFC', x) for x in self.classes}
    if known.intersection(unicodedata.normalize('NFC', x) for x in names):
      return (
        ' (some differ only in how accents are encoded: write both in one form,'
        " such as unicodedata.normalize('NFC', name))"
      )
    return ''

  def labeled(self, names: Mapping[int, str] | Mapping[str, str]) -> 'Taxonomy':
    """Returns the classes that labels stand for, renamed to these labels.

    Args:
      names: label -> name of its class.

    Raises:
      UserError: names that the taxonomy lacks.
    """
    rows = self.codes(list(names.values()))
    return dataclasses.replace(
      self,
      classes=tuple(map(str, names)),
      path=self.path[rows],
      depth=self.depth[rows],
    )

  def common_levels(self, a: ArrayLike, b: ArrayLike) -> np.ndarray:
    """Number of levels that two classes share, from the coarsest on: uint8.

    Args:
      a: rows of the first classes, integers of any shape.
      b: rows of the second classes, of a shape that broadcasts with that of a.

    Returns:
      0 to L; L exactly for a class with itself.
    """
    a, b = np.asarray(a), np.asarray(b)
    shared = np.zeros(np.broadcast_shapes(a.shape, b.shape), np.uint8)
    for nodes in self.path.T:
      shared += nodes[a] == nodes[b]
    return shared

  def lca_depth(self, a, b) -> np.ndarray:
    """Edges from the root down to the lowest common ancestor, int32."""
    lower = np.minimum(self.depth[a], self.depth[b])
    return np.minimum(self.common_levels(a, b).astype(np.int32), lower)

  def distance(self, a, b) -> np.ndarray:
    """Edges on the way between two classes, int32; see `common_levels`."""
    return self.depth[a] + self.depth[b] - 2 * self.lca_depth(a, b)

  def parents(self) -> np.ndarray:
    """The tree as the parent of each node, int64; -1 for the root.

    The leaves are nodes 0 .. C - 1, the classes; inner nodes come after them
    and the root last.
    """
    is_inner = np.arange(1, self.num_levels + 1) < self.depth[:, None]
    inner = np.unique(self.path[is_inner])
    root = len(self.classes) + len(inner)
    number = np.empty(len(self.node_names), np.int64)
    number[inner] = np.arange(len(self.classes), root)
    number[self.path[:, -1]] = np.arange(len(self.classes))
    parent = np.full(root + 1, root)
    parent[root] = -1
    for upper, lower in zip(self.path.T, self.path.T[1:], strict=False):
      below = upper != lower
      parent[number[lower[below]]] = number[upper[below]]
    return parent


def expect(taxonomy) -> Taxonomy:
  """The taxonomy.

  Raises:
    UserError: it is none.
  """
  if not isinstance(taxonomy, Taxonomy):
    raise UserError(
      f'`taxonomy` is a {type(taxonomy).__name__}; expected a Taxonomy: '
      'make one by Taxonomy.from_levels(levels, classes) or .from_csv(path)'
    )
  return taxonomy


def _build(
  paths: Mapping[str, Sequence[str]], level_names: Sequence[str] | None
) -> Taxonomy:
  """The taxonomy of classes with their ancestors, coarsest first."""
  longest = 1 + max(map(len, paths.values()))
  width = longest if level_names is None else len(level_names)
  if width > _rows.MAX_LEVELS:
    raise _rows.too_deep(width)
  names = tuple(level_names or _default_names(width))
  if unnamed := [i for i, x in enumerate(names, 1) if not str(x).strip()]:
    raise UserError(
      f'{counted(unnamed, "level")} of {width} (the classes last) lacks a name;'
      ' expected one each: name its column in the header, or remove it'
    )
  if doubled := _rows.repeated(names):
    raise UserError(f'{counted(doubled, "level")} is named more than once')
  number: dict[tuple[int, str], int] = {}
  parents: dict[int, set[str]] = {}
  path = np.empty((len(paths), width), np.int32)
  for row, (name, ancestors) in enumerate(paths.items()):
    for level, node in enumerate(ancestors):
      path[row, level] = number.setdefault((level, node), len(number))
      above = ancestors[level - 1] if level else ''
      parents.setdefault(int(path[row, level]), set()).add(above)
    # Level -1: a class may be called what one of its ancestors is called.
    path[row, len(ancestors) :] = number.setdefault((-1, name), len(number))
  node_names = tuple(name for _, name in number)
  several = {node_names[k]: v for k, v in parents.items() if len(v) > 1}
  if several:
    raise _rows.not_a_tree(several)
  depth = np.array([1 + len(x) for x in paths.values()], np.int32)
  return Taxonomy(tuple(paths), path, depth, names, node_names)


def _default_names(width: int) -> list[str]:
  return [*(f'level{i}' for i in range(1, width)), 'class']


def _as_text(label) -> str:
  """The label as text; '' where it is missing."""
  if label is None or label != label:
    return ''
  if isinstance(label, float) and label.is_integer():
    label = int(label)
  if not isinstance(label, bytes):
    return str(label)
  try:
    return label.decode()
  except UnicodeDecodeError:
    raise UserError(
      f'label {label!r} is bytes and no UTF-8; expected text: decode it'
    ) from None
