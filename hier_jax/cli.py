"""The command line: one verb a function; parse, call, print."""

import sys

from absl import flags
from ml_collections import config_dict, config_flags

from hier_jax.errors import UserError

_USAGE = """usage: hier-jax VERB [--flag ...]

verbs:
  train --config FILE[:PRESET] --workdir DIR [--config.KEY=VALUE ...]
      trains, or goes on with the run that DIR holds

  evaluate EMBEDDINGS.npz [--gallery NPZ] [--curvature C] [--taxonomy CSV]
           [--recall_at 1,2,4,8] [--out JSON]
      figures of arrays 'embeddings' and 'labels', of any framework

  --traceback with any verb shows where an error arose
"""


def _one_line(error):
  """What went wrong, without the traceback that a config file's error holds."""
  text = str(error.args[0]) if error.args else type(error).__name__
  if 'Traceback' in text:
    text = text.strip().splitlines()[-1]
    text = text.removeprefix(f'{UserError.__module__}.UserError: ')
  # An error within an error has its quotes and newlines escaped.
  text = text.replace('\\n', ' ').replace("\\'", "'")
  return ' '.join(text.split())


def _flags(argv, define, positional=0):
  """Flags, in a table of their own, and at most so many other arguments."""
  values = flags.FlagValues()
  values.set_gnu_getopt()
  define(values)
  flags.DEFINE_bool(
    'traceback', False, 'show where an error arose', flag_values=values
  )
  try:
    extra = values(argv)[1:]
  except (flags.Error, AttributeError, TypeError, ValueError) as error:
    raise UserError(_one_line(error)) from error
  except KeyError as error:
    raise UserError(f'unknown config key {_one_line(error)}') from error
  if len(extra) > positional:
    raise UserError(
      f'unexpected argument {extra[positional]!r}, see hier-jax --help'
    )
  return values, extra


def _config_flags(argv):
  """The flags of verbs that run a config in a workdir."""

  def define(values):
    config_flags.DEFINE_config_file(
      'config', None, 'FILE[:PRESET]', flag_values=values, sys_argv=argv
    )
    flags.DEFINE_string(
      'workdir', None, 'folder of the run', flag_values=values
    )

  values, _ = _flags(argv, define)
  if values['config'].value is None or values.workdir is None:
    raise UserError(f'{argv[0]} needs --config FILE[:PRESET] and --workdir DIR')
  if not isinstance(values.config, config_dict.ConfigDict):
    path = values['config'].config_filename
    raise UserError(
      f'config file {path} cannot be read: expected the path of a Python file'
      ' with a function get_config(preset=None)'
    )
  return values


def _train(argv):
  values = _config_flags(argv)
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.training import loop

  loop.train(values.config, values.workdir)


def _evaluate(argv):

  def define(values):
    flags.DEFINE_string('gallery', None, 'an .npz', flag_values=values)
    flags.DEFINE_float('curvature', None, 'c', flag_values=values)
    flags.DEFINE_string('taxonomy', None, 'a CSV', flag_values=values)
    flags.DEFINE_string('out', None, 'a JSON file', flag_values=values)
    flags.DEFINE_list('recall_at', '1,2,4,8', 'the K', flag_values=values)

  values, paths = _flags(argv, define, positional=1)
  if not paths:
    raise UserError('evaluate needs a file of embeddings, an .npz')
  try:
    recall_at = [int(k) for k in values.recall_at]
  except ValueError:
    raise UserError(
      f'--recall_at is {",".join(values.recall_at)}, expected integers: 1,10'
    ) from None
  from hier_jax.evaluation import files

  figures = files.evaluate(
    paths[0],
    values.gallery,
    c=values.curvature,
    taxonomy=values.taxonomy,
    recall_at=recall_at,
  )
  if values.out is not None:
    files.write_json(values.out, figures)
  print(files.as_lines(figures))


_VERBS = {'train': _train, 'evaluate': _evaluate}


def main(argv=None):
  """Runs a verb; returns the exit code, 2 for what the user can mend."""
  argv = sys.argv if argv is None else argv
  if len(argv) < 2 or argv[1] in ('help', '-h', '--help'):
    print(_USAGE)
    return 0 if len(argv) > 1 else 2
  verb, rest = argv[1], [f'hier-jax {argv[1]}', *argv[2:]]
  try:
    if verb not in _VERBS:
      known = ', '.join(_VERBS)
      raise UserError(f'unknown verb {verb!r}; the known ones are {known}')
    _VERBS[verb](rest)
  except UserError as error:
    if '--traceback' in rest:
      raise
    print(f'hier-jax: error: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('hier-jax: interrupted', file=sys.stderr)
    return 130
  return 0
