"""The command line: one verb a function; parse, call, print."""

import sys

from absl import flags
from ml_collections import config_dict, config_flags

from hier_jax import paths as paths_lib
from hier_jax.errors import UserError

_USAGE = """usage: hier-jax VERB [--flag ...]

verbs:
  train --config FILE[:PRESET] --workdir DIR [--config.KEY=VALUE ...]
        [--seeds 0,1,2]
      trains, or goes on with the run that DIR holds; with seeds one run after
      the other, in DIR/seed0 and so on, and a table over them

  train --config FILE[:PRESET] --dry_run [--workdir DIR]
        [--config.KEY=VALUE ...]
      prints the config, parameters and their rates, batches and memory, and
      checks what a run checks before it begins

  evaluate WORKDIR[/checkpoints/STEP] [--query SPLIT] [--gallery SPLIT]
           [--data_dir DIR] ...
  evaluate EMBEDDINGS.npz [--gallery NPZ] ...
           [--curvature C] [--taxonomy CSV] [--recall_at 1,2,4,8] [--out JSON]
           [--export faiss]
      figures of a run's checkpoint on its data set's test split, or of arrays
      'embeddings' and 'labels' of any framework; --export writes an index of
      the gallery beside them

  report DIR... [--out FOLDER]
      runs side by side, over seeds; DIR is a workdir or holds some; FOLDER gets
      report.md, report.json and curves.png

  data prepare NAME [--from DIR] [--data_dir DIR]
      turns the images in DIR into checked records, or goes on with that

  data info NAME [--data_dir DIR] [--sheet PNG]
      what a prepared data set holds, in figures and on a contact sheet

  convert SOURCE TARGET.safetensors [--architecture NAME] [--timm]
      pretrained weights of a file, or published under a name, in our format;
      --timm writes them under timm's names, for PyTorch

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
    flags.DEFINE_bool('dry_run', False, 'only describe', flag_values=values)
    flags.DEFINE_list('seeds', None, 'a run with each', flag_values=values)

  values, _ = _flags(argv, define)
  placed = values.dry_run or values.workdir is not None
  if values['config'].value is None or not placed:
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
  from hier_jax.training import compilation

  compilation.keep_programs()
  if values.dry_run:
    from hier_jax.training import dry_run

    print(dry_run.describe(values.config, values.workdir))
    return
  seeds = values.seeds and _integers('seeds', values.seeds)
  from hier_jax.training import loop, processes, trials

  with processes.joined():
    if seeds is None:
      loop.train(values.config, values.workdir)
    else:
      trials.train(values.config, values.workdir, seeds)


def _evaluate(argv):

  def define(values):
    flags.DEFINE_string('query', None, 'a split', flag_values=values)
    flags.DEFINE_string('gallery', None, 'split or .npz', flag_values=values)
    flags.DEFINE_string('data_dir', None, 'prepared data', flag_values=values)
    flags.DEFINE_float('curvature', None, 'c', flag_values=values)
    flags.DEFINE_string('taxonomy', None, 'a CSV', flag_values=values)
    flags.DEFINE_string('out', None, 'a JSON file', flag_values=values)
    flags.DEFINE_list('recall_at', None, 'the K', flag_values=values)
    flags.DEFINE_enum(
      'export', None, ['faiss'], 'kind of index', flag_values=values
    )

  values, paths = _flags(argv, define, positional=1)
  if not paths:
    raise UserError(
      'evaluate needs the workdir of a run or a file of embeddings, an .npz'
    )
  task, c = _task(paths[0], values), values.curvature
  from hier_jax.evaluation import files

  found = files.figures(task, c=c)
  if values.out is not None:
    files.write_json(values.out, found)
  print(files.as_lines(found))
  if values.export is not None:
    print(f'index written to {files.export_faiss(task, c=c)}')


def _task(path, values):
  """What `evaluate` is to rank, of a run or of files."""
  changed = {}
  if values.recall_at is not None:
    changed['recall_at'] = _integers('recall_at', values.recall_at)
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.evaluation import files

  if paths_lib.as_path(path).is_dir():
    from hier_jax.training import embedding

    task = embedding.from_checkpoint(
      path,
      query=values.query,
      gallery=values.gallery,
      data_dir=values.data_dir,
    )
  else:
    for flag in ('query', 'data_dir'):
      if values[flag].value is not None:
        raise UserError(
          f'--{flag} {values[flag].value} goes with the workdir of a run, but'
          f' {path} is none: the queries are what the file holds'
        )
    task = files.read_task(path, values.gallery)
  if values.taxonomy is not None:
    changed['taxonomy'] = files.Taxonomy.from_csv(values.taxonomy)
  return task._replace(**changed)


def _integers(name, texts):
  try:
    return [int(text) for text in texts]
  except ValueError:
    raise UserError(
      f'--{name} is {",".join(texts)}, expected integers: 1,10'
    ) from None


def _report(argv):

  def define(values):
    flags.DEFINE_string('out', None, 'a folder', flag_values=values)

  values, folders = _flags(argv, define, positional=len(argv))
  if not folders:
    raise UserError('report needs a DIR: a workdir, or a folder of workdirs')
  from hier_jax.training import compare, runs

  found = runs.load(folders)
  if values.out is not None:
    print(compare.write(found, values.out))
  else:
    print(compare.as_markdown(compare.summary(found)))


def _data(argv):

  def define(values):
    flags.DEFINE_string('from', None, 'folder of images', flag_values=values)
    flags.DEFINE_string('data_dir', None, 'where it goes', flag_values=values)
    flags.DEFINE_string('sheet', None, 'a PNG', flag_values=values)

  values, names = _flags(argv, define, positional=2)
  if len(names) < 2 or names[0] not in ('prepare', 'info'):
    raise UserError(
      'data needs what to do and a data set: data prepare NAME or data info'
      f' NAME; found {" ".join(names) or "nothing"}'
    )
  what, name = names
  for flag, of in (('from', 'prepare'), ('sheet', 'info')):
    if values[flag].value is not None and what != of:
      raise UserError(f'--{flag} goes with data {of} only')
  from hier_jax.data import info, prepare

  data_dir = values.data_dir
  if what == 'prepare':
    prepare.prepare(name, values['from'].value, data_dir=data_dir)
  print(info.as_text(info.describe(name, data_dir=data_dir)))
  if values.sheet is not None:
    info.contact_sheet(name, values.sheet, data_dir=data_dir)


def _convert(argv):

  def define(values):
    flags.DEFINE_string('architecture', None, 'backbone', flag_values=values)
    flags.DEFINE_bool('timm', False, 'names of timm', flag_values=values)

  values, paths = _flags(argv, define, positional=2)
  if len(paths) < 2:
    raise UserError(
      'convert needs a SOURCE, a file or the name of published weights, and the'
      ' TARGET to write'
    )
  from hier_jax.models import pretrained

  name, loaded = pretrained.convert(
    *paths, architecture=values.architecture, timm=values.timm
  )
  print(f'{name}: {loaded.summary()}')


_VERBS = {
  'train': _train,
  'evaluate': _evaluate,
  'report': _report,
  'data': _data,
  'convert': _convert,
}


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
