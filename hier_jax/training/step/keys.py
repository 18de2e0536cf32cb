"""The PRNG keys of a training step, each for one purpose.

Nothing random is stored: all keys are functions of the seed and the step, so a
resumed run draws what the uninterrupted one draws.
"""

from typing import NamedTuple

import jax

__all__ = ['StepKeys', 'split', 'step_key']

# `jax.random.split(key)[i]` is `fold_in(key, i)`: far from what the loss splits
# off its key.
_DROP_PATH = 2**20


class StepKeys(NamedTuple):
  """The keys of a step by purpose.

  Attributes:
    loss: draws HIER's triplets and noise.
    drop_path: draws the residual branches that the backbone drops.
  """

  loss: jax.Array
  drop_path: jax.Array


def step_key(seed: int, step: jax.typing.ArrayLike) -> jax.Array:
  """The key that all draws of a step derive from.

  Args:
    seed: the run's seed.
    step: number of steps taken before this one, int32 scalar.
  """
  return jax.random.fold_in(jax.random.key(seed), step)


def split(key: jax.Array) -> StepKeys:
  """Splits the key of a step, see `step_key`, by purpose."""
  return StepKeys(loss=key, drop_path=jax.random.fold_in(key, _DROP_PATH))
