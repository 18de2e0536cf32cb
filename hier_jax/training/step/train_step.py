"""One training step and one embedding pass, as one device sees them."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jax import lax
from ml_collections import ConfigDict

from hier_jax.training.distributed.mapping import AXIS
from hier_jax.training.step import (
  finite,
  keys,
  micro_batch,
  objective,
  optim,
  shards,
)
from hier_jax.training.step.state import TrainState

__all__ = ['make_embed', 'make_train_step']

# Variables of the model; scalars by name; a per-device step.
Variables = Mapping[str, Any]
Metrics = dict[str, jax.Array]
Step = Callable[
  [TrainState, Mapping[str, jax.Array]], tuple[TrainState, Metrics]
]


def make_train_step(
  config: ConfigDict,
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  num_classes: int | None = None,
) -> Step:
  """Returns step(state, batch) -> (state, metrics) for `mapping.map_step`.

  The batch holds 'image' uint8 `[b, H, W, 3]` and 'label' int32 `[b]`. The
  metrics are float32 scalars, 'loss' among them, and 'skipped', the number of
  steps so far that were not finite and left all but `state.step` as it was.
  Nothing random is stored: the key is a function of config.seed and the step.

  Args:
    config: the whole config.
    model: `models.embedder.Embedder`.
    optimizer: optax transformation.
    num_classes: number of all classes, if each device holds a share of the
      class proxies (`shards.Shards`); None if each holds all.
  """
  spread = AXIS if num_classes is not None else None
  norm = functools.partial(shards.norm, axis_name=AXIS)
  norm = norm if spread else optax.tree.norm
  embed = functools.partial(
    _embed,
    model,
    chunk=config.data.micro_batch,
    drop_path=config.model.drop_path,
  )

  def step(
    state: TrainState, batch: Mapping[str, jax.Array]
  ) -> tuple[TrainState, Metrics]:
    key_loss, key_drop = keys.split(keys.step_key(config.seed, state.step))
    trained, frozen = optim.split(state.params, config.optim.freeze)

    def loss_of(
      trained: optim.Params,
    ) -> tuple[jax.Array, tuple[Metrics, jax.Array, Variables]]:
      params = optim.merge(frozen, trained)
      variables = {'params': params['model'], 'batch_stats': state.batch_stats}
      z, batch_stats = embed(variables, batch['image'], key_drop)
      loss, metrics = objective.loss(
        key_loss,
        z,
        batch['label'],
        params['loss'],
        settings=config.loss,
        model=config.model,
        images_per_class=config.data.images_per_class,
        memory=state.memory,
        step=state.step,
        num_classes=num_classes,
        axis_name=AXIS,
      )
      return loss, (metrics, z, batch_stats)

    grad = jax.grad(loss_of, has_aux=True)
    grads, (metrics, z, batch_stats) = grad(trained)
    grads = shards.mean(grads, AXIS) if spread else lax.pmean(grads, AXIS)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    trained = optax.apply_updates(trained, updates)
    new = state.replace(
      params=optim.merge(frozen, trained),
      batch_stats=batch_stats,
      opt_state=opt_state,
      memory=objective.advance(state.memory, z, batch['label'], AXIS),
      ema=_ema(state, trained, config.optim.ema_decay),
    )
    metrics |= _norms(grads, norm)
    new, good = finite.if_finite(
      new, state, metrics['loss'], metrics['grad_norm'], axis_name=spread
    )
    skipped = state.skipped + ~good
    metrics['skipped'] = skipped.astype(jnp.float32)
    return new.replace(step=state.step + 1, skipped=skipped), metrics

  return step


def _embed(
  model: nn.Module,
  variables: Variables,
  images: jax.Array,
  key_drop: jax.Array,
  *,
  chunk: int | None,
  drop_path: float | None,
) -> tuple[jax.Array, Variables]:
  """Embeddings `[b, d]` of this device's images, and new running statistics.

  Args:
    model: `models.embedder.Embedder`.
    variables: its parameters and running statistics.
    images: uint8 `[b, H, W, 3]`.
    key_drop: PRNG key of the branches that are dropped.
    chunk: images that are embedded at a time; None for all.
    drop_path: rate at which branches are dropped, or None.
  """
  rngs = {'drop_path': key_drop}
  if chunk is None:
    z, updates = model.apply(
      variables, images, train=True, mutable=['batch_stats'], rngs=rngs
    )
    return z, updates.get('batch_stats', {})

  def embed(images: jax.Array, first: jax.Array) -> jax.Array:
    placed: dict[str, Any] = {'first': first} if drop_path else {}
    z = model.apply(variables, images, train=True, rngs=rngs, **placed)
    return cast(jax.Array, z)

  first = lax.axis_index(AXIS) * len(images)
  z = micro_batch.in_chunks(embed, chunk)(images, first)
  return z, variables['batch_stats']


def _ema(
  state: TrainState, trained: optim.Params, decay: float
) -> optim.Params | None:
  if state.ema is None:
    return None
  return optim.update_ema(state.ema, trained, state.step, decay)


def _norms(grads: optim.Params, norm: optim.Norm) -> Metrics:
  """Norms of the gradient and of its groups, before any clip."""
  groups = optim.group_norms(grads, norm)
  return {'grad_norm': norm(grads)} | {
    f'grad_norm/{group}': norm for group, norm in groups.items()
  }


def make_embed(
  model: nn.Module,
) -> Callable[[Variables, jax.Array], jax.Array]:
  """Returns embed(variables, images) -> `[b, d]` for `mapping.map_embed`."""

  def embed(variables: Variables, images: jax.Array) -> jax.Array:
    # Without `mutable` it returns no variables.
    return cast(jax.Array, model.apply(variables, images, train=False))

  return embed
