"""The lists and folders that data sets are published as, and their faults."""

import collections
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from hier_jax import errors
from hier_jax.errors import UserError, plain, shown

_MAX_LISTED = 10


def listed(found: Sequence[object]) -> str:
  """Returns the first ten of a list as text."""
  return errors.listed(found, _MAX_LISTED)


def locate(
  source: pathlib.Path,
  files: Sequence[str],
  *,
  folder: str,
  archives: Sequence[str] = (),
  instructions: str,
) -> pathlib.Path:
  """Returns the folder, `source` or the one in it, that holds all `files`.

  Args:
    source: the folder that the user named.
    files: files and folders that must be there.
    folder: what the archive unpacks to.
    archives: files that the user may have forgotten to unpack.
    instructions: where to get it.

  Raises:
    UserError: naming what is missing, and archives that are still packed.
  """
  roots = [source, source / folder]
  lost = [[f for f in files if not (r / f).exists()] for r in roots]
  missing, root = min(zip(lost, roots, strict=True), key=lambda x: len(x[0]))
  if not missing:
    return root
  packed = [r / a for r in roots for a in archives if (r / a).is_file()]
  unpack = ''.join(
    f' {a} is still packed: run `{_unpacking(a)}`.' for a in packed
  )
  raise UserError(
    f'{root} lacks {", ".join(missing)}; expected {", ".join(files)} there or '
    f'in {folder}/ below.{unpack} {instructions}'
  )


def _unpacking(archive: pathlib.Path) -> str:
  if archive.suffix == '.zip':
    return f'unzip {archive} -d {archive.parent}'
  return f'tar -xf {archive} -C {archive.parent}'


def read_table(
  path: pathlib.Path,
  columns: Mapping[str, Callable[[str], object]],
  *,
  header: bool = False,
  counted: bool = False,
) -> list[tuple[Any, ...]]:
  """Reads a list with a row a line, its cells separated by blanks.

  Args:
    path: the file.
    columns: name of each column and what makes its value from text.
    header: whether a line with the columns' names comes first.
    counted: whether the number of rows stands above that.

  Returns:
    A tuple a row.

  Raises:
    UserError: for a file that cannot be read, another header, rows of another
      number than said, and rows that do not fit, these all counted.
  """
  try:
    lines = path.read_text(encoding='utf-8').splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise UserError(
      f'{path} cannot be read ({plain(str(error))}); unpack it from the '
      'archive again'
    ) from error
  numbered = [(i, line.split()) for i, line in enumerate(lines, 1)]
  numbered = [(i, cells) for i, cells in numbered if cells]
  expected = [cells for _, cells in numbered[: counted + header]]
  if (header and expected[counted:] != [list(columns)]) or (
    counted and expected[:1] != [[str(len(numbered) - counted - header)]]
  ):
    above = f'the number of rows ({len(numbered) - 2:,}) and ' * counted
    raise UserError(
      f'{path} begins with {shown([" ".join(x) for x in expected])}; expected '
      f'{above}the columns {" ".join(columns)!r}: it may be cut off, unpack it '
      'from the archive again'
    )
  rows, bad = [], []
  for i, cells in numbered[counted + header :]:
    try:
      made = zip(columns.values(), cells, strict=True)
      rows.append(tuple(make(cell) for make, cell in made))
    except ValueError:
      bad.append(str(i))
  if bad or not rows:
    raise UserError(
      f'{path} holds {len(bad):,} of {len(bad) + len(rows):,} lines that are '
      f'not {" ".join(columns)!r}{": lines " * bool(bad)}{listed(bad)}; unpack '
      'it from the archive again'
    )
  return rows


def unique(values: Iterable[object], what: str) -> None:
  """Raises UserError for values that stand twice."""
  counts = collections.Counter(values)
  doubled = [str(value) for value, count in counts.items() if count > 1]
  if doubled:
    raise UserError(
      f'{what} holds {len(doubled):,} twice: {listed(doubled)}; expected each '
      'once: unpack it from the archive again'
    )
