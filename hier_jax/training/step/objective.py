"""The loss that a config describes: metric loss, its state, and HIER."""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from ml_collections import ConfigDict

from hier_jax import losses
from hier_jax.losses import _checks
from hier_jax.poincare import _arguments

__all__ = [
  'LOSSES',
  'SECOND',
  'advance',
  'ball_options',
  'check',
  'has_second',
  'hier_options',
  'init_memory',
  'init_params',
  'loss',
  'options',
  'takes_memory',
  'takes_shares',
  'trace',
]

# All losses of rows with one label each.
LOSSES = (
  'proxy_anchor',
  'proxy_nca_pp',
  'normalized_softmax',
  'soft_triple',
  'arc_face',
  'sub_center_arc_face',
  'cos_face',
  'contrastive',
  'triplet',
  'n_pair',
  'lifted_structure',
  'multi_similarity',
  'sup_con',
  'circle',
  'hyp',
  'smooth_ap',
  'sup_ap',
  'roadmap',
  'recall_at_k',
)
# Centers of a class, in the papers.
_CENTERS = {'soft_triple': 10, 'sub_center_arc_face': 3}
# What the training step fills in.
_OURS = ('where', 'memory', 'num_classes', 'axis_name', 'views')
# What the model's section says: HIER measures in the ball of the embeddings.
_BALL = ('c', 'clip_radius')


def _parameters(name: str) -> Mapping[str, inspect.Parameter]:
  return inspect.signature(getattr(losses, name)).parameters


# Those that have no class proxies, and can be added to another.
SECOND = tuple(
  n for n in LOSSES if not {'proxies', 'centers'} & set(_parameters(n))
)


def takes_memory(name: str) -> bool:
  """Whether the loss can compare with rows of past batches."""
  return 'memory' in _parameters(name)


def takes_shares(name: str) -> bool:
  """Whether the loss has class proxies, of which a device can hold a share."""
  return 'num_classes' in _parameters(name)


def has_second(settings: ConfigDict) -> bool:
  """Whether a second metric loss is added to the first.

  Args:
    settings: config.loss.
  """
  return settings.second is not None and settings.second_weight > 0


def _defaults(name: str) -> dict[str, Any]:
  """Option -> default of a loss, as its signature says."""
  return {
    key: p.default
    for key, p in _parameters(name).items()
    if p.kind is p.KEYWORD_ONLY and key not in _OURS
  }


def hier_options() -> dict[str, Any]:
  """Options of `losses.hier` with the defaults of its signature.

  Options of the ball are left out, see `ball_options`.
  """
  return {k: v for k, v in _defaults('hier').items() if k not in _BALL}


def ball_options() -> dict[str, Any]:
  """Defaults of the ball, curvature and clip radius, as `losses.hier` says."""
  return {k: v for k, v in _defaults('hier').items() if k in _BALL}


def options(name: str) -> dict[str, Any]:
  """Options of a metric loss with the defaults of its signature.

  In addition, 'hyperbolic' says whether the loss uses the model's curvature or
  cosines, and 'centers' is the number of centers per class, if the loss
  supports them.
  """
  parameters = _parameters(name)
  found = {k: v for k, v in _defaults(name).items() if k != 'c'}
  if 'c' in parameters:
    found['hyperbolic'] = parameters['c'].default is not None
  if name in _CENTERS:
    found['centers'] = _CENTERS[name]
  return found


def init_params(
  key: jax.Array, settings: ConfigDict, num_classes: int, dim: int
) -> dict[str, jax.Array]:
  """{'class_proxies': ...} of the metric loss, {} where it has none.

  Args:
    key: PRNG key.
    settings: config.loss.
    num_classes: classes C of the training split.
    dim: size d of the embeddings.
  """
  name = settings.metric
  if name in SECOND:
    return {}
  centers = settings[name].centers if name in _CENTERS else None
  return {
    'class_proxies': losses.init_class_proxies(
      key, num_classes, dim, centers=centers
    )
  }


def init_memory(settings: ConfigDict, dim: int) -> losses.Memory | None:
  """`losses.Memory` of embeddings of size `dim`; None for a size of 0.

  Args:
    settings: config.loss.memory.
    dim: size d of the embeddings.
  """
  return losses.init_memory(settings.size, dim) if settings.size else None


def advance(
  memory: losses.Memory | None,
  z: jax.Array,
  labels: jax.Array,
  axis_name: str | None = None,
) -> losses.Memory | None:
  """The memory after a step."""
  if memory is None:
    return None
  return losses.enqueue(memory, z, labels, axis_name=axis_name)


