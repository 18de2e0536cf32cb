"""What programs of this folder share on the command line."""

import argparse
import pathlib
import signal
import sys
from collections.abc import Callable

from hier_jax import paths
from hier_jax.errors import UserError

__all__ = ['minutes', 'path', 'run']


def path(text: str) -> pathlib.Path:
  """A local path, with `~` expanded: a `type` of argparse.

  Raises:
    argparse.ArgumentTypeError: it is empty or remote.
  """
  try:
    return paths.as_local(text, 'path')
  except UserError as error:
    raise argparse.ArgumentTypeError(str(error)) from error


def minutes(text: str) -> float:
  """A time of 0 minutes or more: a `type` of argparse.

  Raises:
    argparse.ArgumentTypeError: it is no such number.
  """
  try:
    found = float(text)
  except ValueError:
    found = float('nan')
  # NaN is not 0 or more.
  if not found >= 0:
    raise argparse.ArgumentTypeError(
      f'{text!r} is no time; expected minutes, 0 or more'
    )
  return found


def run(command: Callable[[], object]) -> int:
  """Runs a command, and tells in one line what a person can correct.

  Args:
    command: what is run.

  Returns:
    The exit code: 0 for success, 2 after a UserError, 130 after Ctrl-C.
  """
  try:
    command()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('interrupted', file=sys.stderr)
    return 128 + signal.SIGINT
  return 0
