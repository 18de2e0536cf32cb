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

__all__ = ['train', 'trials']


def trials(
  config: ConfigDict, workdir: pathlib.Path | None, seeds: Sequence[int]
) -> dict[str, ConfigDict]:
  """Name of a folder in the workdir -> config of the run with its seed.

  Args:
    config: see `default.default_config`; its seed is not used.
    workdir: folder of the runs; None for runs that are only described.
    seeds: seeds, each once.

  Raises:
    UserError: for invalid seeds, and a workdir that itself holds a run.
  """
  if not seeds or len(set(seeds)) < len(seeds):
    raise UserError(
      f'seeds are {list(seeds)}: expected at least one, and none twice'
    )
  if workdir is not None and (workdir / 'config.json').exists():
    raise UserError(
      f'workdir {workdir} holds a single run: with seeds it must be a folder of'
      ' runs, choose another'
    )
  made = {}
  for seed in seeds:
    trial = config.copy_and_resolve_references()
    trial.seed = seed
    made[f'seed{seed}'] = trial
  return made


def train(
  config: ConfigDict, workdir: str | os.PathLike[str], seeds: Sequence[int]
) -> list[pathlib.Path]:
  """Trains with one seed after the other, or continues, and prints a table.

  SIGTERM ends it, see `loop.train`.

  Args:
    config: see `default.default_config`; its seed is not used.
    workdir: folder of the runs, `seed0`, `seed1` and so on.
    seeds: seeds, each once.

  Returns:
    The workdirs of the runs that have finished.

  Raises:
    UserError: for invalid seeds, for a workdir that itself holds a run, and as
      `loop.train`.
  """
  workdir = paths.as_path(workdir)
  folders: list[pathlib.Path] = []
  for name, trial in trials(config, workdir, seeds).items():
    if loop.train(trial, workdir / name) is None:
      return folders
    folders.append(workdir / name)
  # The results are written by process 0, and others may not have them yet.
  if processes.index() == 0:
    print(output.as_markdown(summary.summarize(runs.load(folders))))
  return folders
