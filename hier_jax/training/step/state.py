"""Everything that a run carries from step to step."""

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp
import optax
from ml_collections import ConfigDict

from hier_jax import losses
from hier_jax.errors import UserError
from hier_jax.models.weights import pretrained
from hier_jax.training.distributed import mapping
from hier_jax.training.step import objective, optim
from hier_jax.training.step.shards import Shards

__all__ = ['TrainState', 'create', 'read_pretrained', 'with_pretrained']


class TrainState(flax.struct.PyTreeNode):
  """The state of a run; with the config, it determines everything that follows.

  Attributes:
    step: int32, steps taken.
    params: {'model': ..., 'loss': {'class_proxies', 'hierarchical_proxies'}},
      with the proxies that the loss uses.
    batch_stats: running statistics of the backbone, {} if it has none.
    opt_state: state of the optimizer, for parameters that are not frozen.
    skipped: int32, number of steps left out because their update was not
      finite.
    memory: `losses.Memory` of past batches, or None.
    ema: exponential moving average of the trained parameters, or None.
  """

  step: jax.Array
  params: Any
  batch_stats: Any
  opt_state: Any
  skipped: jax.Array
  memory: Any = None
  ema: Any = None

  @property
  def eval_variables(self) -> dict[str, Any]:
    """Variables to evaluate the model with."""
    model = self.eval_params['model']
    return {'params': model, 'batch_stats': self.batch_stats}

  @property
  def eval_params(self) -> optim.Params:
    """The parameters to evaluate: their EMA if the run keeps one."""
    if self.ema is None:
      return self.params
    return optim.merge(self.params, self.ema)


def create(
  config: ConfigDict,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  num_classes: int,
  shards: Shards | None = None,
) -> TrainState:
  """The state at step 0, a function of config.seed.

  Args:
    config: the whole config.
    model: `models.embedder.Embedder`.
    optimizer: optax transformation.
    num_classes: classes C of the training split.
    shards: how the class proxies are spread over devices, where they are then
      created; None if each device holds all.
  """
  size, dim = config.model.image_size, config.model.embedding_dim
  images = jnp.zeros((1, size, size, 3), jnp.uint8)

  def init(key: jax.Array) -> TrainState:
    key_model, key_class, key_hier = jax.random.split(key, 3)
    # Outside the mapped step there is no axis to mean over, and none is needed:
    # in evaluation mode the same variables are made.
    variables = model.init(key_model, images, train=False)
    loss = objective.init_params(key_class, config.loss, num_classes, dim)
    if config.loss.hier_weight > 0:
      loss['hierarchical_proxies'] = losses.init_hier_proxies(
        key_hier,
        config.loss.num_proxies,
        dim,
        clip_radius=config.model.clip_radius,
      )
    params = {'model': variables['params'], 'loss': loss}
    if shards is not None:
      params = shards.pad(params)
    trained, _ = optim.split(params, config.optim.freeze)
    return TrainState(
      step=jnp.zeros((), jnp.int32),
      params=params,
      batch_stats=variables.get('batch_stats', {}),
      opt_state=optimizer.init(trained),
      skipped=jnp.zeros((), jnp.int32),
      memory=objective.init_memory(config.loss.memory, dim),
      ema=_first_ema(config.optim, params),
    )

  key = jax.random.key(config.seed)
  if shards is None:
    return jax.jit(init)(key)
  specs = shards.specs(jax.eval_shape(init, key))
  return jax.jit(init, out_shardings=mapping.shardings(specs))(key)


def _first_ema(
  settings: ConfigDict, params: optim.Params
) -> optim.Params | None:
  """The EMA at step 0, None without one; `settings` are config.optim."""
  if settings.ema_decay is None:
    return None
  trained, _ = optim.split(params, settings.freeze)
  # The step consumes its state, in which no two arrays may be one.
  return jax.tree.map(jnp.copy, trained)


def read_pretrained(
  source: str | None,
  model: nn.Module,
  *,
  backbone: str,
  fetch: bool = True,
) -> pretrained.Loaded | None:
  """The backbone's weights of `config.pretrained`.

  Args:
    source: config.pretrained.
    model: `models.embedder.Embedder`.
    backbone: its name, under which the hub has weights.
    fetch: whether weights of the hub are fetched.

  Returns:
    `pretrained.Loaded`; None for drawn weights, and if weights would have to be
    fetched.

  Raises:
    UserError: the weights cannot be fetched or do not fit the backbone.
  """
  if source is None:
    return None
  weights = backbone if source == 'hub' else source
  try:
    if not fetch and not pretrained.is_file(weights):
      return None
    return pretrained.load(weights, model)
  except UserError as error:
    raise UserError(f'config.pretrained is {source!r}: {error}') from error


def with_pretrained(
  state: TrainState, loaded: pretrained.Loaded, settings: ConfigDict
) -> TrainState:
  """The state with pretrained backbone weights in place of drawn ones.

  Args:
    state: `TrainState` at step 0.
    loaded: `pretrained.Loaded`, as `read_pretrained` returns it.
    settings: config.optim, which says whether there is an EMA.
  """

  def put(into: Mapping[str, Any], collection: str) -> Mapping[str, Any]:
    if collection not in loaded.variables:
      return into
    backbone = jax.tree.map(jnp.asarray, loaded.variables[collection])
    return {**into, 'backbone': backbone}

  params = {**state.params, 'model': put(state.params['model'], 'params')}
  stats = put(state.batch_stats, 'batch_stats')
  return state.replace(
    params=params, batch_stats=stats, ema=_first_ema(settings, params)
  )
