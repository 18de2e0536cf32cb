"""What is added to a metric loss: HIER, its variants, and the controls.

Each entry of `ADDED` is small: a loss, its hyperparameters, and its parameters.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from experiments.study import (
  carried,
  contexts,
  controls,
  mined,
  proxies,
  spaces,
  trees,
  variants,
  weighting,
)
from experiments.study.carried import Carried
from experiments.study.spaces import Space
from hier_jax import losses, numerics, poincare

__all__ = ['ADDED', 'CURVATURE', 'TRIPLETS', 'Added']

# The curvature of HIER's paper.
CURVATURE = 0.1
# Triplets of an anchor. HIER draws 50: the loss is a mean over them, so that
# fewer estimate the same with more noise, at a fraction of the cost.
TRIPLETS = 4
# The largest k, that of the paper.
_K_MAX = 20


@dataclasses.dataclass(frozen=True)
class Added:
  """What is added to a metric loss.

  Attributes:
    loss: (key, z, labels, params, values, c, step) -> scalar; the last one is
      a `carried.Step`.
    space: its hyperparameters.
    init: (key, dim, values) -> its parameters.
    context: (features of the training images, their labels, each class's
      subgroup) -> arrays that the loss takes; of what no image of another
      class tells.
    c: curvature of the whole arm; None for cosine.
    carried: what it keeps from step to step; None for nothing.
    frozen: whether the context is made of the features, which are None where
      no frozen network has made any.
    ablates: the entry of `ADDED` that this one adds a switch to; None for an
      entry that is searched itself.
  """

  loss: Callable[..., jax.Array] | None = None
  space: Space = dataclasses.field(default_factory=dict)
  init: Callable[..., dict] = lambda key, dim, values: {}
  context: Callable[..., dict[str, np.ndarray]] = lambda x, labels, group: {}
  c: float | None = CURVATURE
  carried: Carried | None = None
  frozen: bool = False
  ablates: str | None = None


def _weight(default: float) -> Space:
  return {'weight': spaces.log(0.1, 30, default)}


_RATE: Space = {'added_lr': spaces.log(1e-4, 1e-1, 1e-2)}
_K: Space = {'k': spaces.choice(3, 4, 5, 6, 8, 10, 14, 20, default=6)}
_OFFICIAL: Space = {
  'weight': spaces.choice(0.5, default=0.5),
  'num_proxies': spaces.choice(512, default=512, static=True),
  **_RATE,
}
_STAR: Space = {
  **_weight(3),
  **_K,
  **_RATE,
  'tau': spaces.log(0.03, 0.5, 0.1),
  'num_proxies': spaces.choice(64, 256, default=64, static=True),
  'init_scale': spaces.choice(0.1, 0.3, 1.0, default=0.1),
  'proxy_term': spaces.choice(0, 1, default=0, static=True),
  'order': spaces.choice(0.0, 1.0, default=0.0),
}
# On the sphere all lie equally far from the origin.
_STAR_OF_SPHERE = {k: v for k, v in _STAR.items() if k != 'order'}
_TRIPLET: Space = {
  **_weight(1),
  **_K,
  'margin': spaces.log(0.1, 4, 1),
}


def _hier_proxies(key, dim, values):
  """Proxies as published, or that many times as long."""
  made = proxies.init_proxies(
    key, values['num_proxies'], dim, init_scale=values.get('init_scale', 1.0)
  )
  return {'hier_proxies': made}


def _official(key, z, labels, params, values, c, step):
  del step
  loss, _ = losses.hier(
    key, z, labels, params['hier_proxies'], c=c, triplets_per_anchor=TRIPLETS
  )
  return values['weight'] * loss


def _hier_star(key, z, labels, params, values, c, step, **switches):
  del step
  loss, _ = variants.hier_star(
    key,
    z,
    labels,
    params['hier_proxies'],
    c=c,
    temperature=values['tau'],
    k=values['k'],
    k_max=_K_MAX,
    triplets_per_anchor=TRIPLETS,
    proxy_term=values['proxy_term'],
    order=values.get('order', 0.0),
    **switches,
  )
  return values['weight'] * loss


def _shuffled(key, z, labels, params, values, c, step):
  draw, key = jax.random.split(key)
  similarity = controls.shuffled_similarity(
    draw, mined.similarity_of(z, c), labels
  )
  return _hier_star(
    *(key, z, labels, params, values, c, step),
    similarity=similarity,
    same_class=0.0,
  )


def _triplet(key, z, labels, params, values, c, step, **nodes):
  del params, step
  loss, _ = variants.mined_triplet(
    key,
    z,
    labels,
    c=c,
    margin=values['margin'],
    k=values['k'],
    k_max=_K_MAX,
    triplets_per_anchor=TRIPLETS,
    **nodes,
  )
  return values['weight'] * loss


def _triplet_memory(key, z, labels, params, values, c, step):
  """On the triplets of `_star_memory`."""
  return _triplet(*(key, z, labels, params, values, c, step), memory=step.state)


def _happier(key, z, labels, params, values, c, step):
  del key, params, c
  levels = step.context['levels'][labels]
  ranking = losses.hap(z, levels, alpha=values['relevance'])
  return values['weight'] * ranking


def _level_sup_con(key, z, labels, params, values, c, step):
  del key, params, c
  levels = step.context['levels']
  loss = controls.level_sup_con(
    z,
    labels,
    levels,
    weights=[1.0] * levels.shape[1],
    temperature=values['tau'],
  )
  return values['weight'] * loss


def _hpl(key, z, labels, params, values, c, step):
  """Proxy-Anchor at the pseudo-levels, of means of the class proxies.

  Running means of the classes stand for them where the base loss has none.
  """
  del key, params, c
  points = step.class_proxies
  if points is None:
    points = step.state
  nodes = contexts.sizes(points.shape[0])
  loss = trees.hierarchical_proxy_anchor(
    z,
    labels,
    points,
    step.context['levels'][:, : len(nodes)],
    num_nodes=nodes,
    weights=[1 / len(nodes)] * len(nodes),
    alpha=values['level_alpha'],
  )
  return values['weight'] * loss


def _distillation(key, z, labels, params, values, c, step):
  del key, params, c
  loss = controls.relational_distillation(
    z,
    step.context['teacher'][labels][:, labels],
    temperature=values['tau'],
    teacher_temperature=values['teacher_tau'],
  )
  return values['weight'] * loss


def _star_batch_k(key, z, labels, params, values, c, step):
  """K follows the batch's images a class."""
  k = mined.batch_k(labels, values['relatives'])
  return _hier_star(key, z, labels, params, {**values, 'k': k}, c, step)


