"""All that a run carries from step to step."""

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from hier_jax import losses
from hier_jax.errors import UserError
from hier_jax.models.weights import pretrained
from hier_jax.training.step import objective, optim

__all__ = ['TrainState', 'create', 'read_pretrained', 'with_pretrained']


class TrainState(flax.struct.PyTreeNode):
  """The state of a run; with the config it determines all that follows.

  Attributes:
    step: int32, steps taken.
    params: {'model': ..., 'loss': {'class_proxies', 'hierarchical_proxies'}},
      the proxies as far as the loss has them.
    batch_stats: running statistics of the backbone, {} where it has none.
    opt_state: that of the optimizer, for what is not frozen.
    skipped: int32, steps whose update was not finite and was left out.
    memory: `losses.Memory` of past batches, or None.
    mean: moving average of the parameters that are not frozen, or None.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  skipped: jax.Array
  memory: Any = None
  mean: Any = None

  @property
  def eval_variables(self):
    """What the model is evaluated with."""
    model = self.eval_params['model']
    return {'params': model, 'batch_stats': self.batch_stats}

  @property
  def eval_params(self):
    """What is evaluated: the parameters, averaged where there is a mean."""
    if self.mean is None:
      return self.params
    return optim.merge(self.params, self.mean)


def create(config, model, optimizer, num_classes):
  """The state at step 0, a function of config.seed.

  Args:
    config: the whole config.
    model: `models.embedder.Embedder`.
    optimizer: optax transformation.
    num_classes: classes C of the training split.
  """
  size, dim = config.model.image_size, config.model.embedding_dim
  images = jnp.zeros((1, size, size, 3), jnp.uint8)

  def init(key):
    key_model, key_class, key_hier = jax.random.split(key, 3)
    # Outside the mapped step there is no axis to mean over, and none is needed:
    # in evaluation mode the same variables are made.
    variables = model.init(key_model, images, train=False)
    loss = objective.init_params(key_class, config, num_classes)
    if config.loss.hier_weight > 0:
      loss['hierarchical_proxies'] = losses.init_hier_proxies(
        key_hier,
        config.loss.num_proxies,
        dim,
        clip_radius=config.model.clip_radius,
      )
    params = {'model': variables['params'], 'loss': loss}
    trained, _ = optim.split(params, config.optim.freeze)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=variables.get('batch_stats', {}),
      opt_state=optimizer.init(trained),
      skipped=jnp.zeros((), jnp.int32),
      memory=objective.init_memory(config),
      mean=_first_mean(config, params),
    )

  return jax.jit(init)(jax.random.key(config.seed))


def _first_mean(config, params):
  if config.optim.ema_decay is None:
    return None
  trained, _ = optim.split(params, config.optim.freeze)
  # The step consumes its state, in which no two arrays may be one.
  return jax.tree.map(jnp.copy, trained)


def read_pretrained(config, model, *, fetch=True):
  """The backbone's weights of `config.pretrained`.

  Args:
    config: the whole config.
    model: `models.embedder.Embedder`.
    fetch: whether weights of the hub are fetched.

  Returns:
    `pretrained.Loaded`; None for drawn weights, and where they were to be
    fetched.

  Raises:
    UserError: the weights cannot be had or are not the backbone's.
  """
  source = config.pretrained
  if source is None:
    return None
  source = config.model.backbone if source == 'hub' else source
  try:
    if not fetch and not pretrained.is_file(source):
      return None
    return pretrained.load(source, model)
  except UserError as error:
    raise UserError(
      f'config.pretrained is {config.pretrained!r}: {error}'
    ) from error


def with_pretrained(state, config, model, loaded=None):
  """The state with the backbone's weights of `config.pretrained`.

  Args:
    state: at step 0.
    config: the whole config.
    model: `models.embedder.Embedder`.
    loaded: `pretrained.Loaded`, as `read_pretrained` returns it; None for it to
      be read.

  Returns:
    The state, and the `pretrained.Loaded` that was put into it.

  Raises:
    UserError: the weights cannot be had or are not the backbone's.
  """
  if loaded is None:
    loaded = read_pretrained(config, model)
  put = lambda into, collection: (
    {
      **into,
      'backbone': jax.tree.map(jnp.asarray, loaded.variables[collection]),
    }
    if collection in loaded.variables
    else into
  )
  params = {**state.params, 'model': put(state.params['model'], 'params')}
  stats = put(state.batch_stats, 'batch_stats')
  state = state.replace(
    params=params, batch_stats=stats, mean=_first_mean(config, params)
  )
  return state, loaded
