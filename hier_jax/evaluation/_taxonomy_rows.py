"""Rows of a taxonomy's table as the ancestors of each class, and its errors."""

import csv
import io
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from hier_jax import paths
from hier_jax.errors import UserError, listed, plain

# Levels are counted in one byte.
MAX_LEVELS = 255


def read_rows(path) -> tuple[list[str], list[list[str]]]:
  """The header and the rows of a CSV file, cells without blanks around."""
  try:
    text = paths.as_path(path).read_bytes().decode('utf-8-sig')
    rows = csv.reader(io.StringIO(text, newline=''))
    table = [[cell.strip() for cell in row] for row in rows]
  except (OSError, UnicodeDecodeError, csv.Error) as error:
    raise UserError(
      f'{path} cannot be read as CSV: {plain(str(error))}'
    ) from error
  lines = [(i, row) for i, row in enumerate(table, 1) if any(row)]
  if len(lines) < 2:
    raise UserError(
      f'{path} holds {len(lines)} rows; expected a header and a row a class '
      '(or an edge)'
    )
  (_, header), *rest = lines
  _check_commas(path, [header, *(row for _, row in rest)])
  bad = [i for i, row in rest if len(row) != len(header) or not row[0]]
  if bad:
    raise UserError(
      f'{path} holds {counted(bad, "line")} without a name or of another '
      f'length than the header ({len(header)} cells); fill them up'
    )
  return header, [row for _, row in rest]


def _check_commas(path, rows: Sequence[Sequence[str]]) -> None:
  """Refuses cells that something else than commas separates."""
  for separator in ';', '\t', '|':
    if all(len(row) == 1 and separator in row[0] for row in rows):
      raise UserError(
        f'{path} has {separator!r} in every line and no commas; expected cells '
        'separated by commas: save it so'
      )


def paths_of_edges(rows: Sequence[Sequence[str]]) -> dict[str, list[str]]:
  """Ancestors of each leaf below the root, coarsest first."""
  parents: dict[str, set[str]] = {}
  for child, parent in rows:
    parents.setdefault(child, set()).add(parent)
  if several := {k: v for k, v in parents.items() if len(v) > 1}:
    raise not_a_tree(several)
  if doubled := repeated(child for child, _ in rows):
    raise UserError(f'the edges of {counted(doubled, "node")} stand twice')
  above = {child: found.pop() for child, found in parents.items()}
  upward: dict[str, list[str]] = {'': []}
  for node in [*above, *above.values()]:
    way = []
    # A way back to itself ends at the first node it meets again.
    on_way: set[str] = set()
    while node not in upward and node not in on_way:
      way.append(node)
      on_way.add(node)
      node = above.get(node, '')
      # The root is none of the levels.
      if len(way) > MAX_LEVELS + 1:
        raise too_deep(f'more than {MAX_LEVELS}')
    if node not in upward:
      raise UserError(
        'the taxonomy is not a tree: '
        f'{counted(way[way.index(node) :], "node")} are their own ancestors; '
        'expected no cycle'
      )
    if len(way) + len(upward[node]) > MAX_LEVELS + 1:
      raise too_deep(f'more than {MAX_LEVELS}')
    for step in reversed(way):
      upward[step] = [*upward[above.get(step, '')], step]
  roots = {way[0] for way in upward.values() if way}
  if len(roots) > 1:
    raise UserError(
      f'the taxonomy is not a tree: {counted(sorted(roots), "node")} have no '
      'parent; expected one: give them a parent in common'
    )
  inner = set(above.values())
  leaves = {x: upward[x][1:-1] for x in above if x not in inner | roots}
  if not leaves:
    raise UserError('the taxonomy holds no class below its root')
  return leaves


def trimmed(name: str, row: Sequence[str]) -> list[str]:
  """The row without the empty cells at its end."""
  row = list(row)
  while row and not row[-1]:
    row.pop()
  if not all(row):
    raise UserError(
      f'the row of class {name!r} has an empty cell between others; expected '
      'them at the end only: name every ancestor'
    )
  return row


def too_deep(found: int | str) -> UserError:
  """The error of more levels than one byte counts."""
  return UserError(
    f'the taxonomy has {found} levels; expected at most {MAX_LEVELS}'
  )


def not_a_tree(several: Mapping[str, Iterable[str]]) -> UserError:
  """The error of nodes with several parents, node -> parents."""
  name, parents = next(iter(several.items()))
  shown = ', '.join(repr(x) if x else 'none' for x in sorted(parents))
  return UserError(
    f'the taxonomy is not a tree: {counted(list(several), "node")} with '
    f'several parents ({name!r} has {shown}); expected one each: rename those '
    'that only share a name'
  )


def repeated(names: Iterable[str]) -> list[str]:
  """The names that stand more than once."""
  return [name for name, count in Counter(names).items() if count > 1]


def counted(found: Sequence[object], noun: str) -> str:
  """How many there are, and the first: "2 classes: 'a', 'b'"."""
  shown = listed([repr(x) for x in found])
  plural = {'class': 'classes'}.get(noun, noun + 's')
  return f'{len(found)} {noun if len(found) == 1 else plural}: {shown}'
