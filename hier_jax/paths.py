"""Paths as people write them, and outputs that are whole or not there."""

import contextlib
import errno
import importlib.util
import os
import pathlib
import shutil
import stat
import tempfile
import typing
import uuid
from collections.abc import Iterable, Iterator

from etils import epath

from hier_jax.errors import UserError

__all__ = [
  'WriteError',
  'absolute',
  'as_local',
  'as_path',
  'check_output',
  'is_remote',
  'making_folder',
  'replacing',
  'size',
  'write_text',
  'writing',
]

# What a run writes to its workdir, and no output may replace or lie in.
_OF_RUN = (
  'checkpoints',
  'config.json',
  'data.json',
  'lock',
  'metrics.jsonl',
  'results.json',
  'timing.jsonl',
)
# Scheme -> the package that its file system takes, and the extra that has it.
_REMOTE = {'gs': ('gcsfs', 'gs'), 's3': ('s3fs', 's3')}


def as_path(path: str | os.PathLike[str]) -> pathlib.Path:
  """A path, local or remote, with `~` expanded.

  Args:
    path: `runs/a`, `~/runs/a`, `gs://bucket/runs/a` or `s3://bucket/runs/a`.

  Returns:
    A `pathlib.Path`, or for a remote path an `etils.epath.Path`, which has the
    same methods. (epath's own local paths do not list names that end in `~`.)

  Raises:
    UserError: it is empty, of another scheme, its user is not known, or the
      package for its scheme is not installed.

  Example:
    >>> as_path('~/runs').is_absolute()
    True
  """
  text = os.fspath(path)
  scheme, separator, _ = text.partition('://')
  if not separator:
    if not text:
      raise UserError('a path is empty: name a file or a folder')
    try:
      return pathlib.Path(text).expanduser()
    except RuntimeError as error:
      raise UserError(f'path {text!r}: {error}') from error
  if scheme not in _REMOTE:
    known = ', '.join(f'{name}://' for name in _REMOTE)
    raise UserError(
      f'path {text!r} begins with {scheme}://; expected a local path or one of'
      f' {known}'
    )
  package, extra = _REMOTE[scheme]
  if importlib.util.find_spec(package) is None:
    raise UserError(
      f'path {text!r} needs the package {package}: pip install'
      f" 'hier_jax[{extra}]'"
    )
  return typing.cast(pathlib.Path, epath.Path(text))


