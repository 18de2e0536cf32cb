"""The arms of the study: a base loss, and what is added to it.

An arm is an entry of `BASES` with an entry of `ADDED`, written 'base+added';
'base+alone' adds nothing. A new arm is one more entry.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import jax
import numpy as np

from experiments.study import spaces
from experiments.study.spaces import Space
from hier_jax import losses
from hier_jax.errors import UserError, did_you_mean

__all__ = ['ADDED', 'BASES', 'SHARED', 'Added', 'Arm', 'Base', 'arm']

# A hyperparameter's values, traced or, where static, plain.
Values = Mapping[str, jax.Array | float | int | str]
Arrays = dict[str, jax.Array]

# The curvature of HIER's paper.
CURVATURE = 0.1
BATCH_SIZE = 180
# Triplets of an anchor. HIER draws 50: the loss is a mean over them, so that
# fewer estimate the same with more noise, at a fraction of the cost.
TRIPLETS = 4

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
class Added:
  """What is added to a metric loss.

  Attributes:
    loss: (key, z, labels, params, values, c, context) -> scalar.
    space: its hyperparameters.
    init: (key, dim, values) -> its parameters.
    context: (features of the training images, their labels, each class's
      subgroup) -> arrays that the loss takes; of what no image of another
      class tells.
    c: curvature of the whole arm; None for cosine.
  """

  loss: Callable[..., jax.Array] | None = None
  space: Space = dataclasses.field(default_factory=dict)
  init: Callable[..., Arrays] = lambda key, dim, values: {}
  context: Callable[..., dict[str, np.ndarray]] = lambda x, labels, group: {}
  c: float | None = CURVATURE


@dataclasses.dataclass(frozen=True)
class Arm:
  """A base loss with what is added to it.

  Attributes:
    name: 'base+added'.
    base: the base loss.
    added: what is added.
  """

  name: str
  base: Base
  added: Added

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
    return {**self.base.space, **shared}


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


def _hier_proxies(key, dim, values):
  """Proxies as published, or that many times shorter."""
  proxies = losses.init_hier_proxies(key, values['num_proxies'], dim)
  return {'hier_proxies': proxies * values.get('init_scale', 1.0)}


def _official(key, z, labels, params, values, c, context):
  del context
  loss, _ = losses.hier(
    key,
    z,
    labels,
    params['hier_proxies'],
    c=c,
    triplets_per_anchor=TRIPLETS,
  )
  return values['weight'] * loss


ADDED: Mapping[str, Added] = {
  'alone': Added(),
  'official': Added(
    _official,
    {
      'weight': spaces.choice(0.5, default=0.5),
      'num_proxies': spaces.choice(512, default=512, static=True),
      'added_lr': spaces.log(1e-4, 1e-1, 1e-2),
    },
    _hier_proxies,
  ),
}
