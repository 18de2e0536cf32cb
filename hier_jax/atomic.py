"""Files that are either the old one or whole."""

import os
import pathlib

__all__ = ['write_text']


def write_text(path, text):
  """Writes a text file so that it is either the old one or whole."""
  path = pathlib.Path(path)
  temporary = path.with_name(f'{path.name}.{os.getpid()}.tmp')
  try:
    temporary.write_text(text, encoding='utf-8', newline='\n')
    temporary.replace(path)
  finally:
    temporary.unlink(missing_ok=True)
