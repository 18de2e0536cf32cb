"""Proxy-Anchor against its formula and the official vectors."""

import chex
import jax
import numpy as np
import pytest

from hier_jax import losses
from tests.support import sharded, vectors


def oracle(z, labels, proxies, alpha=32.0, margin=0.1):
  """Equation 4 of arXiv 2003.13911 in float64, a class at a time."""
  unit = lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)
  s = unit(z.astype(np.float64)) @ unit(proxies.astype(np.float64)).T
  pull, push = [], []
  for p in range(len(proxies)):
    own = labels == p
    if own.any():
      pull.append(np.log1p(np.sum(np.exp(-alpha * (s[own, p] - margin)))))
    push.append(np.log1p(np.sum(np.exp(alpha * (s[~own, p] + margin)))))
  return (np.mean(pull) if pull else 0.0) + np.mean(push)


def case(seed=0, n=20, classes=9, dim=8):
  rng = np.random.default_rng(seed)
  z = rng.standard_normal((n, dim)).astype(np.float32)
  proxies = rng.standard_normal((classes, dim)).astype(np.float32)
  return z, rng.integers(0, classes - 2, n), proxies


@pytest.mark.optimized
@pytest.mark.parametrize('jit', [False, True], ids=['eager', 'jit'])
def test_proxy_anchor_matches_float64_oracle(jit):
  z, labels, proxies = case()
  f = jax.jit(losses.proxy_anchor) if jit else losses.proxy_anchor
  np.testing.assert_allclose(
    f(z, labels, proxies), oracle(z, labels, proxies), rtol=2e-6
  )


@pytest.mark.parametrize('name', ['s0', 'm0'])
def test_proxy_anchor_matches_official_vectors(name):
  arrays = vectors.under(f'metric/PA/{name}')
  f = lambda z, p: losses.proxy_anchor(z, arrays['T'], p)
  loss, grads = jax.jit(jax.value_and_grad(f, (0, 1)))(
    arrays['X'], arrays['param/proxies']
  )
  np.testing.assert_allclose(loss, arrays['f64/loss'], rtol=1e-5)
  for got, wanted in zip(grads, ('X', 'proxies'), strict=True):
    want = arrays[f'f64/grad/{wanted}']
    vectors.assert_near(got, want, 1e-5)


def test_large_logits_and_one_class_stay_finite():
  z, _, proxies = case()
  f = jax.value_and_grad(
    lambda z, labels: losses.proxy_anchor(z, labels, proxies, alpha=1000.0)
  )
  for labels in (np.zeros(20, int), np.arange(20) % 9, np.full(20, -1)):
    chex.assert_tree_all_finite(f(z, labels))


def test_rows_that_do_not_count_change_nothing():
  z, labels, proxies = case()
  where = np.arange(20) < 12
  f = jax.value_and_grad(
    lambda z: losses.proxy_anchor(z, labels, proxies, where=where)
  )
  value, gradient = f(z)
  want = losses.proxy_anchor(z[:12], labels[:12], proxies)
  np.testing.assert_allclose(value, want, rtol=1e-6)
  assert not np.any(gradient[12:])


def test_sharded_loss_is_that_of_one_device():
  z, labels, proxies = case(n=24)
  where = np.arange(24) % 5 > 0
  f = lambda z, labels, where, p, axis_name: losses.proxy_anchor(
    z, labels, p, where=where, axis_name=axis_name
  )
  sharded.assert_like_one_device(f, (z, labels, where), (proxies,))
