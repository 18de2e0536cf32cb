"""`hier-jax train`."""

import pathlib
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from hier_jax import paths
from hier_jax.cli import verbs
from hier_jax.errors import UserError

if TYPE_CHECKING:
  from ml_collections import ConfigDict

__all__ = ['VERB']


def _define(values: flags.FlagValues) -> None:
  verbs.text_flags(
    values,
    config='NAME|FILE[:PRESET]: A config of hier_jax (cars, cub, emoji, folder,'
    ' inshop, quickstart or sop), or a Python file whose get_config(PRESET)'
    ' returns one. --config.KEY=VALUE changes one key of it;'
    ' hier_jax/training/config/default.py lists all keys.',
    workdir='DIR: The folder of this run alone, created if it does not exist.'
    ' With --seeds, the folder of all the runs.',
  )
  verbs.switch_flag(
    values,
    'dry_run',
    'Check everything that training checks before it begins, print the config,'
    ' the parameters with their learning rates, the batches and the memory of a'
    ' step, and stop. Nothing is written.',
  )
  verbs.integers_flag(
    values,
    'seeds',
    '0,1,2: Train once with each seed, in DIR/seed0 and so on, and print a'
    ' table of all runs.',
  )


def _define_keys(values: flags.FlagValues) -> None:
  from hier_jax.training.config import files

  files.define_keys(values)


def _run(values: flags.FlagValues, _: list[str]) -> None:
  missing = [] if values.config else ['--config NAME|FILE[:PRESET]']
  if values.workdir is None and not values.dry_run:
    missing.append('--workdir DIR')
  if missing:
    raise UserError(
      f'train needs {" and ".join(missing)}; see hier-jax train --help'
    )
  if values.workdir is not None:
    paths.check_output(values.workdir, folder=True)
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.training.config import files
  from hier_jax.training.run import program_cache

  config = files.load(values.config)
  given = files.given_keys(values)
  if values.seeds is not None and 'seed' in given:
    raise UserError(
      f'--config.seed is {given["seed"]}, but --seeds names the seeds of all'
      ' runs: leave out one of the two'
    )
  config.update_from_flattened_dict(given)
  program_cache.keep_programs()
  if values.dry_run:
    from hier_jax.training.run import dry_run

    print(dry_run.describe(config, values.workdir, values.seeds))
  else:
    _train(config, values.workdir, values.seeds)


def _train(
  config: 'ConfigDict', workdir: str, chosen: Sequence[int] | None
) -> None:
  from hier_jax.training.distributed import processes
  from hier_jax.training.run import loop, seeds

  with processes.joined(workdir):
    if chosen is not None:
      done = seeds.train(config, workdir, chosen)
    elif loop.train(config, workdir) is not None:
      done = [paths.as_path(workdir)]
    else:
      done = []
    if config.explore and processes.index() == 0:
      for folder in done:
        _explore(folder, alone=processes.count() == 1)


def _explore(workdir: pathlib.Path, *, alone: bool) -> None:
  """Writes the page of a finished run, which it must not harm.

  Of several processes none does: to read a checkpoint they would all be needed.
  """
  from hier_jax.cli import explore

  out = explore.default_out(workdir)
  if not alone:
    print(f'to see what it has learned: hier-jax explore {workdir}')
    return
  print('writing the page of the images ...', flush=True)
  try:
    from hier_jax.inference import collection

    explore.write(collection.load(workdir), out)
  except Exception as error:
    why = ' '.join(str(error).split())
    print(
      f'hier-jax: the run is finished, but {out} could not be written'
      f' ({type(error).__name__}: {why}); to try again: hier-jax explore'
      f' {workdir}',
      file=sys.stderr,
    )


VERB = verbs.Verb(
  'train',
  (
    'train --config NAME|FILE[:PRESET] --workdir DIR [--config.KEY=VALUE ...]'
    ' [--seeds 0,1,2]',
    'train --config NAME|FILE[:PRESET] --dry_run [--workdir DIR]'
    ' [--config.KEY=VALUE ...] [--seeds 0,1,2]',
  ),
  'Train a model, or continue the run that DIR holds.',
  _define,
  _run,
  define_more=_define_keys,
)
