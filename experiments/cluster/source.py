"""The files of this repository, for a machine that has none of them."""

import pathlib
import subprocess
import tarfile

__all__ = ['SourceError', 'tracked_files', 'write_archive']

_ROOT = pathlib.Path(__file__).resolve().parents[2]


class SourceError(Exception):
  """There are no files to copy."""


def tracked_files():
  """Paths, from the top of the repository, of files that git knows."""
  git = subprocess.run(
    ['git', '-C', str(_ROOT), 'ls-files', '-z'], capture_output=True, text=True
  )
  if git.returncode:
    raise SourceError(
      f'{_ROOT} is no checkout that git knows ({git.stderr.strip()}): launch'
      ' from a clone, whose files are copied to the machine'
    )
  listed = git.stdout.split('\0')
  # What was removed but not yet from git is listed, too.
  return [name for name in listed if name and (_ROOT / name).is_file()]


def write_archive(path):
  """Writes the tracked files, as they are now, to a .tar.gz."""
  path = pathlib.Path(path)
  path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
  with tarfile.open(path, 'w:gz') as archive:
    for name in tracked_files():
      archive.add(_ROOT / name, arcname=name)
