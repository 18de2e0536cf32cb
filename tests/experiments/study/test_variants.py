"""HIER* and the plain triplet: HIER without switches, and what each does."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study import ancestors, mined, proxies, variants
from hier_jax import losses, poincare
from tests.support import vectors

# Whole losses and trainings are compiled.
pytestmark = pytest.mark.slow

N, DIM, P = 36, 6, 14
KEY = jax.random.key(3)
SMALL = dict(k=6, triplets_per_anchor=4)


@functools.cache
def batch(c=0.1):
  """Embeddings of 12 classes, and proxies half as far out."""
  z = jax.random.normal(jax.random.key(1), (N, DIM))
  v = proxies.init_proxies(jax.random.key(2), P, DIM, init_scale=0.5)
  if c is None:
    z = z / jnp.linalg.norm(z, axis=1, keepdims=True)
  else:
    z = poincare.to_ball(z, c=c, clip_radius=2.3)
  return z, jnp.arange(N) // 3, v


@functools.cache
def program(**options):
  """Loss, aux and gradients by z and the proxies, in one program."""

  _, labels, _ = batch()

  def f(z, v):
    return variants.hier_star(KEY, z, labels, v, **SMALL | options)

  return jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))


@pytest.mark.parametrize('c', [0.1, 0.0, None])
def test_without_switches_it_is_hier(c):
  z, labels, v = batch(c)

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
  def hier(z, v):
    return losses.hier(KEY, z, labels, v, c=c, **SMALL)

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
  def star(z, v, k):
    return variants.hier_star(
      KEY, z, labels, v, c=c, **SMALL | {'k': k, 'k_max': 9}
    )

  (loss, aux), grads = star(z, v, SMALL['k'])
  (want, stats), slopes = hier(z, v)
  np.testing.assert_allclose(loss, want, rtol=1e-6)
  near = functools.partial(vectors.assert_near, tolerance=1e-5)
  jax.tree.map(near, grads, slopes)
  assert set(stats) - set(aux) <= {'data/clipped', 'proxy/clipped'}
  for key, value in aux.items():
    np.testing.assert_allclose(value, stats[key], rtol=1e-5, atol=1e-6)


def test_a_search_compiles_once():
  z, labels, v = batch()
  numbers = dict(
    k=6,
    temperature=0.1,
    margin=0.1,
    proxy_term=1.0,
    proxy_k=6,
    order=0.0,
    gamma=0.0,
    cone=0.0,
    aperture=0.1,
    balance=0.0,
    encoder_gradient=1.0,
    proxy_gradient=1.0,
    same_class=1.0,
  )

  @chex.assert_max_traces(1)
  def f(numbers):
    return variants.hier_star(
      KEY,
      z,
      labels,
      v,
      k_max=9,
      triplets_per_anchor=4,
      estimator='argmax',
      **numbers,
    )[0]

  f = jax.jit(f)
  seen = {float(f(numbers))}
  for name, value in numbers.items():
    # Gradients, and what has weight 0, do not change the value.
    changed = f(numbers | {name: value + 1})
    assert np.isfinite(changed)
    seen.add(float(changed))
  assert len(seen) >= 8


# Without the proxy term: it would be compiled anew for each.
COSTS = dict(order=0.7, gamma=0.3, cone=0.2, aperture=0.3, estimator='argmax')
SWITCHES = {
  'costs': COSTS,
  'soft': dict(estimator='softmax'),
  'picks': dict(hinge='softplus', barred=True, balance=1.0),
}
MORE = {
  'order': dict(order=1.0, gamma=0.5),
  'cone': dict(cone=0.5),
  'softplus': dict(hinge='softplus'),
  'barred': dict(barred=True),
  'noisy_soft': dict(noisy_soft=True),
  'balance': dict(balance=1.0),
  'euclidean': dict(c=0.0, order=1.0),
  'cosine': dict(c=None, barred=True),
  'ghhc': dict(order=1.0, barred=True, hinge='softplus', noisy_soft=True),
}


@pytest.mark.parametrize('name', [*SWITCHES, *MORE])
def test_switch_changes_the_loss_and_keeps_it_finite(name):
  options = (SWITCHES | MORE)[name]
  z, _, v = batch(options.get('c', 0.1))
  (loss, aux), grads = program(**options, proxy_term=0)(z, v)
  (without, _), _ = program(proxy_term=0)(z, v)
  assert loss > 0 and abs(loss - without) > 1e-3
  chex.assert_tree_all_finite((aux, grads))
  assert all(np.any(np.asarray(g)) for g in grads)
  assert 'proxy/anchors' not in aux
  # A node or a proxy that no triplet names included.
  for lost in ((z.at[0, 0].set(jnp.nan), v), (z, v.at[0, 0].set(jnp.nan))):
    assert np.isnan(program(**options, proxy_term=0)(*lost)[0][0])


def recorded(monkeypatch, function, *args, **options):
  """What the function mines, its triplets of the data, and its result."""
  found, mine = [], mined.mine

  def spy(*args, **kwargs):
    found.append(mine(*args, **kwargs))
    return found[-1]

  monkeypatch.setattr(mined, 'mine', spy)
  result = function(*args, **options)
  monkeypatch.setattr(mined, 'mine', mine)
  return found[0][0], result


def test_order_and_cone_are_costs_of_the_librarys_picks(monkeypatch):
  z, labels, v = batch()
  triplets, (loss, _) = recorded(
    monkeypatch,
    variants.hier_star,
    *(KEY, z, labels, v),
    **SMALL,
    **COSTS,
    proxy_term=0,
  )
  (jitted, _), _ = program(**COSTS, proxy_term=0)(z, v)
  np.testing.assert_allclose(loss, jitted, rtol=1e-5)
  rho = poincare.to_ball(v, c=0.1, clip_radius=2.3)
  x, p = (np.asarray(a, np.float64) for a in (z, rho))
  sq = ((x[:, None] - p[None]) ** 2).sum(-1)
  gap_x, gap_p = (1 - 0.1 * (a**2).sum(1) for a in (x, p))
  dist = np.arccosh(1 + 0.2 * sq / np.outer(gap_x, gap_p)) / np.sqrt(0.1)
  r_x, r_p = (
    2 * np.arctanh(np.sqrt(0.1) * np.linalg.norm(a, axis=1)) / np.sqrt(0.1)
    for a in (x, p)
  )
  cost = dist * (1 + 0.7 * np.maximum(r_p[None] - r_x[:, None] + 0.3, 0))
  cost += 0.2 * np.asarray(ancestors.cone_energy(z, rho, 0.1, 0.3))
  want, _ = losses.lca(KEY, jnp.float32(cost), triplets, estimator='argmax')
  np.testing.assert_allclose(loss, want, rtol=1e-4)


def test_plain_triplet_pays_on_the_same_triplets(monkeypatch):
  z, labels, v = batch()
  of_hier, _ = jax.jit(
    lambda z: recorded(
      monkeypatch, variants.hier_star, KEY, z, labels, v, **SMALL, proxy_term=0
    )
  )(z)
  triplets, (loss, aux) = jax.jit(
    lambda z: recorded(
      monkeypatch,
      variants.mined_triplet,
      *(KEY, z, labels),
      **SMALL,
      margin=0.4,
    )
  )(z)
  for a, b in zip(of_hier, triplets, strict=True):
    np.testing.assert_array_equal(a, b)
  dist = np.asarray(poincare.dist_matrix(z, z, c=0.1), np.float64)
  i, j, k, weight = map(np.asarray, triplets)
  paid = np.maximum(dist[i, j] - dist[i, k] + 0.4, 0)
  assert weight.sum() > 0 and np.any(paid * weight > 0)
  np.testing.assert_allclose(loss, (paid * weight).sum() / weight.sum(), 1e-5)
  same = weight @ (labels[i] == labels[j]) / weight.sum()
  np.testing.assert_allclose(aux['data/same_class'], same, rtol=1e-5)


@pytest.mark.parametrize('c', [0.1, 0.0, None])
def test_plain_triplet_compiles_moves_data_and_tells_of_nan(c):
  z, labels, _ = batch(c)

  @functools.partial(jax.value_and_grad, has_aux=True)
  def f(z, k, margin):
    return variants.mined_triplet(
      KEY, z, labels, c=c, k=k, k_max=8, margin=margin, triplets_per_anchor=4
    )

  (loss, aux), grad = jax.jit(f)(z, 6, 0.5)
  chex.assert_tree_all_finite((loss, aux, grad))
  assert loss > 0 and np.any(np.asarray(grad))
  assert np.isnan(jax.jit(f)(z.at[0, 0].set(jnp.nan), 6, 0.5)[0][0])


def test_gradients_are_scaled_apart():
  z, labels, v = batch()

  @jax.jit
  @functools.partial(jax.value_and_grad, argnums=(0, 1), has_aux=True)
  def f(z, v, encoder, proxies):
    return variants.hier_star(
      *(KEY, z, labels, v),
      **SMALL,
      proxy_term=0,
      encoder_gradient=encoder,
      proxy_gradient=proxies,
    )

  (loss, _), (by_z, by_v) = program(proxy_term=0)(z, v)
  for encoder, proxies_ in ((0.0, 0.5), (2.0, 0.0)):
    (same, _), (got_z, got_v) = f(z, v, encoder, proxies_)
    np.testing.assert_allclose(same, loss, rtol=1e-6)
    np.testing.assert_allclose(got_z, encoder * by_z, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(got_v, proxies_ * by_v, rtol=1e-5, atol=1e-7)


def test_memory_and_given_similarities_enter_the_loss():
  z, labels, v = batch()
  past = losses.enqueue(losses.init_memory(20, DIM), 0.9 * z[:16], labels[:16])

  @jax.jit
  def f(similarity, memory=None):
    return variants.hier_star(
      *(KEY, z, labels, v),
      **SMALL,
      proxy_term=0,
      similarity=similarity,
      memory=memory,
    )

  (own, _), _ = program(proxy_term=0)(z, v)
  given, _ = f(mined.similarity_of(z, 0.1))
  np.testing.assert_allclose(given, own, rtol=1e-6)
  teacher, _ = f(mined.similarity_of(z[:, ::-1] ** 3, 0.1))
  more, aux = f(None, past)
  assert np.isfinite(more)
  assert len({float(given), float(teacher), float(more)}) == 3
  chex.assert_tree_all_finite(aux)
  assert np.isnan(f(jnp.full((N, N), jnp.nan))[0])


def test_bad_input_is_named():
  z, labels, v = batch()
  call = functools.partial(variants.hier_star, KEY, z, labels, v)
  with pytest.raises(
    ValueError, match=r'k is 6\.0, not a Python int: give k_max'
  ):
    call(k=6.0)
  with pytest.raises(ValueError, match=r'cone is 1\.0 with c=0'):
    call(k=6, cone=1.0, c=0)
  with pytest.raises(ValueError, match=r'order is 1\.0 with c=None'):
    call(k=6, order=1.0, c=None)
  with pytest.raises(ValueError, match='estimator is'):
    call(k=6, estimator='hard', barred=True)
  with pytest.raises(ValueError, match=r'labels \(35,\), expected'):
    variants.hier_star(KEY, z, labels[1:], v, k=6)
