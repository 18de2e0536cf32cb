"""The same config with several seeds."""

import os
import pathlib
from collections.abc import Sequence

from ml_collections import ConfigDict

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.training.distributed import processes
from hier_jax.training.report import output, runs, summary
from hier_jax.training.run import loop

__all__ = ['train']


def train(
  config: ConfigDict, workdir: str | os.PathLike[str], seeds: Sequence[int]
) -> list[pathlib.Path]:
  """Trains with one seed after the other, or goes on, and prints their table.

  SIGTERM ends it, see `loop.train`.

  Args:
    config: see `default.default_config`; its seed is not used.
    workdir: the runs are in its folders `seed0`, `seed1` and so on.
    seeds: each once.

  Returns:
    The workdirs of the runs that have finished.

  Raises:
    UserError: for seeds that are not such, a workdir that is itself that of a
      run, and what `loop.train` raises.
  """
  workdir = paths.as_path(workdir)
  if not seeds or len(set(seeds)) < len(seeds):
    raise UserError(
      f'seeds are {list(seeds)}: expected at least one, and none twice'
    )
  if (workdir / 'config.json').exists():
    raise UserError(
      f'workdir {workdir} holds a single run: with seeds it must be a folder of'
      ' runs, choose another'
    )
  folders = [workdir / f'seed{seed}' for seed in seeds]
  for done, (seed, folder) in enumerate(zip(seeds, folders, strict=True)):
    trial = config.copy_and_resolve_references()
    trial.seed = seed
    if loop.train(trial, folder) is None:
      return folders[:done]
  # The results are written by process 0, and others may not have them yet.
  if processes.index() == 0:
    print(output.as_markdown(summary.summarize(runs.load(folders))))
  return folders
