"""The command line: one module for each verb; each parses, calls, prints."""

import importlib.metadata
import os
import platform
import signal
import sys
from collections.abc import Sequence

import hier_jax
from hier_jax.cli import (
  convert,
  data,
  embed,
  evaluate,
  explore,
  export,
  figures,
  report,
  search,
  train,
  tree,
  verbs,
)
from hier_jax.errors import UserError, did_you_mean, plain

__all__ = ['VERBS', 'main']

VERBS = {
  module.VERB.name: module.VERB
  for module in (
    train,
    evaluate,
    embed,
    search,
    tree,
    explore,
    figures,
    export,
    report,
    data,
    convert,
  )
}
_HELP = '--help', '-help', '-h'
_USAGE = """usage: hier-jax VERB [--flag ...]

{verbs}

  hier-jax VERB --help
      Show the flags of a verb.

  hier-jax --version
      Show the versions of hier_jax, JAX and Python.
"""


def main(argv: Sequence[str] | None = None) -> int:
  """Runs one verb.

  Args:
    argv: the program's name, the verb and its arguments; by default
      `sys.argv`.

  Returns:
    The exit code: 0 for success, 2 for a mistake that the user can correct,
    130 after Ctrl-C, and 141 when the reader of the output has left. Any other
    exception is a fault of the program and is raised.
  """
  argv = sys.argv if argv is None else argv
  try:
    _run(*(argv[1:] or ['--help']))
    # Python has no stdout where it was closed beforehand, as by `>&-`.
    if sys.stdout is not None:
      sys.stdout.flush()
  except BrokenPipeError:
    # The reader has what it wants, as `| head` does. Python flushes the rest
    # of the output when it ends, and must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE
  except UserError as error:
    if '--traceback' in argv:
      raise
    print(f'hier-jax: error: {error}', file=sys.stderr)
    return 2
  except PermissionError as error:
    if '--traceback' in argv:
      raise
    place = plain(str(error.filename or error))
    print(
      f'hier-jax: error: {place} may not be read or entered: choose another'
      ' place, or change its permissions',
      file=sys.stderr,
    )
    return 2
  except KeyboardInterrupt:
    print('hier-jax: interrupted', file=sys.stderr)
    return 128 + signal.SIGINT
  return 0 if argv[1:] else 2


def _run(verb: str, *arguments: str) -> None:
  if verb == '--version':
    print(_versions())
  elif verb in ('help', *_HELP):
    print(_USAGE.format(verbs=verbs.usage(VERBS.values())))
  elif verb not in VERBS:
    expected = f'; expected one of {", ".join(VERBS)}; see hier-jax --help'
    hint = did_you_mean(verb, VERBS) or expected
    raise UserError(f'unknown verb {verb!r}{hint}')
  elif any(argument in _HELP for argument in arguments):
    print(VERBS[verb].help())
  else:
    VERBS[verb](arguments)


def _versions() -> str:
  try:
    jax = importlib.metadata.version('jax')
  except importlib.metadata.PackageNotFoundError:
    jax = 'not installed'
  python = platform.python_version()
  return f'hier_jax {hier_jax.__version__}, jax {jax}, Python {python}'
