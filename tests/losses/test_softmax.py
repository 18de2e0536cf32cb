"""Softmax losses over class proxies: oracles, official vectors, edge cases."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from hier_jax import losses
from tests.support import sharded, vectors


def unit(a):
  a = np.asarray(a, np.float64)
  return a / np.linalg.norm(a, axis=-1, keepdims=True)


def mean_nll(rows):
  """Of (logits, label) pairs, a row at a time."""
  return np.mean([np.log(np.sum(np.exp(a - a[y]))) for a, y in rows])


def with_own(logits, label, value):
  logits = logits.copy()
  logits[label] = value
  return logits, label


def normalized_softmax(z, labels, p):
  s = unit(z) @ unit(p).T
  return mean_nll((row / 0.05, y) for row, y in zip(s, labels, strict=True))


def proxy_nca_pp(z, labels, p):
  sq = np.sum((unit(z)[:, None] - unit(p)[None]) ** 2, -1)
  return mean_nll((-row * 9, y) for row, y in zip(sq, labels, strict=True))


def cos_face(z, labels, p):
  s = unit(z) @ unit(p).T
  return mean_nll(
    with_own(64 * row, y, 64 * (row[y] - 0.35))
    for row, y in zip(s, labels, strict=True)
  )


def arc_rows(s, labels):
  for row, y in zip(s, labels, strict=True):
    theta = np.arccos(row[y])
    own = (
      np.cos(theta + 0.5) if theta < np.pi - 0.5 else row[y] - 1 + np.cos(0.5)
    )
    yield with_own(64 * row, y, 64 * own)


def arc_face(z, labels, p):
  return mean_nll(arc_rows(unit(z) @ unit(p).T, labels))


def sub_center_arc_face(z, labels, p):
  s = np.einsum('bd,ckd->bck', unit(z), unit(p)).max(2)
  return mean_nll(arc_rows(s, labels))


def soft_triple(z, labels, p):
  rows = []
  for x, y in zip(unit(z), labels, strict=True):
    relaxed = []
    for centers in unit(p):
      s = centers @ x
      share = np.exp(s / 0.1) / np.sum(np.exp(s / 0.1))
      relaxed.append(np.sum(share * s))
    logits = 20 * np.array(relaxed)
    rows.append(with_own(logits, y, logits[y] - 20 * 0.01))
  return mean_nll(rows)


ONE = [normalized_softmax, proxy_nca_pp, cos_face, arc_face]
MANY = [sub_center_arc_face, soft_triple]
every_loss = pytest.mark.parametrize(
  'oracle', ONE + MANY, ids=lambda f: f.__name__
)


def case(oracle, n=24, classes=7, dim=8):
  rng = np.random.default_rng(0)
  z = rng.standard_normal((n, dim)).astype(np.float32)
  centers = (3,) if oracle in MANY else ()
  proxies = rng.standard_normal((classes, *centers, dim)).astype(np.float32)
  return (
    getattr(losses, oracle.__name__),
    z,
    rng.integers(0, classes, n),
    proxies,
  )


@pytest.mark.optimized
@every_loss
def test_losses_match_their_float64_oracles(oracle):
  loss, z, labels, proxies = case(oracle)
  want = oracle(z, labels, proxies)
  for f in (loss, jax.jit(loss)):
    got = f(z, labels, proxies)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=5e-6)
  half = loss(jnp.bfloat16(z), labels, jnp.bfloat16(proxies))
  exact = oracle(
    *(
      np.float32(jnp.bfloat16(a)) if a is not labels else a
      for a in (z, labels, proxies)
    )
  )
  np.testing.assert_allclose(half, exact, rtol=5e-6)


@every_loss
def test_gradients_agree_with_differences(oracle):
  loss, z, labels, proxies = case(oracle, n=6)
  f = jax.jit(lambda z, p: loss(z, labels, p) / 10)
  check_grads(
    f, (z, proxies), 1, ['fwd', 'rev'], atol=0.02, rtol=0.02, eps=1e-3
  )


@every_loss
def test_rows_that_do_not_count_have_no_gradient(oracle):
  loss, z, labels, proxies = case(oracle)
  where = np.arange(24) < 10
  f = jax.jit(
    jax.value_and_grad(
      lambda z, labels, where: loss(z, labels, proxies, where=where)
    )
  )
  value, gradient = f(z, labels, where)
  np.testing.assert_allclose(
    value, jax.jit(loss)(z[:10], labels[:10], proxies), rtol=1e-6
  )
  assert not np.any(gradient[10:])
  # Labels outside the classes do not count either; nor does an empty batch.
  value, gradient = f(z, np.where(where, labels, -1), np.ones(24, bool))
  assert not np.any(gradient[10:])
  for nothing in (
    f(z, labels, np.zeros(24, bool)),
    f(z, 0 * labels - 1, where),
  ):
    assert nothing[0] == 0
    assert not np.any(nothing[1])


@every_loss
def test_aligned_rows_and_large_scales_are_finite(oracle):
  loss, _, labels, proxies = case(oracle)
  first = proxies.reshape(7, -1, 8)[:, 0]
  scale = {
    'normalized_softmax': {'temperature': 1e-3},
    'proxy_nca_pp': {'temperature': 1e-3},
  }.get(oracle.__name__, {'scale': 1000.0})
  f = jax.jit(jax.value_and_grad(functools.partial(loss, **scale), (0, 2)))
  for z in (first[labels], -first[labels], 0 * first[labels]):
    chex.assert_tree_all_finite(f(z, labels, proxies))


@every_loss
def test_sharded_loss_is_that_of_one_device(oracle):
  loss, z, labels, proxies = case(oracle)
  where = np.arange(24) % 5 > 0
  f = lambda z, labels, where, p, axis_name: loss(
    z, labels, p, where=where, axis_name=axis_name
  )
  sharded.assert_like_one_device(f, (z, labels, where), (proxies,))


@pytest.mark.parametrize('name', ['s0', 'm0'])
def test_soft_triple_matches_official_vectors(name):
  arrays = vectors.under(f'metric/SoftTriple/{name}')
  fc = arrays['param/loss_func.fc']

  def loss(z, fc):
    # The official matrix holds ten centers a class as columns.
    centers = fc.T.reshape(-1, 10, fc.shape[0])
    return losses.soft_triple(z, arrays['T'], centers)

  value, gradients = jax.jit(jax.value_and_grad(loss, (0, 1)))(arrays['X'], fc)
  np.testing.assert_allclose(value, arrays['f64/loss'], rtol=1e-5)
  for got, wanted in zip(gradients, ('X', 'loss_func.fc'), strict=True):
    vectors.assert_near(got, arrays[f'f64/grad/{wanted}'], 1e-5)


def test_soft_triple_regularizer():
  _, z, labels, centers = case(soft_triple)
  f = jax.jit(
    lambda weight: losses.soft_triple(z, labels, centers, center_weight=weight)
  )
  w = unit(centers)
  pairs = [(0, 1), (0, 2), (1, 2)]
  total = sum(np.linalg.norm(w[:, i] - w[:, j], axis=1).sum() for i, j in pairs)
  np.testing.assert_allclose(
    f(0.2) - f(0.0), 0.2 * total / (7 * 3 * 2), rtol=1e-4
  )
  merged = jnp.ones((2, 3, 4))
  gradient = jax.jit(
    jax.grad(
      lambda w: losses.soft_triple(z[:, :4], labels % 2, w, center_weight=0.2)
    )
  )(merged)
  chex.assert_tree_all_finite(gradient)


def test_arc_face_falls_with_the_angle():
  theta = jnp.linspace(0, jnp.pi, 200)
  z = jnp.stack([jnp.cos(theta), jnp.sin(theta), 0 * theta], 1)
  # The other class is at right angles to all of them.
  proxies = jnp.array([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
  label = jnp.zeros(1, int)
  loss = lambda z: losses.arc_face(z[None], label, proxies, scale=5.0)
  assert np.all(np.diff(jax.jit(jax.vmap(loss))(z)) > -1e-6)


def test_centers_are_drawn_for_each_class():
  shape = losses.init_class_proxies(jax.random.key(0), 5, 4, centers=3).shape
  assert shape == (5, 3, 4)
