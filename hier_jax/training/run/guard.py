"""Tells which steps of a run were not finite, once the host knows of them."""

import json
import math
import os
from collections.abc import Mapping
from typing import Any

import jax

from hier_jax import paths
from hier_jax.data.sampler import Sampler
from hier_jax.errors import UserError
from hier_jax.training.distributed import processes
from hier_jax.training.step import keys

__all__ = ['Guard']


class Guard:
  """Watches a run's steps, and says which were not finite.

  Args:
    workdir: where `nonfinite_STEP.json` is written for each such step.
    sampler: step -> rows of the data set in its batch.
    seed: config.seed.
    mode: config.nonfinite, one of `finite.MODES`.
    skipped: how many steps were skipped so far.
  """

  def __init__(
    self,
    workdir: str | os.PathLike[str],
    sampler: Sampler,
    *,
    seed: int,
    mode: str,
    skipped: int,
  ) -> None:
    self._workdir, self._sampler = paths.as_path(workdir), sampler
    self._seed, self._mode, self._skipped = seed, mode, skipped
    self._unread: list[tuple[int, Mapping[str, jax.Array]]] = []

  def watch(self, step: int, metrics: Mapping[str, jax.Array]) -> None:
    """Takes note of a step's metrics, arrays whose values may be under way."""
    self._unread.append((step, metrics))

  def check(self, last: int) -> list[int]:
    """Looks at the steps up to `last`, and waits for them.

    Returns:
      Those of them that were skipped, each told once.

    Raises:
      UserError: there is one, and config.nonfinite is 'stop'.
    """
    ready = [entry for entry in self._unread if entry[0] <= last]
    self._unread = self._unread[len(ready) :]
    counts = jax.device_get([metrics['skipped'] for _, metrics in ready])
    found = []
    for (step, metrics), count in zip(ready, counts, strict=True):
      if count > self._skipped:
        self._skipped = count
        self._found(step, jax.device_get(metrics))
        found.append(step)
    return found

  def _found(self, step: int, metrics: Mapping[str, Any]) -> None:
    bad = {k: str(v) for k, v in metrics.items() if not math.isfinite(v)}
    path = self._workdir / f'nonfinite_{step}.json'
    if processes.index() == 0:
      with paths.writing(path):
        paths.write_text(path, json.dumps(self._record(step, bad)) + '\n')
    if self._mode == 'skip':
      return
    name = next((k for k in ('loss', 'grad_norm') if k in bad), 'update')
    value = bad.get(name, 'not finite')
    raise UserError(
      f'the {name} is {value} at step {step}: lower config.optim.lr, set'
      ' config.optim.clip_norm, or leave such steps out with config.nonfinite'
      f" 'skip'; {path} says which batch it was, and the checkpoints in"
      f' {self._workdir} are from before'
    )

  def _record(self, step: int, bad: Mapping[str, str]) -> dict[str, Any]:
    """What it takes to do the step again, from a checkpoint before it."""
    before = step - 1
    key = keys.step_key(self._seed, before)
    return {
      'step': step,
      'steps_before': before,
      'seed': self._seed,
      'key': jax.random.key_data(key).tolist(),
      'rows': self._sampler(before).tolist(),
      'not_finite': bad,
    }
