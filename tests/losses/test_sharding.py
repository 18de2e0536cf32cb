"""The sums that losses share: masks, extremes, and devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax.losses import _sharding
from tests.support import sharded

LEAST = np.finfo(np.float32).min


def case(size):
  rng = np.random.default_rng(0)
  logits = (size * rng.uniform(-1, 1, (24, 5))).astype(np.float32)
  where = rng.random((24, 5)) > 0.4
  where[2], where[:, 3] = False, False
  return logits, where


def reference(logits, where):
  """Value and softmax of float64 `[n]` where it is true."""
  x = np.where(where, np.float64(logits), -np.inf)
  shares = np.exp(x - x.max())
  return x.max() + np.log(shares.sum()), shares / shares.sum()


@pytest.mark.parametrize('size', [1.0, 1e3, 1e30, 3e38])
@pytest.mark.parametrize('axis', [0, 1])
def test_logsumexp_of_any_size_has_exact_gradients(size, axis):
  logits, where = case(size)
  f = lambda x, w: _sharding.logsumexp(x, w, axis)
  one = lambda x, w: _sharding.logsumexp(x[None], w[None])[0]
  rows = [np.moveaxis(a, axis, 1) for a in (logits, where)]
  with jax.debug_nans(True):
    values = [jax.jit(f)(logits, where), jax.vmap(one)(*rows)]
    by_columns = [jax.jacrev(f)(logits, where), jax.jacfwd(f)(logits, where)]
  lines = np.arange(len(rows[0]))
  gradients = [np.moveaxis(g, axis + 1, 2)[lines, lines] for g in by_columns]
  for i, (x, w) in enumerate(zip(*rows, strict=True)):
    value, share = reference(x, w) if w.any() else (LEAST, 0 * x)
    for got in values:
      np.testing.assert_allclose(got[i], value, rtol=1e-6, atol=2e-7)
    for gradient in gradients:
      np.testing.assert_allclose(gradient[i], share, atol=1e-6)


def test_logsumexp_of_no_places_and_of_nan():
  nothing = jnp.zeros((3, 0))
  np.testing.assert_array_equal(
    _sharding.logsumexp(nothing, nothing > 0), np.full(3, LEAST)
  )
  f = lambda x: jnp.sum(jax.nn.softplus(_sharding.logsumexp(x, x > 9)))
  value, gradient = jax.value_and_grad(f)(jnp.ones((2, 3)))
  assert value == 0
  assert not np.any(gradient)
  lost = _sharding.logsumexp(
    jnp.array([[1.0, jnp.nan]]), jnp.ones((1, 2), bool)
  )
  assert np.isnan(lost)


@pytest.mark.parametrize('size', [1.0, 1e3])
def test_logsumexp_over_devices_is_that_of_one_device(size):
  logits, where = case(size)
  # A device without any place that counts.
  where[:6] = False

  def f(logits, where, axis_name):
    over_rows = _sharding.logsumexp(logits, where, 0, axis_name)
    return jnp.sum(jnp.where(over_rows > LEAST, over_rows, 0) / size)

  sharded.assert_like_one_device(f, (logits, where), numbers=(1, 2, 4, 8))


def test_masked_mean_over_devices_is_that_of_one_device():
  values, where = case(1.0)
  mean = _sharding.masked_mean(values, where)
  np.testing.assert_allclose(mean, values[where].mean(), rtol=1e-5)
  assert _sharding.masked_mean(values, where & False) == 0
  sharded.assert_like_one_device(
    _sharding.masked_mean, (values, where), numbers=(2, 4, 8)
  )


def test_mask_has_one_entry_a_row():
  rows = jnp.zeros((3, 2))
  chex.assert_trees_all_equal(_sharding.mask_of(None, rows), np.ones(3, bool))
  with pytest.raises(ValueError, match=r'where has shape \(3, 1\), .* \[3\]'):
    _sharding.mask_of(np.ones((3, 1), bool), rows)