def _metric(
  name: str,
  settings: ConfigDict,
  c: float | None,
  images_per_class: int,
  params: Mapping[str, jax.Array],
  memory: losses.Memory | None,
  step: ArrayLike,
  num_classes: int | None,
  axis_name: str | None,
) -> Callable[[jax.Array, jax.Array], jax.Array]:
  """(z, labels) -> the metric loss of that name, of the whole batch."""
  options = dict(settings[name], axis_name=axis_name)
  options.pop('centers', None)
  if 'hyperbolic' in options:
    options['c'] = c if options.pop('hyperbolic') else None
  if memory is not None and takes_memory(name):
    ready = memory.filled & (step >= settings.memory.start_step)
    options['memory'] = memory._replace(filled=ready)
  if name not in SECOND:
    kind = 'centers' if name in _CENTERS else 'proxies'
    options[kind] = params['class_proxies']
    options['num_classes'] = num_classes
  if name == 'hyp':
    options['views'] = images_per_class
  return functools.partial(getattr(losses, name), **options)


def loss(
  key: jax.Array,
  z: jax.Array,
  labels: jax.Array,
  params: Mapping[str, jax.Array],
  *,
  settings: ConfigDict,
  model: ConfigDict,
  images_per_class: int,
  memory: losses.Memory | None = None,
  step: ArrayLike = 0,
  num_classes: int | None = None,
  axis_name: str | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """The metric loss and HIER of one device's rows.

  Args:
    key: PRNG key of HIER's draws, the same on all devices.
    z: `[b, d]` embeddings.
    labels: int `[b]`.
    params: {'class_proxies', 'hierarchical_proxies'}, those that are used.
    settings: config.loss.
    model: config.model, which defines the ball of the losses.
    images_per_class: images of a class in a batch, which 'hyp' pairs.
    memory: `losses.Memory` or None.
    step: number of steps taken before this one, int32 scalar.
    num_classes: number of all classes, if each device holds a share of the
      class proxies; None if each holds all.
    axis_name: mapped axis over whose devices the batch is spread.

  Returns:
    the whole batch's loss, and a dict of scalars with 'loss', 'metric', and,
    where there are such, 'second' and 'hier': each without its weight.
  """
  metric = functools.partial(
    _metric,
    settings=settings,
    c=model.c,
    images_per_class=images_per_class,
    params=params,
    memory=memory,
    step=step,
    num_classes=num_classes,
    axis_name=axis_name,
  )
  total, aux = losses.regularized(
    metric(settings.metric),
    key,
    z,
    labels,
    params.get('hierarchical_proxies'),  # type: ignore[arg-type]
    metric_weight=settings.metric_weight,
    hier_weight=settings.hier_weight,
    c=model.c,
    clip_radius=model.clip_radius,
    axis_name=axis_name,
    **settings.hier,
  )
  if has_second(settings):
    second = metric(settings.second)(z, labels)
    total += settings.metric_weight * settings.second_weight * second
    aux['second'] = second
  return total, aux | {'loss': jnp.asarray(total, jnp.float32)}


def check(
  z: jax.Array | None,
  labels: jax.Array,
  params: Mapping[str, jax.Array],
  *,
  c: float | None,
) -> None:
  """With `debug_checks`, checks the values that the loss is given.

  Args:
    z: `[b, d]` embeddings, or None.
    labels: int `[b]`.
    params: see `loss`.
    c: curvature of the embeddings, config.model.c.
  """
  if z is not None:
    _arguments.check_finite('z', z)
    if c:
      _arguments.check_inside('z', z, c)
  for name, array in params.items():
    _arguments.check_finite(name, array)
  if 'class_proxies' in params:
    _checks.classes(labels, params['class_proxies'].shape[0], True)


def trace(
  settings: ConfigDict,
  model: ConfigDict,
  *,
  batch_size: int,
  images_per_class: int,
) -> None:
  """Traces the loss of a batch, whose wrong options then raise ValueError.

  Args:
    settings: config.loss.
    model: config.model.
    batch_size: images in a batch.
    images_per_class: see `loss`.
  """
  dim = model.embedding_dim

  def run(
    key: jax.Array, z: jax.Array, labels: jax.Array
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    key_params, key_loss = jax.random.split(key)
    params = init_params(key_params, settings, 2, dim)
    if settings.hier_weight > 0:
      params['hierarchical_proxies'] = jnp.zeros(
        (settings.num_proxies, dim), jnp.float32
      )
    return loss(
      key_loss,
      z,
      labels,
      params,
      settings=settings,
      model=model,
      images_per_class=images_per_class,
      memory=init_memory(settings.memory, dim),
    )

  jax.eval_shape(
    run,
    jax.random.key(0),
    jax.ShapeDtypeStruct((batch_size, dim), jnp.float32),
    jax.ShapeDtypeStruct((batch_size,), jnp.int32),
  )
