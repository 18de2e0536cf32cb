"""One training step and one embedding pass, as one device sees them."""

import jax
import optax
from jax import lax

from hier_jax import losses
from hier_jax.training.parallel import AXIS

__all__ = ['make_embed', 'make_train_step']


def _loss(config, loss_params, key, z, labels):
  """The metric loss and HIER on one device's rows; the whole batch's value."""
  settings = config.loss
  metric = losses.proxy_anchor(
    z,
    labels,
    loss_params['class_proxies'],
    axis_name=AXIS,
    **settings.proxy_anchor,
  )
  total = settings.metric_weight * metric
  metrics = {'metric': metric}
  if settings.hier_weight > 0:
    hier, aux = losses.hier(
      key,
      z,
      labels,
      loss_params['hierarchical_proxies'],
      c=config.model.c,
      clip_radius=config.model.clip_radius,
      axis_name=AXIS,
      **settings.hier,
    )
    total += settings.hier_weight * hier
    metrics |= {'hier': hier} | {f'hier/{k}': v for k, v in aux.items()}
  return total, metrics | {'loss': total}


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
        variables, batch['image'], train=True, mutable=['batch_stats']
      )
      loss, metrics = _loss(config, params['loss'], key, z, batch['label'])
      return loss, (metrics, updates.get('batch_stats', {}))

    grad = jax.grad(loss_of, has_aux=True)
    grads, (metrics, batch_stats) = grad(state.params)
    grads = lax.pmean(grads, AXIS)
    updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
    metrics['grad_norm'] = optax.tree.norm(grads)
    state = state.replace(
      step=state.step + 1,
      params=optax.apply_updates(state.params, updates),
      batch_stats=batch_stats,
      opt_state=opt_state,
    )
    return state, metrics

  return step


def make_embed(model):
  """Returns embed(variables, images) -> `[b, d]` for `parallel.map_embed`."""

  def embed(variables, images):
    return model.apply(variables, images, train=False)

  return embed
