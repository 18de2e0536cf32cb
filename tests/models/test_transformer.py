"""The block's layers against float64, where float32 is hard."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import special

from hier_jax.models import transformer


@pytest.mark.optimized
def test_gelu_and_its_derivative():
  x = np.concatenate([np.linspace(-12, 12, 4001), [0.0, 1e-20, -1e-20]])
  x = x.astype(np.float32)
  wide = x.astype(np.float64)
  normal = special.ndtr(wide)
  density = np.exp(-(wide**2) / 2) / np.sqrt(2 * np.pi)
  value, slope = jax.jvp(jax.jit(transformer.gelu), (x,), (np.ones_like(x),))
  # Phi, of two roundings near 1, times x; its slope adds a rounded product.
  ulp = np.finfo(np.float32).eps
  scale = np.maximum(np.abs(wide), 1e-3)
  assert np.max(np.abs(value - wide * normal) / scale) <= 2 * ulp
  assert np.max(np.abs(slope - normal - wide * density)) <= 4 * ulp


def test_gelu_has_one_derivative_forward_and_backward():
  x = np.float32([-1.5, 0.2, 3.0])
  _, forward = jax.jvp(transformer.gelu, (x,), (np.ones_like(x),))
  backward = jax.grad(lambda x: jnp.sum(transformer.gelu(x)))(x)
  # Two programs, which may contract products and sums in two ways.
  ulp = np.finfo(np.float32).eps
  np.testing.assert_allclose(forward, backward, atol=4 * ulp)


def _norm(x):
  """A layer norm's output and vector-Jacobian product, float32."""
  layer = transformer.LayerNorm(jnp.float32)
  variables = layer.init(jax.random.key(0), x)
  return jax.vjp(lambda x: layer.apply(variables, x), x)


def test_layer_norm_of_rows_with_large_means():
  rng = np.random.default_rng(0)
  # Multiples of 2^-10 near 1000, which float32 holds exactly.
  x = 1000 + np.round(rng.normal(size=(5, 64)) * 2**10) / 2**10
  g = rng.normal(size=x.shape)
  y, pull = _norm(np.float32(x))
  centered = x - x.mean(1, keepdims=True)
  deviation = np.sqrt((centered**2).mean(1, keepdims=True) + 1e-6)
  want = centered / deviation
  # The mean rounds at 1000 * 2^-24 = 6e-5 of the deviation, 1.
  np.testing.assert_allclose(y, want, atol=2e-4)
  g = np.float32(g)
  wide = g.astype(np.float64)
  along = (wide * want).mean(1, keepdims=True)
  slope = (wide - wide.mean(1, keepdims=True) - want * along) / deviation
  np.testing.assert_allclose(pull(g)[0], slope, atol=1e-3)


def test_layer_norm_of_a_constant_row_is_zero_with_a_finite_gradient():
  x = np.full((1, 8), 3.0, np.float32)
  y, pull = _norm(x)
  np.testing.assert_array_equal(y, np.zeros_like(x))
  assert np.all(np.isfinite(pull(np.arange(8, dtype='float32')[None])[0]))


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_gradients_of_a_layer_norm(dtype):
  rng = np.random.default_rng(4)
  x, g = (jnp.asarray(a, dtype) for a in rng.normal(size=(2, 6, 16)))
  layer = transformer.LayerNorm(dtype)
  params = {'scale': rng.normal(size=16), 'bias': rng.normal(size=16)}
  params = jax.tree.map(np.float32, params)
  apply = lambda params, x: layer.apply({'params': params}, x)
  y, pull = jax.vjp(jax.jit(apply), params, x)
  by_params, by_x = pull(g)
  assert y.dtype == by_x.dtype == dtype
  assert by_params['scale'].dtype == jnp.float32
  wide, g = np.float64(x), np.float64(g)
  deviation = np.sqrt(wide.var(1, keepdims=True) + 1e-6)
  unit = (wide - wide.mean(1, keepdims=True)) / deviation
  h = g * params['scale']
  mean = lambda a: a.mean(1, keepdims=True)
  slope = (h - mean(h) - unit * mean(h * unit)) / deviation
  # x and g are exact in both types; results round at 2^-24, at 2^-8.
  atol = 1e-5 if dtype == jnp.float32 else 0.03
  np.testing.assert_allclose(np.float64(by_x), slope, atol=atol)
  np.testing.assert_allclose(by_params['scale'], (g * unit).sum(0), atol=1e-5)
  np.testing.assert_allclose(by_params['bias'], g.sum(0), atol=1e-5)


def test_attention_of_large_logits_does_not_overflow():
  rng = np.random.default_rng(1)
  q, k, v = rng.normal(size=(3, 2, 5, 1, 4)).astype('float32')
  q = 1e3 * q

  def loss(*qkv):
    y = transformer.attention(*qkv)
    return jnp.sum(y**2), y

  grads, got = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(q, k, v)
  assert all(np.all(np.isfinite(g)) for g in grads)
  got = got[:, :, 0]
  wide = [a[:, :, 0].astype(np.float64) for a in (q, k, v)]
  logits = wide[0] @ wide[1].swapaxes(1, 2) / 2
  weights = special.softmax(logits, axis=-1)
  # Logits near 1e3 round at 1e3 * 2^-24, and so does, relatively, a weight.
  np.testing.assert_allclose(got, weights @ wide[2], atol=1e-3)


def test_attention_weighs_in_the_type_of_the_values():
  rng = np.random.default_rng(2)
  q, k, v = rng.normal(size=(3, 50, 16))
  want = special.softmax(q @ k.T / 4, axis=-1) @ v
  of_one = lambda a: jnp.bfloat16(a)[None, :, None]
  got = transformer.attention(*map(of_one, (q, k, v)))
  assert got.dtype == jnp.bfloat16
  # Inputs and result round at 2^-9; a sum of 50 in bfloat16 would lose more.
  assert np.abs(np.float64(got[0, :, 0]) - want).max() < 0.03


def test_keys_that_do_not_count_change_nothing():
  rng = np.random.default_rng(3)
  q, k, v = rng.normal(size=(3, 2, 7, 3, 8)).astype('float32')
  few = lambda a: a[:, :5]

  def of(count, q, k, v):
    attend = lambda *qkv: few(transformer.attention(*qkv, count))
    y, pull = jax.vjp(attend, q, k, v)
    return y, *pull(y)

  want = jax.jit(functools.partial(of, None))(*map(few, (q, k, v)))
  k[:, 5:], v[:, 5:] = 1e9, 1e9
  y, *grads = jax.jit(functools.partial(of, 5))(q, k, v)
  for got, expected in zip((y, *map(few, grads)), want, strict=True):
    np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-6)
  assert not any(np.any(g[:, 5:]) for g in grads)
