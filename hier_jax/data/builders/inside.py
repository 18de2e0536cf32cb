"""Whether files lie in the folder that a data set is made from."""

import collections
import functools
import os
import pathlib
import stat
import sys
from collections.abc import Mapping

from hier_jax.data.builders import tables
from hier_jax.errors import UserError, plain

REMEDY = (
  'copy them there, as git annex unlock does, or dvc checkout --relink with'
  ' cache.type reflink,hardlink,copy; or name a folder that holds both'
)
# Kind of fault -> what is wrong with the files and what to do.
_FAULTS = {
  'lost': 'are listed but not there: {}; unpack the archive again, whole',
  'outside': f'lie outside of {{root}}: {{}}; {REMEDY}',
  'special': 'are no regular files: {}; remove them',
  'large': 'have more than {most:,.0f} bytes: {}; they are not what they are'
  ' said to be: replace or remove them',
}


class Inside:
  """A folder that no list and no link may lead out of.

  An archive may list /etc/passwd, hold a link to it, or a pipe.

  Args:
    root: the folder; '/' for files that are trusted.
  """

  def __init__(self, root: str | os.PathLike[str]) -> None:
    self._root = os.path.realpath(root)
    # Images share few folders: of each only one call to the system is left.
    self._real = functools.cache(os.path.realpath)

  def holds(self, path: str | os.PathLike[str]) -> bool:
    """Whether a path leads into the folder, links followed."""
    real = os.path.realpath(path)
    return f'{real}/'.startswith(os.path.join(self._root, ''))

  def has(self, file: pathlib.Path) -> bool:
    """Whether this is a regular file in the folder."""
    try:
      return bool(self.stats({file: ''}, 'files', sys.maxsize))
    except UserError:
      return False

  def stats(
    self, files: Mapping[pathlib.Path, str], what: str, most: float
  ) -> dict[pathlib.Path, os.stat_result]:
    """What is known of regular files in the folder; opens none.

    Args:
      files: each with what its list, or its link, is called.
      what: what messages call them all.
      most: bytes that one may have.

    Raises:
      UserError: for files that are missing, elsewhere, larger or no regular
        ones, all of them counted.
    """
    stats: dict[pathlib.Path, os.stat_result] = {}
    faults = collections.defaultdict[str, list[str]](list)
    for file, name in files.items():
      try:
        real, stats[file] = self._find(file)
      # ValueError: a name with a zero byte.
      except (OSError, ValueError):
        faults['lost'].append(str(file))
        continue
      if not f'{real}/'.startswith(os.path.join(self._root, '')):
        faults['outside'].append(f'{plain(name)} ({plain(real)})')
      elif not stat.S_ISREG(stats[file].st_mode):
        faults['special'].append(name)
      elif stats[file].st_size > most:
        faults['large'].append(name)
    told = [
      f'{len(faults[kind]):,} {what} '
      + text.format(tables.listed(faults[kind]), root=self._root, most=most)
      for kind, text in _FAULTS.items()
      if faults[kind]
    ]
    if told:
      raise UserError('. '.join(told))
    return stats

  def _find(self, file: pathlib.Path) -> tuple[str, os.stat_result]:
    folder, name = os.path.split(file)
    real = os.path.join(self._real(folder), name)
    found = os.lstat(real)
    if stat.S_ISLNK(found.st_mode):
      real = os.path.realpath(real)
      found = os.stat(real)
    return real, found
