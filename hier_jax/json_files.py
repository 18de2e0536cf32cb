"""JSON that a stranger, or a crash, may have written."""

import json
import os
from typing import Any

from hier_jax import paths
from hier_jax.errors import UserError, plain

__all__ = ['parse', 'read_object']


def parse(text: str | bytes) -> Any:
  """What a JSON text holds.

  Raises:
    ValueError: it is no JSON, is no UTF-8, or nests too deep to be read.
  """
  try:
    return json.loads(text)
  except RecursionError:
    raise ValueError('it nests too deep') from None


def read_object(path: str | os.PathLike[str], wanted: str) -> dict[str, Any]:
  """Reads a file that holds a JSON object.

  Args:
    path: the file.
    wanted: what was expected, for the message.

  Raises:
    FileNotFoundError: there is no such file.
    UserError: it cannot be read, or holds anything else.
  """
  path = paths.as_path(path)
  try:
    found = parse(path.read_bytes())
  except FileNotFoundError:
    raise
  except (OSError, ValueError) as error:
    raise UserError(
      f'{path} is no JSON ({plain(str(error))}); expected {wanted}'
    ) from error
  if not isinstance(found, dict):
    raise UserError(
      f'{path} holds a {type(found).__name__} and no object; expected {wanted}'
    )
  return found
