"""What a config's loss section says: the metric loss, its state, and HIER."""

import functools
import inspect

import jax
import jax.numpy as jnp

from hier_jax import losses
from hier_jax.losses import _checks
from hier_jax.poincare import _arguments

__all__ = [
  'LOSSES',
  'advance',
  'check',
  'hier_options',
  'init_memory',
  'init_params',
  'loss',
  'options',
  'takes_memory',
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
_OURS = ('c', 'where', 'memory', 'axis_name', 'views')


def _parameters(name):
  return inspect.signature(getattr(losses, name)).parameters


def takes_memory(name):
  """Whether the loss compares with rows of past batches."""
  return 'memory' in _parameters(name)


def options(name):
  """Options of a loss with their defaults, those of its signature.

  Besides them 'hyperbolic', whether it measures with the model's curvature or
  by cosines, and 'centers', the number of centers of a class, where a loss can
  have them.
  """
  parameters = _parameters(name)
  found = {
    key: p.default
    for key, p in parameters.items()
    if p.kind is p.KEYWORD_ONLY and key not in _OURS
  }
  if 'c' in parameters:
    found['hyperbolic'] = parameters['c'].default is not None
  if name in _CENTERS:
    found['centers'] = _CENTERS[name]
  return found


def hier_options():
  """Options of `losses.hier` with their defaults, those of its signature."""
  return {
    key: p.default
    for key, p in _parameters('hier').items()
    if p.kind is p.KEYWORD_ONLY and key not in (*_OURS, 'clip_radius')
  }


def init_params(key, config, num_classes):
  """{'class_proxies': ...} of the loss that the config names, or {}."""
  name = config.loss.metric
  parameters = _parameters(name)
  if not {'proxies', 'centers'} & set(parameters):
    return {}
  centers = config.loss[name].centers if name in _CENTERS else None
  dim = config.model.embedding_dim
  return {
    'class_proxies': losses.init_class_proxies(
      key, num_classes, dim, centers=centers
    )
  }


def init_memory(config):
  """`losses.Memory`, or None where the config asks for none."""
  size = config.loss.memory.size
  return losses.init_memory(size, config.model.embedding_dim) if size else None


def advance(memory, z, labels, axis_name=None):
  """The memory after a step."""
  if memory is None:
    return None
  return losses.enqueue(memory, z, labels, axis_name=axis_name)


def _metric(config, params, memory, step, axis_name):
  """(z, labels) -> the metric loss of the whole batch."""
  name = config.loss.metric
  settings = dict(config.loss[name], axis_name=axis_name)
  settings.pop('centers', None)
  if 'hyperbolic' in settings:
    hyperbolic = settings.pop('hyperbolic')
    settings['c'] = config.model.c if hyperbolic else None
  if memory is not None:
    ready = memory.filled & (step >= config.loss.memory.start_step)
    settings['memory'] = memory._replace(filled=ready)
  if 'class_proxies' in params:
    kind = 'centers' if name in _CENTERS else 'proxies'
    settings[kind] = params['class_proxies']
  if name == 'hyp':
    settings['views'] = config.data.images_per_class
  return functools.partial(getattr(losses, name), **settings)


def loss(config, params, memory, step, key, z, labels, axis_name=None):
  """The metric loss and HIER of one device's rows.

  Args:
    config: the whole config.
    params: {'class_proxies', 'hierarchical_proxies'}, as far as they are used.
    memory: `losses.Memory` or None.
    step: int32 scalar.
    key: PRNG key.
    z: `[b, d]` embeddings.
    labels: int `[b]`.
    axis_name: mapped axis over whose devices the batch is spread.

  Returns:
    the whole batch's loss, and a dict of scalars with 'loss', 'metric', 'hier'.
  """
  settings = config.loss
  total, aux = losses.regularized(
    _metric(config, params, memory, step, axis_name),
    key,
    z,
    labels,
    params.get('hierarchical_proxies'),
    metric_weight=settings.metric_weight,
    hier_weight=settings.hier_weight,
    c=config.model.c,
    clip_radius=config.model.clip_radius,
    axis_name=axis_name,
    **settings.hier,
  )
  return total, aux | {'loss': jnp.asarray(total, jnp.float32)}


def check(config, params, z, labels):
  """With `debug_checks`, that the loss is given what it can be made of.

  Args:
    config: the whole config.
    params: see `loss`.
    z: `[b, d]` embeddings, or None.
    labels: int `[b]`.
  """
  if z is not None:
    _arguments.check_finite('z', z)
    if config.model.c:
      _arguments.check_inside('z', z, config.model.c)
  for name, array in params.items():
    _arguments.check_finite(name, array)
  if 'class_proxies' in params:
    _checks.classes(labels, params['class_proxies'].shape[0], True)


def trace(config):
  """Traces the loss of a batch, whose wrong options then raise ValueError."""

  def run(key, z, labels):
    params = init_params(key, config, num_classes=2)
    if config.loss.hier_weight > 0:
      params['hierarchical_proxies'] = jnp.zeros(
        (config.loss.num_proxies, z.shape[1]), jnp.float32
      )
    return loss(config, params, init_memory(config), 0, key, z, labels)

  rows = config.data.batch_size
  jax.eval_shape(
    run,
    jax.random.key(0),
    jax.ShapeDtypeStruct((rows, config.model.embedding_dim), jnp.float32),
    jax.ShapeDtypeStruct((rows,), jnp.int32),
  )
