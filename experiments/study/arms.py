"""The arms of the study: a base loss, and what is added to it.

An arm is an entry of `BASES` with an entry of `added.ADDED`, written
'base+added'; 'base+alone' adds nothing. A new arm is one more entry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax

from experiments.study import spaces
from experiments.study.added import ADDED, Added
from experiments.study.spaces import Space
from hier_jax import losses
from hier_jax.errors import UserError, did_you_mean

__all__ = [
  'BASES',
  'BATCH_SIZE',
  'CONTROLLED',
  'PLANNED',
  'SHARED',
  'Arm',
  'Base',
  'arm',
]

BATCH_SIZE = 180
# Searched for every arm.
SHARED: Space = {
  'lr': spaces.log(1e-4, 1e-1, 1e-3),
  'proxy_lr': spaces.log(1e-4, 1e-1, 1e-2),
  'weight_decay': spaces.log(1e-5, 1e-1, 1e-4),
  'images_per_class': spaces.choice(2, 3, 4, 6, default=2),
  'epochs': spaces.choice(0.33, 0.67, 1.0, default=1.0),
  'radius': spaces.choice('clip', 'free', default='clip', static=True),
}


@dataclasses.dataclass(frozen=True)
class Base:
  """A metric loss.

  Attributes:
    loss: (z, labels, class proxies or None, values, c) -> scalar.
    space: the loss's own hyperparameters, its scale first.
    proxies: whether it has class proxies.
    static: names of shared hyperparameters that its program depends on.
  """

  loss: Callable[..., jax.Array]
  space: Space
  proxies: bool = False
  static: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Arm:
  """A base loss with what is added to it.

  Attributes:
    name: 'base+added'.
    base: the base loss.
    added: what is added.
    more: hyperparameters that a regime brings.
  """

  name: str
  base: Base
  added: Added
  more: Space = dataclasses.field(default_factory=dict)

  @property
  def space(self) -> Space:
    """All hyperparameters of the arm."""
    return {**self.base_space, **self.added.space}

  @property
  def base_space(self) -> Space:
    """Those that the base loss alone has as well."""
    shared = dict(SHARED)
    if not self.base.proxies:
      del shared['proxy_lr']
    for name in self.base.static:
      shared[name] = dataclasses.replace(shared[name], static=True)
    return {**self.base.space, **shared, **self.more}


def arm(name: str) -> Arm:
  """The arm of a name.

  Raises:
    UserError: there is no such arm.
  """
  base, _, added = name.partition('+')
  for part, known in ((base, BASES), (added, ADDED)):
    if part not in known:
      raise UserError(
        f'arm {name!r} is unknown{did_you_mean(part, known)}; expected BASE+'
        f'ADDED with BASE of {", ".join(BASES)} and ADDED of {", ".join(ADDED)}'
      )
  return Arm(name, BASES[base], ADDED[added])


def _proxy_anchor(z, labels, proxies, values, c):
  del c
  return losses.proxy_anchor(
    z, labels, proxies, alpha=values['alpha'], margin=values['delta']
  )


def _sup_con(z, labels, proxies, values, c):
  del proxies, c
  return losses.sup_con(z, labels, temperature=values['temperature'])


def _hyp(z, labels, proxies, values, c):
  del proxies
  return losses.hyp(
    z,
    labels,
    temperature=values['temperature'],
    views=values['images_per_class'],
    c=c,
  )


def _proxy_nca_pp(z, labels, proxies, values, c):
  del c
  return losses.proxy_nca_pp(
    z, labels, proxies, temperature=values['temperature']
  )


def _multi_similarity(z, labels, proxies, values, c):
  del proxies, c
  return losses.multi_similarity(
    z, labels, beta=values['beta'], epsilon=values['epsilon']
  )


def _temperature(default: float) -> Space:
  return {'temperature': spaces.log(0.02, 0.8, default)}


BASES: Mapping[str, Base] = {
  'proxy_anchor': Base(
    _proxy_anchor,
    {'alpha': spaces.log(2, 64, 32), 'delta': spaces.linear(0, 0.3, 0.1)},
    proxies=True,
  ),
  'sup_con': Base(_sup_con, _temperature(0.1)),
  'hyp': Base(_hyp, _temperature(0.2), static=('images_per_class',)),
  'proxy_nca_pp': Base(_proxy_nca_pp, _temperature(0.11), proxies=True),
  'multi_similarity': Base(
    _multi_similarity,
    {'beta': spaces.log(2, 64, 50), 'epsilon': spaces.linear(0, 0.3, 0.1)},
  ),
}

# Of every base loss, and of those two that have all controls.
_CORE = 'alone', 'official', 'hier_star', 'triplet'
CONTROLLED = 'proxy_anchor', 'sup_con'
_SEARCHED = tuple(name for name, added in ADDED.items() if not added.ablates)
# The arms of each regime that are searched.
PLANNED = tuple(
  f'{base}+{added}'
  for base in BASES
  for added in (_SEARCHED if base in CONTROLLED else _CORE)
)
