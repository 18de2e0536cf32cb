"""What is added to a metric loss: HIER, its variants, and the controls.

Each entry of `ADDED` is small: a loss, its hyperparameters, and its parameters.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping

import jax
import numpy as np

from experiments.study import controls, mined, proxies, spaces, variants
from experiments.study.spaces import Space
from hier_jax import losses

__all__ = ['ADDED', 'CURVATURE', 'TRIPLETS', 'Added']

# The curvature of HIER's paper.
CURVATURE = 0.1
# Triplets of an anchor. HIER draws 50: the loss is a mean over them, so that
# fewer estimate the same with more noise, at a fraction of the cost.
TRIPLETS = 4
# The largest k, that of the paper.
_K_MAX = 20
# Nodes of the levels above the classes, as shares of the classes.
_LEVELS = 1 / 32, 1 / 8


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
  init: Callable[..., dict] = lambda key, dim, values: {}
  context: Callable[..., dict[str, np.ndarray]] = lambda x, labels, group: {}
  c: float | None = CURVATURE


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


def _official(key, z, labels, params, values, c, context):
  del context
  loss, _ = losses.hier(
    key, z, labels, params['hier_proxies'], c=c, triplets_per_anchor=TRIPLETS
  )
  return values['weight'] * loss


def _hier_star(key, z, labels, params, values, c, context, **switches):
  del context
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


def _shuffled(key, z, labels, params, values, c, context):
  draw, key = jax.random.split(key)
  similarity = controls.shuffled_similarity(
    draw, mined.similarity_of(z, c), labels
  )
  return _hier_star(
    *(key, z, labels, params, values, c, context),
    similarity=similarity,
    same_class=0.0,
  )


def _triplet(key, z, labels, params, values, c, context):
  del params, context
  loss, _ = variants.mined_triplet(
    key,
    z,
    labels,
    c=c,
    margin=values['margin'],
    k=values['k'],
    k_max=_K_MAX,
    triplets_per_anchor=TRIPLETS,
  )
  return values['weight'] * loss


def _happier(key, z, labels, params, values, c, context):
  del key, params, c
  ranking = losses.hap(z, context['levels'][labels], alpha=values['relevance'])
  return values['weight'] * ranking


def _level_sup_con(key, z, labels, params, values, c, context):
  del key, params, c
  levels = context['levels']
  loss = controls.level_sup_con(
    z,
    labels,
    levels,
    weights=[1.0] * levels.shape[1],
    temperature=values['tau'],
  )
  return values['weight'] * loss


def _distillation(key, z, labels, params, values, c, context):
  del key, params, c
  loss = controls.relational_distillation(
    z,
    context['teacher'][labels][:, labels],
    temperature=values['tau'],
    teacher_temperature=values['teacher_tau'],
  )
  return values['weight'] * loss


def _pseudo_levels(x, labels, subgroup):
  """Average linkage of the class means of the frozen features."""
  del subgroup
  number = int(labels.max()) + 1
  sizes = sorted({max(2, round(share * number)) for share in _LEVELS})
  return {'levels': controls.pseudo_levels(np.asarray(x), labels, sizes)}


def _true_levels(x, labels, subgroup):
  """The annotated hierarchy: the upper bound."""
  del x, labels
  return {'levels': controls.true_levels(subgroup)}


def _teacher(x, labels, subgroup):
  """Cosines of the class means of the frozen features."""
  del subgroup
  means = controls.class_means(np.asarray(x), labels)
  unit = means / np.linalg.norm(means, axis=1, keepdims=True)
  return {'teacher': np.float32(unit @ unit.T)}


def _star(c: float | None = CURVATURE, loss=_hier_star, **switches) -> Added:
  space = _STAR_OF_SPHERE if c is None else _STAR
  loss = functools.partial(loss, **switches)
  return Added(loss, space, _hier_proxies, c=c)


_HAPPIER: Space = {**_weight(1), 'relevance': spaces.log(0.3, 3, 1)}
_LEVEL_SUP_CON: Space = {**_weight(1), 'tau': spaces.log(0.02, 0.8, 0.1)}
_DISTILLATION: Space = {
  **_LEVEL_SUP_CON,
  'teacher_tau': spaces.log(0.02, 0.8, 0.1),
}

ADDED: Mapping[str, Added] = {
  'alone': Added(),
  'official': Added(_official, _OFFICIAL, _hier_proxies),
  'hier_star': _star(),
  'triplet': Added(_triplet, _TRIPLET),
  # Controls.
  'shuffled': _star(loss=_shuffled),
  'euclidean': _star(0.0),
  'cosine': _star(None),
  'triplet_euclidean': Added(_triplet, _TRIPLET, c=0.0),
  'triplet_cosine': Added(_triplet, _TRIPLET, c=None),
  'happier': Added(_happier, _HAPPIER, context=_pseudo_levels),
  'level_sup_con': Added(
    _level_sup_con, _LEVEL_SUP_CON, context=_pseudo_levels
  ),
  'distillation': Added(_distillation, _DISTILLATION, context=_teacher),
  # Upper bounds, which see the hierarchy.
  'happier_true_tree': Added(_happier, _HAPPIER, context=_true_levels),
  'level_sup_con_true_tree': Added(
    _level_sup_con, _LEVEL_SUP_CON, context=_true_levels
  ),
  # HIER* with one more switch.
  'star_barred': _star(barred=True),
  'star_softplus': _star(hinge='softplus'),
  'star_soft': _star(estimator='softmax'),
  'star_noisy_soft': _star(noisy_soft=True),
  'star_balanced': _star(balance=1.0),
  'star_proxies_apart': _star(encoder_gradient=0.0),
  'star_cones': _star(cone=1.0),
}
