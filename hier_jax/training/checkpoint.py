"""Checkpoints of a run; the only module that knows Orbax.

A checkpoint is written under a temporary name and renamed when it is whole, so
that one that was cut short is never listed.
"""

import contextlib
import os

import jax
from orbax.checkpoint import v1 as ocp

from hier_jax.errors import UserError

__all__ = ['Checkpoints']


class Checkpoints(contextlib.AbstractContextManager):
  """The checkpoints of one workdir.

  Args:
    directory: where they lie, made if need be.
    keep: how many of the latest are kept, and besides them the first of those
      that were saved with the highest score; None only reads, and leaves alone
      what another process may be writing.
  """

  def __init__(self, directory, *, keep=None):
    policies = ocp.training
    self._directory = os.fspath(directory)
    self._checkpointer = ocp.training.Checkpointer(
      os.path.abspath(directory),
      # When to save is the loop's decision.
      save_decision_policy=policies.save_decision_policies.FixedIntervalPolicy(
        1
      ),
      preservation_policy=_kept(keep),
      cleanup_tmp_directories=keep is not None,
    )

  def __exit__(self, *unused):
    self._checkpointer.close()

  @property
  def latest_step(self):
    """Step of the latest whole checkpoint, or None."""
    latest = self._checkpointer.latest
    return None if latest is None else latest.step

  def save(self, step, state, score=None):
    """Begins to write the state; returns before it is on disk.

    Args:
      step: of the state.
      state: arrays.
      score: how good it is, None where that is not known.
    """
    metrics = None if score is None else {'score': score, 'before': -step}
    self._checkpointer.save_async(step, state, metrics=metrics)

  def restore(self, state, step=None):
    """A checkpoint, in the shapes and places of `state`.

    Args:
      state: of the same model and optimiser.
      step: of the checkpoint, None for the latest.

    Raises:
      UserError: when there is none, it cannot be read or is of another model.
    """
    steps = [found.step for found in self._checkpointer.checkpoints]
    step = self.latest_step if step is None else step
    if step not in steps:
      known = ', '.join(map(str, sorted(steps))) or 'none'
      which = 'no checkpoint' if step is None else f'no checkpoint {step}'
      raise UserError(
        f'{self._directory} holds {which}; expected one of: {known}'
      )
    abstract = jax.tree.map(ocp.arrays.to_shape_dtype_struct, state)
    try:
      return self._checkpointer.load(step, abstract)
    except Exception as error:
      raise UserError(
        f'checkpoint {step} in {self._directory} cannot be restored'
        f' ({type(error).__name__}: {str(error).splitlines()[0]}): remove its'
        ' folder to go on from the one before, or choose another workdir'
      ) from error


def _kept(latest):
  """The policy: so many of the latest, and the first of the best."""
  policies = ocp.training.preservation_policies
  best = policies.BestN(
    get_metric_fn=lambda metrics: (metrics['score'], metrics['before']),
    n=1,
    keep_checkpoints_without_metrics=False,
  )
  return policies.AnyPreservationPolicy([policies.LatestN(latest), best])
