"""The command line, called in the process of the tests."""

from hier_jax import cli


def run(*args):
  """The exit code of `hier-jax` with these arguments."""
  return cli.main(['hier-jax', *map(str, args)])
