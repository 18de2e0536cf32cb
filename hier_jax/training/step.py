"""One training step and one embedding pass, as one device sees them."""

import jax
import optax
from jax import lax

from hier_jax.training import objective
from hier_jax.training.parallel import AXIS

__all__ = ['make_embed', 'make_train_step']

# split(key)[i] is fold_in(key, i): far from what the loss splits off the key.
_DROP_PATH = 2**20


def make_train_step(config, model, optimizer):
  """Returns step(state, batch) -> (state, metrics) for `parallel.map_step`.

  The batch holds 'image' uint8 `[b, H, W, 3]` and 'label' int32 `[b]`. The
  metrics are float32 scalars, 'loss' among them. Nothing random is stored: the
  key is a function of config.seed and the step.
  """

  def step(state, batch):
    key = jax.random.fold_in(jax.random.key(config.seed), state.step)

    def loss_of(params):
      variables = {'params': params['model'], 'batch_stats': state.batch_stats}
      z, updates = model.apply(
        variables,
        batch['image'],
        train=True,
        mutable=['batch_stats'],
        rngs={'drop_path': jax.random.fold_in(key, _DROP_PATH)},
      )
      loss, metrics = objective.loss(
        config,
        params['loss'],
        state.memory,
        state.step,
        key,
        z,
        batch['label'],
        axis_name=AXIS,
      )
      return loss, (metrics, z, updates.get('batch_stats', {}))

    grad = jax.grad(loss_of, has_aux=True)
    grads, (metrics, z, batch_stats) = grad(state.params)
    grads = lax.pmean(grads, AXIS)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics['grad_norm'] = optax.tree.norm(grads)
    state = state.replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
      memory=objective.advance(state.memory, z, batch['label'], AXIS),
    )
    return state, metrics

  return step


def make_embed(model):
  """Returns embed(variables, images) -> `[b, d]` for `parallel.map_embed`."""

  def embed(variables, images):
    return model.apply(variables, images, train=False)

  return embed
