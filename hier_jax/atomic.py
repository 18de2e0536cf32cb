"""Files that are either the old one or whole."""

import contextlib
import pathlib
import uuid
from collections.abc import Iterator

__all__ = ['replacing', 'write_text']


@contextlib.contextmanager
def replacing(path) -> Iterator[pathlib.Path]:
  """The path of a file to write, which takes another's place at the end.

  Where the block raises, the old file stays and the new one is removed.
  """
  path = pathlib.Path(path)
  # Not the process's number: hosts that share a file system may share that.
  temporary = path.with_name(f'{path.name}.{uuid.uuid4().hex}.tmp')
  try:
    yield temporary
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)


def write_text(path, text):
  """Writes a text file so that it is either the old one or whole."""
  with replacing(path) as temporary:
    temporary.write_text(text, encoding='utf-8', newline='\n')