def as_local(path: str | os.PathLike[str], name: str) -> pathlib.Path:
  """As `as_path`, of what is read at random, linked or mapped into memory.

  Args:
    path: what a person wrote.
    name: what messages call it.

  Raises:
    UserError: it is remote, or as of `as_path`.
  """
  if is_remote(path):
    raise UserError(
      f'{name} {os.fspath(path)} is remote; images and records are read from '
      'local folders alone: copy it, or mount the bucket, as with gcsfuse'
    )
  return as_path(path)


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Whether a path lies in an object store."""
  scheme, separator, _ = os.fspath(path).partition('://')
  return bool(separator) and scheme in _REMOTE


def absolute(path: str | os.PathLike[str]) -> str:
  """A path as text that leads to the same place from any folder."""
  return os.fspath(path) if is_remote(path) else os.path.abspath(path)


def size(path: str | os.PathLike[str]) -> int:
  """Bytes of a file."""
  found: typing.Any = as_path(path).stat()
  # epath's own results have another name for it.
  return found.length if is_remote(path) else found.st_size


def check_output(
  path: str | os.PathLike[str],
  *,
  inputs: Iterable[str | os.PathLike[str]] = (),
  suffixes: Iterable[str] = (),
  folder: bool = False,
) -> pathlib.Path:
  """Checks, before any work, that an output can be written; writes nothing.

  Args:
    path: file or folder to write; its parents may not exist yet.
    inputs: what is read, and must not be written over.
    suffixes: the suffixes a file may have; none for any.
    folder: whether the output is a folder.

  Returns:
    The path as `as_path` has it.

  Raises:
    UserError: it is one of the inputs, or what a run has written; has another
      suffix, is a folder where a file is wanted or the reverse, or lies where
      nothing can be written.
  """
  path, suffixes = as_path(path), tuple(suffixes)
  if any(_same(path, as_path(other)) for other in inputs):
    raise UserError(f'output {path} is an input: choose another place')
  _check_no_run(path)
  local = not is_remote(path)
  if local and path.exists() and path.is_dir() != folder:
    found, wanted = ('a file', 'a folder') if folder else ('a folder', 'a file')
    raise UserError(f'output {path} is {found}; expected the path of {wanted}')
  if suffixes and path.suffix not in suffixes:
    found = f'ends with {path.suffix!r}' if path.suffix else 'has no suffix'
    raise UserError(f'output {path} {found}; expected {" or ".join(suffixes)}')
  if not local:
    return path
  place = path if folder else path.parent
  while not os.path.lexists(place):
    place = place.parent
  if not place.is_dir():
    raise UserError(
      f'output {path} lies below {place}, which is not a folder: choose another'
      ' place'
    )
  if not os.access(place, os.W_OK | os.X_OK):
    raise UserError(f'output {path} cannot be written: {place} is not writable')
  return path


def _check_no_run(path: pathlib.Path) -> None:
  """Raises UserError for what only a run writes to its workdir."""
  place = path if is_remote(path) else path.resolve()
  for own in (place, *place.parents):
    if own.name not in _OF_RUN:
      continue
    run = own.parent
    others = ('metrics.jsonl', 'checkpoints')
    # Other models, too, have a config.json.
    if (run / 'config.json').exists() and any(
      (run / name).exists() for name in others
    ):
      raise UserError(
        f'output {path} would change what the run in {run} has written: choose'
        ' another place'
      )


def _same(path: pathlib.Path, other: pathlib.Path) -> bool:
  if path.exists() and other.exists() and not is_remote(path):
    return os.path.samefile(path, other)
  return path.absolute() == other.absolute()


class WriteError(UserError, OSError):
  """An output that cannot be written: a full disk, for instance."""


@contextlib.contextmanager
def writing(
  path: str | os.PathLike[str],
  errors: type[Exception] | tuple[type[Exception], ...] = OSError,
) -> Iterator[None]:
  """Raises WriteError, which names the path, for errors of the block.

  Those of an object store's library are of any kind.
  """
  caught = Exception if is_remote(path) else errors
  try:
    yield
  except UserError:
    # A WriteError names a path already, the one that failed.
    raise
  except caught as error:
    lines = str(error).splitlines() or ['']
    why = getattr(error, 'strerror', None) or lines[0]
    message = f'{path} cannot be written ({type(error).__name__}: {why})'
    raise WriteError(message) from error


@contextlib.contextmanager
def replacing(
  path: str | os.PathLike[str],
  errors: type[Exception] | tuple[type[Exception], ...] = OSError,
) -> Iterator[pathlib.Path]:
  """The local path of a file to write, which takes another's place at the end.

  Where the block raises, the old file stays and the new one is removed; after a
  power failure one of the two is whole. Parents are made. An old file's mode is
  kept, and a link to a file goes on leading to it.

  Args:
    path: the file that is written in the end.
    errors: what the block's writer raises where it cannot write.

  Raises:
    WriteError: for these errors.
  """
  path = as_path(path)
  if is_remote(path):
    # An object is whole or not there by itself, and to rename it is to copy it.
    with writing(path, errors), tempfile.TemporaryDirectory() as folder:
      temporary = pathlib.Path(folder) / path.name
      yield temporary
      with temporary.open('rb') as source, path.open('wb') as target:
        shutil.copyfileobj(source, target)
    return
  with writing(path, errors):
    path.parent.mkdir(parents=True, exist_ok=True)
    # A link to nothing gives way: whoever made it chose where it leads.
    place = path.resolve() if path.exists() else path
    # Not the process's number: hosts that share a file system may share that.
    temporary = place.with_name(f'{place.name}.{uuid.uuid4().hex}.tmp')
    try:
      mode = _made(temporary, place)
      yield temporary
      temporary.chmod(mode)
      _sync(temporary)
      temporary.replace(place)
      # Some file systems have no way to do this for folders.
      with contextlib.suppress(OSError):
        _sync(place.parent)
    finally:
      temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def making_folder(path: str | os.PathLike[str]) -> Iterator[pathlib.Path]:
  """A new folder to write files in, which has its name only at the end.

  Where the block raises, nothing is left. Parents are made. An empty folder
  that is there already stays itself, and the files are moved into it at the
  end: it may be the working directory, or lie behind a link or on a disk of its
  own.

  Args:
    path: the folder, which is not there, or empty; not remote.

  Raises:
    WriteError: it cannot be written, or holds something.
  """
  path = as_path(path)
  with writing(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    old = path.is_dir()
    name = f'{path.name}.{uuid.uuid4().hex}.tmp'
    temporary = path / name if old else path.with_name(name)
    if old:
      _check_empty(path)
    temporary.mkdir()
    try:
      yield temporary
      for file in temporary.iterdir():
        _sync(file)
      if old:
        _check_empty(path, but=temporary)
        for file in list(temporary.iterdir()):
          file.replace(path / file.name)
      else:
        temporary.replace(path)
      with contextlib.suppress(OSError):
        _sync(path if old else path.parent)
    finally:
      shutil.rmtree(temporary, ignore_errors=True)


def _check_empty(folder: pathlib.Path, but: pathlib.Path | None = None) -> None:
  """Raises OSError where a folder holds anything else."""
  if any(file != but for file in folder.iterdir()):
    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY))


def _made(temporary: pathlib.Path, target: pathlib.Path) -> int:
  """Makes an empty file, and returns the mode that it is to have."""
  if not target.exists():
    temporary.touch(exist_ok=False)
    return stat.S_IMODE(temporary.stat().st_mode)
  # Nobody else reads it before it has its mode.
  temporary.touch(0o600, exist_ok=False)
  return stat.S_IMODE(target.stat().st_mode)


def _sync(path: pathlib.Path) -> None:
  """Waits until a file, or a folder's list of names, is on the disk."""
  number = os.open(path, os.O_RDONLY)
  try:
    os.fsync(number)
  finally:
    os.close(number)


def write_text(path: str | os.PathLike[str], text: str) -> None:
  """Writes a text file so that it is either the old one or whole."""
  with replacing(path) as temporary:
    temporary.write_bytes(text.encode())
