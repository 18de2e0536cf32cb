"""The command line: one verb a function; parse, call, print."""

import importlib.metadata
import os
import platform
import signal
import sys

from hier_jax import paths
from hier_jax.cli_flags import VERBS, usage
from hier_jax.errors import UserError, did_you_mean

_HELP = '--help', '-help', '-h'
_USAGE = """usage: hier-jax VERB [--flag ...]

{verbs}

  hier-jax VERB --help
      the flags of a verb

  hier-jax --version
      the version of this program, and of JAX and Python
"""


# What a workdir holds besides checkpoints, and --out must not be.
_OF_RUN = 'config.json', 'results.json'


def _train(values, _):
  if not values.config or not (values.dry_run or values.workdir is not None):
    raise UserError('train needs --config FILE[:PRESET] and --workdir DIR')
  seeds = values.seeds and _integers('seeds', values.seeds)
  if values.workdir is not None:
    paths.check_output(values.workdir, folder=True)
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.training.config import files as config_file
  from hier_jax.training.run import program_cache

  config = config_file.load(values.config)
  config.update_from_flattened_dict(config_file.given_keys(values))
  program_cache.keep_programs()
  if values.dry_run:
    from hier_jax.training.run import dry_run

    print(dry_run.describe(config, values.workdir))
    return
  from hier_jax.training.distributed import processes
  from hier_jax.training.run import loop
  from hier_jax.training.run import seeds as trials

  with processes.joined(values.workdir):
    if seeds is None:
      loop.train(config, values.workdir)
    else:
      trials.train(config, values.workdir, seeds)


def _evaluate(values, arguments):
  if not arguments:
    raise UserError(
      'evaluate needs the workdir of a run or a file of embeddings, an .npz'
    )
  path = paths.as_path(arguments[0])
  _check_evaluate(path, values)
  task, c = _task(path, values), values.curvature
  from hier_jax.evaluation import files

  found = files.figures(task, c=c, progress=sys.stderr.isatty())
  # What was computed is told before anything is written.
  print(files.as_lines(found), flush=True)
  if values.out is not None:
    files.write_json(values.out, found)
    print(f'metrics written to {values.out}')
  if values.export is not None:
    print(f'index written to {files.export_faiss(task, c=c)}')


def _check_evaluate(path, values):
  """Checks flags and outputs before anything is embedded or ranked."""
  for flag, named in (('query', 'a split'), ('data_dir', 'the data')):
    if values[flag].value is not None and not path.is_dir():
      raise UserError(
        f'--{flag} {values[flag].value} names {named} of a run, but {path} is a'
        ' file: the queries are what it holds'
      )
  folders = path, path.parent.parent
  read = [path, *(folder / name for folder in folders for name in _OF_RUN)]
  read += [named for named in (values.gallery, values.taxonomy) if named]
  if values.out is not None:
    paths.check_output(values.out, inputs=read, suffixes=['.json'])
  if values.export is not None:
    from hier_jax.evaluation import files

    files.check_faiss(_home(path, values), inputs=read)


def _home(path, values):
  """The path without suffix beside which an index is written."""
  # Heavy imports wait until they are needed.
  if path.is_dir():
    from hier_jax.training.run import embedding

    return embedding.home(path)
  from hier_jax.evaluation import files

  return files.home(path, values.gallery)


def _task(path, values):
  """What `evaluate` is to rank, of a run or of files."""
  changed = {'ties': values.ties}
  if values.recall_at is not None:
    changed['recall_at'] = _integers('recall_at', values.recall_at)
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.evaluation import files

  if path.is_dir():
    from hier_jax.training.run import embedding

    task = embedding.from_checkpoint(
      path,
      query=values.query,
      gallery=values.gallery,
      data_dir=values.data_dir,
    )
  else:
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


def _report(values, folders):
  if not folders:
    raise UserError('report needs a DIR: a workdir, or a folder of workdirs')
  if values.out is not None:
    paths.check_output(values.out, folder=True)
  from hier_jax.training.report import runs, summary

  found = runs.load(folders)
  print(summary.as_markdown(summary.summary(found)), flush=True)
  if values.out is not None:
    summary.write(found, values.out)
    print(f'report written to {values.out}')


def _data(values, names):
  verbs = ('prepare', 'info')
  if len(names) < 2 or names[0] not in verbs:
    hint = did_you_mean(names[0], verbs) if names else ''
    raise UserError(
      'data needs what to do and a data set: data prepare NAME or data info'
      f' NAME; found {" ".join(names) or "nothing"}{hint}'
    )
  what, name = names
  for flag, of in (('from', 'prepare'), ('sheet', 'info')):
    if values[flag].value is not None and what != of:
      raise UserError(f'--{flag} goes with data {of} only')
  from hier_jax.data import info, prepare

  if values.sheet is not None:
    info.check_sheet(values.sheet)

  where = {'data_dir': values.data_dir}
  if values.max_megapixels is not None:
    if not values.max_megapixels > 0:
      raise UserError(
        f'--max_megapixels is {values.max_megapixels:g}, expected more than 0'
      )
    where['max_megapixels'] = values.max_megapixels
  if what == 'prepare':
    prepare.prepare(name, values['from'].value, **where)
  print(info.as_text(info.describe(name, **where)), flush=True)
  if values.sheet is not None:
    info.contact_sheet(name, values.sheet, **where)
    print(f'contact sheet written to {values.sheet}')


def _convert(values, arguments):
  if len(arguments) < 2:
    raise UserError(
      'convert needs a SOURCE, a file or the name of published weights, and the'
      ' TARGET to write'
    )
  from hier_jax.models.weights import pretrained

  name, loaded = pretrained.convert(
    *arguments, architecture=values.architecture, timm=values.timm
  )
  print(f'{name}: {loaded.summary()}')


_RUN = {
  'train': _train,
  'evaluate': _evaluate,
  'report': _report,
  'data': _data,
  'convert': _convert,
}


def _version(package):
  try:
    return importlib.metadata.version(package)
  except importlib.metadata.PackageNotFoundError:
    return 'not installed'


def _run(verb, arguments):
  if verb == '--version':
    found = {name: _version(name) for name in ('hier_jax', 'jax')}
    found['Python'] = platform.python_version()
    print(', '.join(f'{name} {version}' for name, version in found.items()))
  elif verb in ('help', *_HELP):
    print(_USAGE.format(verbs=usage(VERBS.values())))
  elif verb not in VERBS:
    known = f'; the known ones are {", ".join(VERBS)}'
    hint = did_you_mean(verb, VERBS) or known
    raise UserError(f'unknown verb {verb!r}{hint}')
  elif any(argument in _HELP for argument in arguments):
    print(VERBS[verb].help())
  else:
    _RUN[verb](*VERBS[verb].parse(arguments))


def main(argv=None):
  """Runs a verb; returns the exit code, 2 for what the user can mend."""
  argv = sys.argv if argv is None else argv
  if len(argv) < 2:
    _run('--help', [])
    return 2
  try:
    _run(argv[1], argv[2:])
    sys.stdout.flush()
  except BrokenPipeError:
    # Whoever read has what it wants, as `| head` does. Python flushes what is
    # left when it ends, and must not fail again.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE
  except UserError as error:
    if '--traceback' in argv:
      raise
    print(f'hier-jax: error: {error}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('hier-jax: interrupted', file=sys.stderr)
    return 130
  return 0