def _star_teacher(key, z, labels, params, values, c, step):
  """Mined by the similarities of an EMA teacher."""
  similarity = mined.similarity_of(step.embed(step.state), c)
  return _hier_star(
    *(key, z, labels, params, values, c, step), similarity=similarity
  )


def _star_memory(key, z, labels, params, values, c, step):
  """Past embeddings as nodes."""
  return _hier_star(
    *(key, z, labels, params, values, c, step), memory=step.state
  )


def _star_ratio(key, z, labels, params, values, c, step):
  """HIER pulls as hard at z as the base loss, times the weight."""
  alone = {**values, 'weight': 1.0}
  hier = lambda z, params: _hier_star(key, z, labels, params, alone, c, step)
  # A gradient by proxies would be one of HIER's gradient, which has none.
  still = lax.stop_gradient(params)
  unit = weighting.balanced_weight(step.base, lambda z: hier(z, still), z)
  return values['weight'] * unit * hier(z, params)


def _dasgupta(key, z, labels, params, values, c, step):
  """HypHC's term of class proxies, or of the batch's rows without any.

  Leaves are as similar as the running means of their classes.
  """
  del params
  means = numerics.unit(step.state)
  similarity = jnp.matmul(means, means.T, precision=lax.Precision.HIGHEST)
  points = step.class_proxies
  if points is None:
    points, similarity = z, similarity[labels][:, labels]
  radius = jnp.linalg.norm(poincare.log0(lax.stop_gradient(z), c=c), axis=1)
  leaves = trees.leaves(points, jnp.mean(radius), c=c)
  loss = trees.dasgupta(
    key, leaves, similarity, c=c, temperature=values['tree_tau']
  )
  return values['weight'] * loss


def _star_dasgupta(key, z, labels, params, values, c, step):
  of_tree, key = jax.random.split(key)
  alone = {**values, 'weight': values['tree_weight']}
  tree = _dasgupta(of_tree, z, labels, params, alone, c, step)
  hier = _hier_star(key, z, labels, params, values, c, step)
  return hier + values['weight'] * tree


def _star(
  c: float | None = CURVATURE,
  loss=_hier_star,
  carried: Carried | None = None,
  more: Space | None = None,
  ablates: str | None = None,
  **switches,
) -> Added:
  space = {**(_STAR_OF_SPHERE if c is None else _STAR), **(more or {})}
  loss = functools.partial(loss, **switches)
  return Added(
    loss, space, _hier_proxies, c=c, carried=carried, ablates=ablates
  )


