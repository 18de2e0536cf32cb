"""HIER against official vectors, float64 oracles and itself in pieces."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import losses, poincare
from hier_jax.triplets import Triplets
from tests import vectors


def official_triplets(arrays, term):
  i, j, k = arrays[f'{term}/ijk'].astype(np.int32)
  return Triplets(
    anchor=i, positive=j, negative=k, weight=np.ones(len(i), np.float32)
  )


def official_noise(arrays, term):
  return jnp.stack([arrays[f'{term}/noise0'], arrays[f'{term}/noise1']])


def full_noise(arrays, term):
  """Whether the noise of every triplet is stored, not of some alone."""
  return len(arrays[f'{term}/noise0']) == arrays[f'{term}/ijk'].shape[1]


def oracle(dist, triplets, noise, tau, margin):
  """Loss and gradient in float64, one triplet at a time, from RECIPE 4."""
  dist = dist.astype(np.float64)
  grad, total = np.zeros_like(dist), 0.0
  valid = 0
  rows = zip(triplets.anchor, triplets.positive, triplets.negative, strict=True)
  for n, (i, j, k) in enumerate(rows):
    m = np.maximum(dist[i], dist[j])
    far = np.maximum(m, dist[k])
    picks = []
    for logits in (noise[0][n] - m / tau, noise[1][n] - far / tau):
      soft = np.exp(logits - logits.max())
      picks.append((np.argmax(logits), soft / soft.sum()))
    (a, soft_a), (b, soft_b) = picks
    if a == b:
      continue
    valid += 1
    dy = np.zeros(dist.shape[1])
    for row, sign in ((i, 1), (j, 1), (k, -1)):
      h = sign * (dist[row, a] - dist[row, b]) + margin
      if h > 0:
        total += h
        grad[row, a] += sign
        grad[row, b] -= sign
        dy += sign * dist[row]
    # Through the softmaxes: d loss / d pick = dy for ij and -dy for ijk.
    g_m = -soft_a * (dy - soft_a @ dy) / tau
    g_far = soft_b * (dy - soft_b @ dy) / tau
    k_far = dist[k] > m
    np.add.at(grad[k], np.flatnonzero(k_far), g_far[k_far])
    g_m = g_m + np.where(k_far, 0, g_far)
    j_far = dist[j] > dist[i]
    np.add.at(grad[j], np.flatnonzero(j_far), g_m[j_far])
    np.add.at(grad[i], np.flatnonzero(~j_far), g_m[~j_far])
  return total, grad, valid


def random_case(seed=0, n=30, proxies=17, count=950):
  rng = np.random.default_rng(seed)
  dist = rng.uniform(0.5, 3, (n, proxies)).astype(np.float32)
  rows = rng.integers(0, n, (3, count)).astype(np.int32)
  # No row twice in a triplet: a maximum of equals has no one derivative.
  rows[1] = (rows[0] + 1 + rows[1] % (n - 2)) % n
  rows[2] = np.where(
    (rows[2] == rows[0]) | (rows[2] == rows[1]), (rows[0] - 1) % n, rows[2]
  )
  rows[2] = np.where(rows[2] == rows[1], (rows[0] - 2) % n, rows[2])
  noise = rng.gumbel(size=(2, count, proxies)).astype(np.float32)
  i, j, k = rows
  weight = np.ones(count, np.float32)
  return dist, Triplets(anchor=i, positive=j, negative=k, weight=weight), noise


@pytest.mark.parametrize('jit', [False, True], ids=['eager', 'jit'])
@pytest.mark.parametrize('normalise_by', ['all', 'valid'])
def test_lca_loss_matches_float64_oracle(normalise_by, jit):
  # More than two chunks, the last one partly filled.
  dist, triplets, noise = random_case()
  f = lambda dist: losses.lca_loss(
    noise, dist, triplets, tau=0.3, margin=0.2, normalise_by=normalise_by
  )
  f = jax.value_and_grad(f, has_aux=True)
  (loss, stats), grad = (jax.jit(f) if jit else f)(dist)
  total, want, valid = oracle(dist, triplets, noise, 0.3, 0.2)
  count = len(triplets.weight)
  divisor = count if normalise_by == 'all' else valid
  np.testing.assert_allclose(loss, total / divisor, rtol=1e-5)
  vectors.assert_near(grad, want / divisor, 1e-5)
  np.testing.assert_allclose(stats['collision_rate'], 1 - valid / count, 1e-5)


def test_weight_zero_is_as_if_absent():
  dist, triplets, noise = random_case(count=500)
  keep = np.random.default_rng(1).random(500) < 0.4
  part = jax.tree.map(lambda a: a[keep], triplets)
  masked = triplets._replace(weight=keep.astype(np.float32))
  f = jax.value_and_grad(lambda d, t, noise: losses.lca_loss(noise, d, t)[0])
  got, want = f(dist, masked, noise), f(dist, part, noise[:, keep])
  jax.tree.map(
    functools.partial(vectors.assert_near, tolerance=1e-5), got, want
  )


@pytest.mark.parametrize('case', ['tiny', 'small', 'small_c1'])
@pytest.mark.parametrize('term', ['data', 'proxy'])
def test_lca_loss_matches_official_vectors(case, term):
  arrays = vectors.under(f'hier/{case}')
  assert full_noise(arrays, term)
  _, _, margin, tau, _, _, _ = arrays['meta']
  batch = len(arrays['z'])
  nodes = slice(0, batch) if term == 'data' else slice(batch, None)
  loss, _ = losses.lca_loss(
    official_noise(arrays, term),
    arrays['f64/dist'][nodes, batch:],
    official_triplets(arrays, term),
    tau=tau,
    margin=margin,
  )
  np.testing.assert_allclose(loss, arrays[f'f64/{term}/loss'], rtol=1e-5)


@pytest.mark.parametrize('case', ['tiny', 'small', 'small_c1'])
def test_whole_loss_matches_official_gradients(case):
  """Both terms from points to loss, as `hier` joins them."""
  arrays = vectors.under(f'hier/{case}')
  _, _, margin, tau, c, clip, _ = (float(a) for a in arrays['meta'])
  lca = functools.partial(losses.lca_loss, tau=tau, margin=margin)

  def loss(z, raw):
    rho = poincare.to_ball(raw, c=c, clip_radius=clip)
    total = 0.0
    for term, nodes in (('data', z), ('proxy', rho)):
      value, _ = lca(
        official_noise(arrays, term),
        poincare.dist_matrix(nodes, rho, c=c),
        official_triplets(arrays, term),
      )
      total += value
    return total

  value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(
    arrays['z'], arrays['lcas_raw']
  )
  # The official distances are up to 2e-5 too small in this range, and the
  # softmax at temperature tau magnifies that by d / tau.
  np.testing.assert_allclose(value, arrays['f64/loss'], rtol=1e-4)
  for got, name in zip(grads, ('z', 'lcas_raw'), strict=True):
    want = arrays[f'f64/grad/{name}']
    vectors.assert_near(got, want, 1e-3)


@functools.cache
def batch(n=48, dim=16, num_proxies=40):
  z = jax.random.normal(jax.random.key(1), (n, dim))
  proxies = losses.init_hierarchical_proxies(
    jax.random.key(2), num_proxies, dim
  )
  z = poincare.to_ball(z, c=0.1, clip_radius=2.3)
  return z, jnp.arange(n) // 4, proxies


SMALL = dict(k=6, triplets_per_anchor=10)


@pytest.mark.parametrize('c', [0.1, 1.0, 0])
def test_hier_is_finite_and_moves_data_and_proxies(c):
  z, labels, proxies = batch()
  z = z / jnp.linalg.norm(z, axis=1, keepdims=True) * (1.0 if c == 0 else 0.6)
  f = lambda z, v: losses.hier(jax.random.key(0), z, labels, v, c=c, **SMALL)
  (loss, aux), grads = jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(
    z, proxies
  )
  chex.assert_tree_all_finite((loss, aux, grads))
  assert loss > 0
  assert all(jnp.any(g != 0) for g in grads)


def test_hier_takes_bfloat16_embeddings_and_computes_in_float32():
  z, labels, proxies = batch()
  z = z.astype(jnp.bfloat16)
  f = lambda z: losses.hier(jax.random.key(0), z, labels, proxies, **SMALL)[0]
  f = jax.jit(jax.value_and_grad(f))
  loss, grad = f(z)
  same, _ = f(z.astype(jnp.float32))
  assert loss.dtype == jnp.float32
  assert grad.dtype == jnp.bfloat16
  assert loss == same


def test_no_anchor_gives_zero_loss_and_zero_gradient():
  z, _, proxies = batch()
  f = lambda z, v: losses.hier(
    jax.random.key(0), z, jnp.arange(48), v, k=1, triplets_per_anchor=10
  )[0]
  loss, grads = jax.jit(jax.value_and_grad(f, (0, 1)))(z, proxies)
  assert loss == 0
  assert all(jnp.all(g == 0) for g in grads)


def sharded(devices):
  """Loss, gradient of the rows and of the proxies on so many devices."""
  z, labels, proxies = batch()

  def step(z, labels, v):
    f = lambda z, v: losses.hier(
      jax.random.key(0), z, labels, v, axis_name='i', **SMALL
    )[0]
    loss, (grad_z, grad_v) = jax.value_and_grad(f, (0, 1))(z, v)
    return jax.lax.pmean((loss, grad_v), 'i'), grad_z

  spread = lambda a: a.reshape(devices, -1, *a.shape[1:])
  mapped = jax.pmap(step, 'i', in_axes=(0, 0, None), axis_size=devices)
  (loss, grad_v), grad_z = mapped(spread(z), spread(labels), proxies)
  assert jnp.all(loss == loss[0])
  assert all(jnp.array_equal(g, grad_v[0]) for g in grad_v)
  # A row's gradient is counted once for each device that holds the loss.
  return loss[0], grad_z.reshape(z.shape) / devices, grad_v[0]


def test_results_do_not_depend_on_the_number_of_devices():
  one = sharded(1)
  for devices in (2, 4):
    near = functools.partial(vectors.assert_near, tolerance=1e-5)
    jax.tree.map(near, sharded(devices), one)
  z, labels, proxies = batch()
  f = lambda z, v: losses.hier(jax.random.key(0), z, labels, v, **SMALL)[0]
  loss, grads = jax.jit(jax.value_and_grad(f, (0, 1)))(z, proxies)
  jax.tree.map(near, (loss, *grads), one)


def test_memory_of_value_and_gradient():
  f = lambda z, v, labels, key: losses.hier(key, z, labels, v)[0]
  z, v = jnp.ones((180, 128)), jnp.ones((512, 128))
  labels, key = jnp.zeros(180, jnp.int32), jax.random.key(0)
  lowered = jax.jit(jax.value_and_grad(f, (0, 1))).lower(z, v, labels, key)
  analysis = lowered.compile().memory_analysis()
  assert analysis.temp_size_in_bytes <= 48e6


def test_one_trace_for_a_whole_run():
  z, labels, proxies = batch()
  chex.clear_trace_counter()
  f = jax.jit(
    chex.assert_max_traces(n=1)(
      lambda key, tau: losses.hier(key, z, labels, proxies, tau=tau, **SMALL)[0]
    )
  )
  values = {float(f(jax.random.key(s), 0.1 + 0.1 * s)) for s in range(3)}
  assert len(values) == 3


def test_picks_follow_the_softmax_of_the_distances():
  """LCA frequencies against softmax(-max(d_i, d_j) / tau)."""
  rng = np.random.default_rng(3)
  dist = rng.uniform(0, 0.5, (3, 6)).astype(np.float32)
  count = 100_000
  rows = [np.full(count, r, np.int32) for r in (0, 1, 1)]
  triplets = Triplets(
    anchor=rows[0],
    positive=rows[1],
    negative=rows[2],
    weight=np.ones(count, np.float32),
  )
  # With k = j both picks have the distribution of the pair (i, j).
  _, stats = jax.jit(lambda key: losses.lca_loss(key, dist, triplets, tau=0.2))(
    jax.random.key(0)
  )
  p = np.exp(-np.maximum(dist[0], dist[1]) / 0.2)
  p /= p.sum()
  sigma = np.sqrt(1 / count)
  assert abs(stats['collision_rate'] - np.sum(p**2)) < 4 * sigma
  perplexity = np.exp(-np.sum(p * np.log(p)))
  assert abs(stats['lca_perplexity'] - perplexity) < 20 * sigma


def test_bad_input_is_named():
  z, labels, proxies = batch()
  trace = lambda **kwargs: jax.eval_shape(
    lambda z, v: losses.hier(jax.random.key(0), z, labels, v, **kwargs),
    z,
    proxies,
  )
  with pytest.raises(ValueError, match=r"'mean'.*'all' or 'valid'"):
    trace(normalise_by='mean', **SMALL)
  with pytest.raises(ValueError, match='k = 49'):
    trace(k=49)
