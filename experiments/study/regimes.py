"""What is trained, for how long, and how hard each arm is searched."""

import dataclasses
from collections.abc import Mapping

from experiments.study import arms, features, spaces
from experiments.study.spaces import Space
from hier_jax.errors import UserError

__all__ = ['REGIMES', 'Regime', 'Search', 'arm', 'check', 'planned', 'regime']


@dataclasses.dataclass(frozen=True)
class Search:
  """How hard every arm is searched.

  Attributes:
    points: of a round, each on the first fold; 0 for no search, but the point
      that `start` has chosen.
    kept: how many of them go on to the other folds.
    width: side of the first box, as a share of the space's; the next round's
      box is half as wide.
    front: values of the scale that the front's line is drawn through.
    factors: of the weight, at which switches are ablated.
    start: the regime whose chosen point of the same arm the rounds of each arm
      start from; None for rounds of the base loss alone first, over the whole
      space.
    first: hyperparameters of the first point of all, in place of defaults.
  """

  points: int = 24
  kept: int = 5
  width: float = 0.5
  front: int = 6
  factors: tuple[float, ...] = (1, 8)
  start: str | None = None
  first: Mapping[str, float | int | str] = dataclasses.field(
    default_factory=dict
  )


@dataclasses.dataclass(frozen=True)
class Regime:
  """A linear head on frozen features, or with what is trained below it.

  Attributes:
    dim: size of the embeddings.
    epochs: the budget of a run.
    images: images of each training class; None for all.
    backbone: the network, trained on images as the quickstart's is; None for
      frozen features.
    icon_epochs: the budget of a run on icons; None for the same.
    blocks: how many of the last blocks that made the features are trained.
    arms: those that the plan has.
    space: hyperparameters of every arm that no other regime has.
    search: how hard every arm is searched.
  """

  dim: int
  epochs: int = 30
  images: int | None = None
  backbone: str | None = None
  icon_epochs: int | None = None
  blocks: int = 0
  arms: tuple[str, ...] = arms.PLANNED
  space: Space = dataclasses.field(default_factory=dict)
  search: Search = Search()

  def budget(self, split: str) -> int:
    """Epochs of a run on a split."""
    if split == features.ICONS and self.icon_epochs is not None:
      return self.icon_epochs
    return self.epochs


# What is added where a network is trained, in the order of the search.
_FEW = (
  'alone',
  'hier_star',
  'triplet',
  'second_happier',
  'level_sup_con_own',
  'second_sup_con',
  'distillation',
  'official',
)
_NETWORK = tuple(f'{b}+{added}' for b in arms.CONTROLLED for added in _FEW)
# The quickstart's settings of version 0.3.0.
_QUICKSTART = {
  'alpha': 16.0,
  'lr': 0.02,
  'proxy_lr': 0.06,
  'weight_decay': 0.1,
}
REGIMES = {
  # There are four times as many icons.
  'a128': Regime(128, icon_epochs=8),
  'a12': Regime(12, icon_epochs=8),
  'b1': Regime(
    128,
    epochs=8,
    backbone='resnet_thin',
    arms=_NETWORK,
    search=Search(points=8, kept=2, first=_QUICKSTART),
  ),
  'b3': Regime(
    128,
    epochs=24,
    backbone='resnet_thin',
    arms=_NETWORK,
    search=Search(points=0, start='b1'),
  ),
  'c': Regime(
    128,
    epochs=5,
    blocks=2,
    arms=_NETWORK,
    space={'backbone_lr': spaces.log(1e-6, 1e-3, 3e-5)},
    search=Search(points=8, kept=2, start='a128'),
  ),
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


def arm(name: str, arm_name: str) -> arms.Arm:
  """An arm with the hyperparameters that it has in a regime."""
  found = arms.arm(arm_name)
  return dataclasses.replace(found, more=regime(name).space)


def planned(name: str) -> tuple[str, ...]:
  """The arms of a regime: without frozen features none that needs them."""
  found = regime(name)
  if found.backbone is None:
    return found.arms
  return tuple(a for a in found.arms if not arms.arm(a).added.frozen)


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
