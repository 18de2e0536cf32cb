"""A step that is not finite leaves the state as it was; devices decide it.

A run's state is finite at its start, and a step whose loss, gradient or new
state holds a NaN or an infinity leaves it as it is. So no checkpoint ever holds
one.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
from jax import lax

__all__ = ['MODES', 'if_finite']

State = TypeVar('State')

MODES = ('stop', 'skip')


def if_finite(
  new: State, old: State, *others: jax.Array, axis_name: str | None = None
) -> tuple[State, jax.Array]:
  """The new state, or the old one where something is not finite.

  Args:
    new: arrays.
    old: arrays of the same structure.
    *others: further arrays that must be finite.
    axis_name: mapped axis whose devices have arrays of their own, all of which
      must be finite; None if they have the same.

  Returns:
    The arrays of one of them, and whether they are the new ones.
  """
  floats = [
    leaf
    for leaf in jax.tree.leaves((new, others))
    if jnp.issubdtype(leaf.dtype, jnp.floating)
  ]
  flags = jnp.array([jnp.all(jnp.isfinite(leaf)) for leaf in floats])
  # The first that is not. XLA makes a chain of all() and repeats it in every
  # update below: most of a ViT's program then, and of the time to compile it.
  finite = flags[jnp.argmin(flags)]
  if axis_name is not None:
    finite = lax.pmin(finite.astype(jnp.int32), axis_name) > 0
  kept = jax.tree.map(lambda a, b: jnp.where(finite, a, b), new, old)
  return kept, finite
