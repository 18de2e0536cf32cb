"""`hier-jax evaluate`."""

import pathlib
import sys
from typing import TYPE_CHECKING

from absl import flags

from hier_jax import paths
from hier_jax.cli import verbs
from hier_jax.errors import UserError

if TYPE_CHECKING:
  from hier_jax.evaluation.files import Task

__all__ = ['VERB']


def _define(values: flags.FlagValues) -> None:
  verbs.text_flags(
    values,
    query="SPLIT: The split of a run's data set whose images are the queries;"
    ' by default test, and query for In-Shop.',
    gallery='SPLIT|NPZ: What to rank for each query: a split of a run, or a'
    ' file like EMBEDDINGS.npz. By default the queries themselves, each'
    ' without itself.',
  )
  verbs.number_flag(
    values,
    'c',
    'C: The curvature of the ball, 0 for Euclidean distance, or none for cosine'
    ' similarity; by default what the run or the file says.',
    or_none=True,
  )
  verbs.text_flags(
    values,
    data_dir="DIR: The folder of a run's prepared data sets; by default the one"
    ' that it was trained with.',
    taxonomy='CSV: A tree above the classes: a row for each class with its'
    ' ancestors from coarse to fine, or a row child,parent for each edge. By'
    " default the tree of a run's data set.",
  )
  verbs.integers_flag(
    values, 'recall_at', '1,2,4,8: The values of K in Recall@K.'
  )
  verbs.choice_flag(
    values,
    'ties',
    ('pessimistic', 'optimistic', 'mean', 'expected'),
    'RULE: How to rank a positive and a negative at the same distance.'
    ' pessimistic (the default) ranks the negative first, optimistic the'
    ' positive, mean takes the rank half way between these two, and expected'
    ' takes the mean of each metric over all orders.',
    default='pessimistic',
  )
  verbs.text_flags(values, out='JSON: Write the metrics to this file too.')
  verbs.choice_flag(
    values,
    'export',
    ('faiss',),
    'faiss: Write a FAISS index of the gallery too, beside the embeddings or in'
    ' the workdir.',
  )


def _run(values: flags.FlagValues, arguments: list[str]) -> None:
  if not arguments:
    raise UserError(
      'evaluate needs the workdir of a run, WORKDIR/checkpoints/STEP or an .npz'
      ' file of embeddings; see hier-jax evaluate --help'
    )
  path = paths.as_path(arguments[0])
  _check(path, values)
  task = _task(path, values)
  from hier_jax.evaluation import files

  found = files.metrics(task, progress=sys.stderr.isatty(), in_processes=True)
  # What was computed is printed before anything is written.
  print(files.as_lines(found), flush=True)
  if values.out is not None:
    files.write_json(found, values.out)
    print(f'metrics written to {values.out}')
  if values.export is not None:
    print(f'index written to {files.export_faiss(task)}')


def _check(path: pathlib.Path, values: flags.FlagValues) -> None:
  """Checks flags and outputs before anything is embedded or ranked."""
  for name in 'query', 'data_dir':
    value = values[name].value
    if value is not None and path.exists() and not path.is_dir():
      raise UserError(
        f'--{name} is {value}, which is for the workdir of a run, but {path} is'
        f' a file of embeddings: leave out --{name}'
      )
  inputs = [path, *filter(None, [values.gallery, values.taxonomy])]
  if values.out is not None:
    paths.check_output(values.out, inputs=inputs, suffixes=['.json'])
  if values.export is not None:
    from hier_jax.evaluation import files

    files.check_faiss(_home(path, values), inputs=inputs)


def _home(path: pathlib.Path, values: flags.FlagValues) -> pathlib.Path:
  """The path without suffix beside which an index is written."""
  # Heavy imports wait until they are needed.
  if path.is_dir():
    from hier_jax.training.run import from_checkpoint

    return from_checkpoint.home(path)
  from hier_jax.evaluation import files

  return files.home(path, values.gallery)


def _task(path: pathlib.Path, values: flags.FlagValues) -> 'Task':
  """What to rank for which queries, from a run or from files."""
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.evaluation import files
  from hier_jax.evaluation.taxonomy import Taxonomy

  if path.is_dir():
    from hier_jax.training.run import from_checkpoint

    task = from_checkpoint.read_task(
      path,
      query=values.query,
      gallery=values.gallery,
      data_dir=values.data_dir,
    )
  else:
    task = files.read_task(path, values.gallery)
  changed = {'ties': values.ties}
  if values.recall_at is not None:
    changed['recall_at'] = values.recall_at
  if values.taxonomy is not None:
    changed['taxonomy'] = Taxonomy.from_csv(values.taxonomy)
  task = task._replace(**changed)
  return task.with_c(values.c) if values['c'].present else task


VERB = verbs.Verb(
  'evaluate',
  (
    'evaluate WORKDIR[/checkpoints/STEP] [--query SPLIT] [--gallery SPLIT]'
    ' [--data_dir DIR] ...',
    'evaluate EMBEDDINGS.npz [--gallery NPZ] [--c C] [--taxonomy CSV] ...',
  ),
  "Print retrieval metrics of a run's checkpoint on its data set, or of the"
  " arrays 'embeddings' and 'labels' that any framework wrote.",
  _define,
  _run,
  positional=1,
)