_switch = functools.partial(_star, ablates='hier_star')


_HAPPIER: Space = {**_weight(1), 'relevance': spaces.log(0.3, 3, 1)}
_LEVEL_SUP_CON: Space = {**_weight(1), 'tau': spaces.log(0.02, 0.8, 0.1)}
_DISTILLATION: Space = {
  **_LEVEL_SUP_CON,
  'teacher_tau': spaces.log(0.02, 0.8, 0.1),
}
_TREE: Space = {'tree_tau': spaces.log(0.01, 0.5, 0.05)}


def _by_features(name, loss, space: Space, context, first) -> dict[str, Added]:
  """A loss that is told of frozen features, own embeddings, or a teacher's.

  Args:
    name: of the entry of frozen features.
    loss: `Added.loss`.
    space: its hyperparameters.
    context: what the features tell.
    first: what is told before every class has a mean.
  """
  learned = functools.partial(Added, loss, space, context=first)
  return {
    name: Added(loss, space, context=context, frozen=True),
    f'{name}_own': learned(carried=carried.means_of(context)),
    f'{name}_ema': learned(carried=carried.teacher_means_of(context)),
  }


_of_levels = functools.partial(
  _by_features, context=contexts.pseudo_levels, first=contexts.flat_levels
)


ADDED: Mapping[str, Added] = {
  'alone': Added(),
  'official': Added(_official, _OFFICIAL, _hier_proxies),
  'hier_star': _star(),
  'triplet': Added(_triplet, _TRIPLET),
  # HIER* with its memory, which its ablation with Proxy-Anchor asked for.
  'hier_memory': _star(loss=_star_memory, carried=carried.MEMORY),
  'triplet_memory': Added(_triplet_memory, _TRIPLET, carried=carried.MEMORY),
  # Controls.
  'shuffled': _star(loss=_shuffled),
  'euclidean': _star(0.0),
  'cosine': _star(None),
  'triplet_euclidean': Added(_triplet, _TRIPLET, c=0.0),
  'triplet_cosine': Added(_triplet, _TRIPLET, c=None),
  **_of_levels('happier', _happier, _HAPPIER),
  'second_happier': Added(_happier, _HAPPIER, context=contexts.classes),
  **_of_levels('level_sup_con', _level_sup_con, _LEVEL_SUP_CON),
  'second_sup_con': Added(
    _level_sup_con, _LEVEL_SUP_CON, context=contexts.classes
  ),
  'hpl': Added(
    _hpl,
    {**_weight(1), 'level_alpha': spaces.log(2, 64, 32)},
    context=contexts.pseudo_levels,
    carried=carried.MEANS,
    frozen=True,
  ),
  **_by_features(
    'distillation',
    _distillation,
    _DISTILLATION,
    context=contexts.class_cosines,
    first=contexts.flat_cosines,
  ),
  # Upper bounds, which see the hierarchy.
  'happier_true_tree': Added(_happier, _HAPPIER, context=contexts.true_levels),
  'level_sup_con_true_tree': Added(
    _level_sup_con, _LEVEL_SUP_CON, context=contexts.true_levels
  ),
  # HIER* with one more switch.
  'star_barred': _switch(barred=True),
  'star_softplus': _switch(hinge='softplus'),
  'star_soft': _switch(estimator='softmax'),
  'star_noisy_soft': _switch(noisy_soft=True),
  'star_balanced': _switch(balance=1.0),
  'star_proxies_apart': _switch(encoder_gradient=0.0),
  'star_cones': _switch(cone=1.0),
  'star_batch_k': _switch(
    loss=_star_batch_k, more={'relatives': spaces.choice(1, default=1)}
  ),
  'star_teacher': _switch(loss=_star_teacher, carried=carried.TEACHER),
  'star_memory': _switch(loss=_star_memory, carried=carried.MEMORY),
  'star_reseeded': _switch(carried=carried.USAGE),
  'star_ratio': _switch(
    loss=_star_ratio, more={'weight': spaces.log(0.03, 3, 0.3)}
  ),
  'star_dasgupta': _switch(
    loss=_star_dasgupta,
    carried=carried.MEANS,
    more={'tree_weight': spaces.log(0.1, 10, 1), **_TREE},
  ),
  # Without hierarchical proxies.
  'dasgupta': Added(_dasgupta, {**_weight(1), **_TREE}, carried=carried.MEANS),
}
