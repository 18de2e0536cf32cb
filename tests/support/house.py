"""The house as it stands: its rooms, their modules, and who imports whom.

    python -m tests.support.house

prints a line for each room.
"""

import ast
import collections
import pathlib

from tests.support import places

PACKAGE = places.ROOT / 'hier_jax'
# Folders whose folders are rooms of their own.
_PARTED = ('training', 'models')


def room_of(parts):
  """The room of a module, given the parts of its name within the package."""
  if parts[0] in _PARTED and (PACKAGE / pathlib.Path(*parts[:2])).is_dir():
    return '/'.join(parts[:2])
  return parts[0]


def imported(path):
  """Dotted names that a module imports, `a.b` of `from a import b` too."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def modules():
  """Room -> paths of its modules, the package's own files left out."""
  found = collections.defaultdict(list)
  for path in sorted(PACKAGE.rglob('*.py')):
    parts = path.relative_to(PACKAGE).with_suffix('').parts
    if parts[-1] == '__init__':
      parts = parts[:-1]
    if parts and parts != ('__main__',):
      found[room_of(parts)].append(path)
  return dict(found)


def arrows():
  """Room -> the rooms it imports -> the import statements, as (path, name)."""
  found = {}
  for room, paths in modules().items():
    of = found.setdefault(room, collections.defaultdict(list))
    for path in paths:
      for name in imported(path):
        first, _, rest = name.partition('.')
        # `import hier_jax` alone, as for its version, names no room.
        if first != 'hier_jax' or not rest:
          continue
        if (other := room_of(rest.split('.'))) != room:
          of[other].append((path, name))
  return found


def main():
  """Prints the rooms."""
  rooms = modules()
  for room, others in sorted(arrows().items()):
    lines = sum(len(path.read_text().splitlines()) for path in rooms[room])
    print(
      f'{room:22} {len(rooms[room]):3} modules {lines:6,} lines'
      f'  <- {" ".join(sorted(others))}'
    )


if __name__ == '__main__':
  main()
