"""The ball head against the official vectors and at c = 0."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from hier_jax import layers
from tests import vectors


def test_ball_head_matches_official_vectors():
  arrays = vectors.under('head/small')
  head = layers.BallHead(6)

  def apply(x, w, b):
    params = {'linear': {'kernel': w.T, 'bias': b}}
    return head.apply({'params': params}, x)

  inputs = [arrays[f'in/{name}'] for name in ('x', 'W', 'b')]
  out, vjp = jax.vjp(jax.jit(apply), *inputs)
  near = functools.partial(vectors.assert_near, tolerance=5e-6)
  near(out, arrays['f64/out'])
  for name, gradient in zip(('x', 'W', 'b'), vjp(arrays['in/ct']), strict=True):
    near(gradient, arrays[f'f64/grad/{name}'])


def test_ball_head_computes_in_float32_and_starts_orthogonal():
  head = layers.BallHead(8)
  x = jax.random.normal(jax.random.key(0), (5, 32), jnp.bfloat16)
  variables = head.init(jax.random.key(1), x)
  kernel = variables['params']['linear']['kernel']
  np.testing.assert_allclose(kernel.T @ kernel, np.eye(8), atol=1e-6)
  z = head.apply(variables, x)
  assert z.dtype == jnp.float32
  # The clip radius 2.3 at c = 0.1: tanh(sqrt(.1) 2.3) / sqrt(.1).
  assert jnp.all(jnp.linalg.norm(z, axis=1) <= 1.96512)


def test_without_curvature_embeddings_are_unit_vectors():
  head = layers.BallHead(8, c=0)
  x = jax.random.normal(jax.random.key(0), (5, 32))
  z, _ = head.init_with_output(jax.random.key(1), x)
  np.testing.assert_allclose(jnp.linalg.norm(z, axis=1), 1, rtol=1e-6)
