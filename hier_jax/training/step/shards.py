"""Class proxies that are spread over the devices, and what belongs to them.

With many classes, the proxies, their moments and their moving average are most
of a state. Each device then holds only its share of the classes: ceil(C /
devices) of them, in order, the last ones padded with zeros. A checkpoint holds
exactly the C classes, whatever wrote it.
"""

from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import lax

from hier_jax.training.distributed import mapping

__all__ = ['Shards', 'mean', 'norm']

State = TypeVar('State')

_NAME = 'class_proxies'


def _is_shared_out(path: tuple[Any, ...]) -> bool:
  """Whether a leaf is of class proxies: themselves, a moment or an average."""
  return getattr(path[-1], 'key', None) == _NAME


class Shards(NamedTuple):
  """How the class proxies of a state are spread.

  Attributes:
    num_classes: C.
    devices: over which they are spread.
  """

  num_classes: int
  devices: int

  def specs(self, state: State) -> State:
    """For each array of a state, which of its dimensions is spread."""
    return jax.tree_util.tree_map_with_path(
      lambda path, _: mapping.SPLIT if _is_shared_out(path) else mapping.WHOLE,
      state,
    )

  def pad(self, state: State) -> State:
    """The state with class proxies `[devices * ceil(C / devices), ...]`."""
    share = -(-self.num_classes // self.devices)
    more = share * self.devices - self.num_classes

    def padded(path: tuple[Any, ...], leaf: jax.Array) -> jax.Array:
      if not _is_shared_out(path) or not more:
        return leaf
      return jnp.pad(leaf, [(0, more)] + [(0, 0)] * (leaf.ndim - 1))

    return jax.tree_util.tree_map_with_path(padded, state)

  def crop(self, state: State) -> State:
    """The state with class proxies `[C, ...]`, on the host; or its shapes."""

    def cropped(path: tuple[Any, ...], leaf: Any) -> Any:
      if not _is_shared_out(path):
        return leaf
      if isinstance(leaf, jax.ShapeDtypeStruct):
        shape = (self.num_classes, *leaf.shape[1:])
        return jax.ShapeDtypeStruct(shape, leaf.dtype)
      return mapping.on_host(leaf)[: self.num_classes]

    return jax.tree_util.tree_map_with_path(cropped, state)


def mean(grads: State, axis_name: str) -> State:
  """Mean over the devices of gradients; of a share of proxies, its own part.

  Each device holds the whole loss, and a share's gradient is of their sum.
  """
  devices = lax.axis_size(axis_name)
  return jax.tree_util.tree_map_with_path(
    lambda path, grad: (
      grad / devices if _is_shared_out(path) else lax.pmean(grad, axis_name)
    ),
    grads,
  )


def norm(grads: Any, axis_name: str) -> jax.Array:
  """Norm of gradients on all devices, of which each share counts once."""
  whole, shares = [jnp.zeros(())], [jnp.zeros(())]
  for path, grad in jax.tree_util.tree_leaves_with_path(grads):
    (shares if _is_shared_out(path) else whole).append(jnp.sum(grad**2))
  return jnp.sqrt(sum(whole) + lax.psum(sum(shares), axis_name))
