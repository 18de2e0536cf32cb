"""What the verbs that look at a collection share: its flags, its loading."""

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from hier_jax import paths
from hier_jax.cli import verbs
from hier_jax.errors import UserError

if TYPE_CHECKING:
  from hier_jax.evaluation.collection import Collection

__all__ = ['FORM', 'beside', 'define', 'define_source', 'load', 'named']

# How a verb's usage calls the collection.
FORM = 'WORKDIR[/checkpoints/STEP]|EMBEDDINGS'


def define(values: flags.FlagValues) -> None:
  """Defines the flags of `inference.collection.load`."""
  verbs.text_flags(
    values,
    split="SPLIT: Which images of a run's data set; by default test.",
    taxonomy='CSV: A tree above the classes, as evaluate takes it; by default'
    " the data set's own.",
    images="DIR: The folder of a file's images, if they were moved.",
    data_dir='DIR: The folder of prepared data sets.',
  )


def define_source(values: flags.FlagValues) -> None:
  """Defines --from, which says what the tree is made of."""
  verbs.choice_flag(
    values,
    'from',
    ('auto', 'proxies', 'linkage'),
    'SOURCE: What the tree is made of: the hierarchical proxies, complete'
    ' linkage, or auto (the default), the proxies if there are any.',
    default='auto',
  )


def named(
  values: flags.FlagValues, arguments: Sequence[str], verb: str
) -> tuple[pathlib.Path, list[pathlib.Path | str]]:
  """The collection that the arguments name, and all that the verb reads.

  Raises:
    UserError: they name none.
  """
  if not arguments:
    raise UserError(
      f'{verb} needs the workdir of a run, WORKDIR/checkpoints/STEP or a file'
      f' of embeddings; see hier-jax {verb} --help'
    )
  path = paths.as_path(arguments[0])
  return path, [path, *filter(None, [values.taxonomy])]


def beside(path: pathlib.Path, name: str, end: str) -> pathlib.Path:
  """Where an output lies: in a run's workdir, or beside a file of embeddings.

  Args:
    path: of the run or the file.
    name: of the output in a workdir.
    end: what follows the file's name beside it.
  """
  if path.is_dir():
    is_step = path.parent.name == 'checkpoints' and path.name.isdecimal()
    return (path.parent.parent if is_step else path) / name
  return path.with_name(f'{path.stem}{end}')


def load(values: flags.FlagValues, path: pathlib.Path) -> 'Collection':
  """The collection at a path, as the flags say."""
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.inference import collection

  return collection.load(
    path,
    split=values.split,
    data_dir=values.data_dir,
    images=values.images,
    taxonomy=values.taxonomy,
  )
