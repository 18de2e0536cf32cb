"""Chunks of a batch: the whole batch's gradient in less memory."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import traverse_util

from hier_jax import models
from hier_jax.training.distributed import mapping
from hier_jax.training.step import micro_batch
from hier_jax.training.step import state as state_lib
from hier_jax.training.step import train_step as step_lib
from tests.support import training_data, vectors

# Its state after a step is the step's gradient.
GRADIENT = optax.GradientTransformation(
  lambda params: jax.tree.map(jnp.zeros_like, params),
  lambda grads, state, params: (jax.tree.map(jnp.zeros_like, grads), grads),
)
BACKBONES = {
  'vit': {'model.drop_path': 0.5},
  'resnet': {'model.backbone': 'resnet_test', 'model.frozen_stats': True},
}


def made(rows=16, **settings):
  """A step that gives away its gradient, its state and a batch."""
  config = training_data.config(
    **{'data.batch_size': rows, 'loss.hier_weight': 0.0, **settings}
  )
  model = models.create(**config.model.to_dict(), axis_name=mapping.AXIS)
  state = state_lib.create(config, model, GRADIENT, num_classes=16)
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.integers(0, 256, (rows, 8, 8, 3)).astype(np.uint8),
    'label': rng.integers(0, 16, rows // 2).repeat(2).astype(np.int32),
  }
  return step_lib.make_train_step(config, model, GRADIENT), state, batch


def gradient(devices, **settings):
  """Value and gradient of a step on so many devices."""
  step, state, batch = made(**settings)
  step = mapping.map_step(step, devices=jax.local_devices()[:devices])
  state, metrics = step(state, batch)
  assert metrics['skipped'] == 0
  return metrics['loss'], traverse_util.flatten_dict(state.opt_state, sep='/')


@functools.cache
def whole(backbone):
  return gradient(1, **BACKBONES[backbone])


@pytest.mark.parametrize(
  ('backbone', 'devices'),
  [
    ('vit', 4),
    pytest.param('vit', 1, marks=pytest.mark.slow),
    pytest.param('resnet', 4, marks=pytest.mark.slow),
  ],
)
def test_gradient_is_the_whole_batchs(backbone, devices):
  want_value, want = whole(backbone)
  settings = BACKBONES[backbone] | {'data.micro_batch': 2}
  value, got = gradient(devices, **settings)
  np.testing.assert_allclose(value, want_value, rtol=1e-6)
  assert got.keys() == want.keys()
  largest = max(np.abs(leaf).max() for leaf in want.values())
  for path, leaf in want.items():
    error = np.abs(np.asarray(got[path]) - np.asarray(leaf)).max() / largest
    assert error <= 1e-6, path


def test_rows_know_their_places_and_meet_no_other():
  """On functions that tell: a row's place in it, all rows in the loss."""
  x = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)

  def loss(w, chunk):
    place = lambda rows, first: first + jnp.arange(rows)[:, None]
    embed = lambda rows, first: jnp.sin(rows @ w) * place(len(rows), first)
    if chunk:
      embed = micro_batch.in_chunks(embed, chunk)
    z = embed(x, 5)
    return jnp.sum(jax.nn.softmax(z, 0) * z) / 10

  w = jnp.asarray(x[:3])
  want, want_grad = jax.value_and_grad(loss)(w, None)
  for chunk in (1, 4, 12):
    got, grad = jax.jit(jax.value_and_grad(loss), static_argnums=1)(w, chunk)
    np.testing.assert_allclose(got, want, rtol=1e-6)
    vectors.assert_near(grad, want_grad, 1e-6)


def test_memory_is_that_of_a_chunk():
  def temporaries(**settings):
    settings['model.image_size'] = 32
    step, state, batch = made(rows=64, **settings)
    batch['image'] = np.zeros((64, 32, 32, 3), np.uint8)
    mapped = jax.vmap(step, in_axes=(None, 0), axis_name=mapping.AXIS)
    batch = jax.tree.map(lambda a: a[None], batch)
    compiled = jax.jit(mapped).lower(state, batch).compile()
    return compiled.memory_analysis().temp_size_in_bytes

  whole_batch, chunks = temporaries(), temporaries(**{'data.micro_batch': 8})
  # An eighth of what the backward pass keeps, and what does not shrink.
  assert chunks < whole_batch / 4
