"""What is trained, and for how long."""

import dataclasses

from experiments.study import arms, features
from hier_jax.errors import UserError

__all__ = ['REGIMES', 'Regime', 'check', 'planned', 'regime']


@dataclasses.dataclass(frozen=True)
class Regime:
  """A linear head on frozen features, or a network from scratch.

  Attributes:
    dim: size of the embeddings.
    epochs: the budget of a run.
    icon_epochs: the budget of a run on icons; None for the same.
    images: images of each training class; None for all.
    backbone: the network, trained on images as the quickstart's is; None for
      frozen features.
  """

  dim: int
  epochs: int = 30
  images: int | None = None
  backbone: str | None = None
  icon_epochs: int | None = None

  def budget(self, split: str) -> int:
    """Epochs of a run on a split."""
    if split == features.ICONS and self.icon_epochs is not None:
      return self.icon_epochs
    return self.epochs


REGIMES = {
  # There are four times as many icons.
  'a128': Regime(128, icon_epochs=8),
  'a12': Regime(12, icon_epochs=8),
  'b1': Regime(128, epochs=8, backbone='resnet_thin'),
  'b3': Regime(128, epochs=24, backbone='resnet_thin'),
  'd': Regime(128, epochs=100, images=3),
}


def regime(name: str) -> Regime:
  """The regime of a name.

  Raises:
    UserError: there is no such regime.
  """
  if name not in REGIMES:
    raise UserError(
      f'regime {name!r} is unknown; expected one of {", ".join(REGIMES)}'
    )
  return REGIMES[name]


def planned(name: str) -> tuple[str, ...]:
  """The arms of a regime: without frozen features none that needs them."""
  if regime(name).backbone is None:
    return arms.PLANNED
  return tuple(a for a in arms.PLANNED if not arms.arm(a).added.frozen)


def check(name: str, arm: str):
  """Checks that a regime has what an arm needs.

  Raises:
    UserError: the arm needs frozen features, and the regime has none.
  """
  if regime(name).backbone is not None and arms.arm(arm).added.frozen:
    raise UserError(
      f'arm {arm} is told of frozen features, and regime {name} has none: leave'
      ' it out, or take one that ends in _own or _ema'
    )
