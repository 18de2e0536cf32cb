"""Compiled programs on disk, so that a run that goes on starts at once."""

import os
import pathlib
import stat
import sys
from typing import Any

import filelock
import jax

__all__ = ['keep_programs']

# Hundreds of runs' programs; beyond it go those that were not used for longest.
_MAX_BYTES = 10**9
_LOCK_SECONDS = 10


def keep_programs() -> None:
  """Lets JAX keep what it compiles in the user's cache folder.

  Comes before anything is compiled. A cache that the user chose for JAX, by its
  own variables such as JAX_COMPILATION_CACHE_DIR, stays as it is. Where the
  folder cannot be written, or others may write to it, a line says so and
  programs are compiled anew: what lies there is run as it is.
  """
  # JAX's type of its options names none of them.
  config: Any = jax.config
  if not config.jax_enable_compilation_cache:
    return
  if config.jax_compilation_cache_dir is not None:
    return
  try:
    folder = _folder()
    for place in (folder.parent, folder):
      _make_private(place)
    _remove_torn(folder)
  # RuntimeError: the user has no home.
  except (OSError, RuntimeError) as error:
    print(
      f'compiled programs are not kept ({type(error).__name__}: {error});'
      ' JAX_COMPILATION_CACHE_DIR=FOLDER keeps them elsewhere',
      file=sys.stderr,
    )
    return
  config.update('jax_compilation_cache_dir', str(folder))
  config.update('jax_compilation_cache_max_size', _MAX_BYTES)
  # Else JAX compiles anew what takes it less than a second.
  config.update('jax_persistent_cache_min_compile_time_secs', 0)


def _folder() -> pathlib.Path:
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base).expanduser() / 'hier_jax' / 'programs'


def _make_private(folder: pathlib.Path) -> None:
  """Makes a folder where there is none; raises where others may write."""
  folder.mkdir(mode=0o700, parents=True, exist_ok=True)
  found = folder.lstat()
  if stat.S_ISLNK(found.st_mode):
    raise PermissionError(f'{folder} is a link')
  if found.st_uid != os.geteuid():
    raise PermissionError(f'{folder} belongs to user {found.st_uid}')
  if found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
    raise PermissionError(
      f'others may write to {folder}: `chmod go-w` it after emptying it'
    )


def _remove_torn(folder: pathlib.Path) -> None:
  """Removes what a process was killed while writing, which JAX never does.

  It notes the time of use beside a program after it has written it.
  """
  with filelock.FileLock(folder / '.lockfile', timeout=_LOCK_SECONDS):
    for program in folder.glob('*-cache'):
      used = program.with_name(program.name.removesuffix('-cache') + '-atime')
      if not used.exists():
        program.unlink()
