"""HIER against official vectors, and itself in pieces and on devices."""

import functools
import importlib
import math
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import losses, poincare
from tests.losses.test_lca import official_noise, official_triplets
from tests.support import sharded as spread
from tests.support import vectors


@pytest.mark.optimized
@pytest.mark.parametrize('case', ['tiny', 'small', 'small_c1'])
def test_whole_loss_matches_official_gradients(case):
  """Both terms from points to loss, as `hier` joins them."""
  arrays = vectors.under(f'hier/{case}')
  _, _, margin, temperature, c, clip, _ = (float(a) for a in arrays['meta'])
  lca = functools.partial(losses.lca, temperature=temperature, margin=margin)

  def loss(z, raw):
    rho = poincare.to_ball(raw, c=c, clip_radius=clip)
    total = 0.0
    for term, nodes in (('data', z), ('proxy', rho)):
      value, _ = lca(
        None,
        poincare.dist_matrix(nodes, rho, c=c),
        official_triplets(arrays, term),
        gumbel=official_noise(arrays, term),
      )
      total += value
    return total

  value, grads = jax.jit(jax.value_and_grad(loss, (0, 1)))(
    arrays['z'], arrays['lcas_raw']
  )
  # The official distances are up to 2e-5 too small in this range, and the
  # softmax at temperature t magnifies that by d / t.
  np.testing.assert_allclose(value, arrays['f64/loss'], rtol=1e-4)
  for got, name in zip(grads, ('z', 'lcas_raw'), strict=True):
    want = arrays[f'f64/grad/{name}']
    vectors.assert_near(got, want, 1e-3)


@functools.cache
def batch(n=48, dim=16, num_proxies=40):
  z = jax.random.normal(jax.random.key(1), (n, dim))
  proxies = losses.init_hier_proxies(jax.random.key(2), num_proxies, dim)
  z = poincare.to_ball(z, c=0.1, clip_radius=2.3)
  return z, jnp.arange(n) // 4, proxies


SMALL = dict(k=6, triplets_per_anchor=10)


@pytest.mark.optimized
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_distances_of_many_rows_to_few_are_those_of_few_to_many(dtype):
  """Whichever way round they are made; gradients too, but for rounding.

  A compiler may contract and order two programs in two ways: some units in the
  last place of a distance, of a sum of gradients as a share of the largest.
  """
  z = batch()[0].astype(dtype)
  f = functools.partial(poincare.dist_matrix, c=0.1)
  for run in (lambda g: g, jax.jit):
    for g in (f, jax.grad(lambda x, y: jnp.sum(f(x, y)), (0, 1))):
      many = run(g)(z, z[:5])
      few = run(g)(z[:5], z)
      few = few[::-1] if isinstance(few, tuple) else few.T
      tolerance = 16 * float(jnp.finfo(dtype).eps)
      for got, want in zip(*map(jax.tree.leaves, (many, few)), strict=True):
        vectors.assert_near(got, want, tolerance)


def test_what_a_gpu_is_given_computes_the_same(monkeypatch):
  z, labels, proxies = batch()

  def run():
    jax.clear_caches()
    f = lambda z, v: losses.hier(jax.random.key(0), z, labels, v, **SMALL)
    return jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(z, proxies)

  (want, _), want_grads = run()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  (got, _), grads = run()
  monkeypatch.undo()
  jax.clear_caches()
  np.testing.assert_allclose(got, want, rtol=1e-6)
  near = functools.partial(vectors.assert_near, tolerance=1e-5)
  jax.tree.map(near, grads, want_grads)


@pytest.mark.parametrize('c', [0.1, 1.0, 0, None])
def test_hier_is_finite_and_moves_data_and_proxies(c):
  z, labels, proxies = batch()
  z = z / jnp.linalg.norm(z, axis=1, keepdims=True) * (0.6 if c else 1.0)
  f = lambda z, v: losses.hier(jax.random.key(0), z, labels, v, c=c, **SMALL)
  (loss, aux), grads = jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(
    z, proxies
  )
  chex.assert_tree_all_finite((loss, aux, grads))
  assert loss > 0
  assert all(jnp.any(g != 0) for g in grads)


@pytest.mark.parametrize('clip_radius', [0.3, None])
def test_at_curvature_zero_hier_is_the_limit_of_small_ones(clip_radius):
  z, labels, proxies = batch()
  f = lambda c: losses.hier(
    jax.random.key(0), z, labels, proxies, c=c, clip_radius=clip_radius, **SMALL
  )
  (loss, aux), (near, same) = f(0), f(1e-9)
  np.testing.assert_allclose(loss, near, rtol=1e-4)
  assert aux.keys() == same.keys()
  assert ('proxy/clipped' in aux) == (clip_radius is not None)
  if clip_radius is not None:
    assert aux['proxy/clipped'] == same['proxy/clipped'] == 1


def test_proxies_begin_near_the_clip_if_there_is_one():
  norms = lambda radius: jnp.linalg.norm(
    losses.init_hier_proxies(jax.random.key(0), 9, 400, clip_radius=radius),
    axis=1,
  )
  np.testing.assert_allclose(norms(1.0), 0.9, rtol=0.15)
  np.testing.assert_array_equal(norms(None), norms(poincare.CLIP_RADIUS))


def test_hier_takes_bfloat16_embeddings_and_computes_in_float32():
  z, labels, proxies = batch()
  z = z.astype(jnp.bfloat16)
  f = lambda z: losses.hier(jax.random.key(0), z, labels, proxies, **SMALL)[0]
  f = jax.jit(jax.value_and_grad(f))
  loss, grad = f(z)
  same, _ = f(z.astype(jnp.float32))
  assert loss.dtype == jnp.float32
  assert grad.dtype == jnp.bfloat16
  np.testing.assert_allclose(loss, same, rtol=1e-6)


def test_no_anchor_gives_zero_loss_and_zero_gradient():
  z, _, proxies = batch()
  f = lambda z, v: losses.hier(
    jax.random.key(0), z, jnp.arange(48), v, k=1, triplets_per_anchor=10
  )[0]
  loss, grads = jax.jit(jax.value_and_grad(f, (0, 1)))(z, proxies)
  assert loss == 0
  assert all(jnp.all(g == 0) for g in grads)


@pytest.mark.parametrize('estimator', ['gumbel_rao', 'softmax', 'argmax'])
def test_other_estimators_move_data_and_proxies(estimator):
  z, labels, proxies = batch()
  f = lambda z, v, temperature: losses.hier(
    jax.random.key(0),
    z,
    labels,
    v,
    temperature=temperature,
    estimator=estimator,
    **SMALL,
  )[0]
  loss, grads = jax.jit(jax.value_and_grad(f, (0, 1)))(z, proxies, 0.5)
  chex.assert_tree_all_finite((loss, grads))
  assert all(jnp.any(g != 0) for g in grads)


@pytest.mark.optimized
def test_a_proxy_is_not_its_own_ancestor_where_excluded(monkeypatch):
  # `losses.hier` is the function of that name.
  module = importlib.import_module('hier_jax.losses._hier')
  lca_losses = module.lca_losses

  def spy(noise, dist, triplets, *, rows, **kwargs):
    terms = lca_losses(noise, dist, triplets, rows=rows, **kwargs)
    each = jnp.split(dist, np.cumsum(rows)[:-1])
    return [
      (value, stats | {'dist': d})
      for (value, stats), d in zip(terms, each, strict=True)
    ]

  monkeypatch.setattr(module, 'lca_losses', spy)
  z, labels, proxies = batch()

  @functools.partial(jax.jit, static_argnums=1)
  def f(v, exclude):
    loss = lambda v: losses.hier(
      jax.random.key(0), z, labels, v, exclude_self_lca=exclude, **SMALL
    )
    return jax.value_and_grad(loss, has_aux=True)(v)

  (_, official), _ = f(proxies, False)
  (loss, aux), grad = f(proxies, True)
  chex.assert_tree_all_finite((loss, grad))
  equal = functools.partial(np.testing.assert_allclose, rtol=1e-6)
  equal(aux['data/dist'], official['data/dist'])
  among, diagonal = aux['proxy/dist'], jnp.eye(40, dtype=bool)
  assert jnp.all(jnp.diag(official['proxy/dist']) == 0)
  # Beyond reach on the diagonal, the same elsewhere.
  assert jnp.all(jnp.diag(among) > 1e5)
  equal(among[~diagonal], official['proxy/dist'][~diagonal])
  with pytest.raises(ValueError, match='among 3 proxies'):
    losses.hier(
      jax.random.key(0), z, labels, proxies[:3], exclude_self_lca=True, k=2
    )


def test_without_a_clip_nothing_is_clipped():
  def told(clip_radius):
    f = functools.partial(losses.hier, k=3, clip_radius=clip_radius)
    rows, labels = jnp.zeros((8, 4)), jnp.arange(8)
    return set(jax.eval_shape(f, jax.random.key(0), rows, labels, rows)[1])

  assert told(2.3) - told(None) == {'data/clipped', 'proxy/clipped'}


def test_monitoring_is_what_it_says():
  z, labels, proxies = batch()
  k = SMALL['k']
  _, aux = jax.jit(
    lambda z: losses.hier(jax.random.key(0), z, labels, proxies, **SMALL)
  )(z)
  rho = poincare.to_ball(proxies, c=0.1, clip_radius=2.3)
  norm = np.linalg.norm(np.asarray(proxies), axis=1)
  for name, nodes in (('data', z), ('proxy', rho)):
    d = np.asarray(poincare.dist_matrix(nodes, nodes, c=0.1), np.float64)
    if name == 'data':
      d -= 100 * (np.asarray(labels)[:, None] == np.asarray(labels)[None])
      np.fill_diagonal(d, -1000)
    near = [set(row) for row in np.argsort(d, 1, kind='stable')[:, :k]]
    neighbors = [
      {j for j in near[i] if i in near[j] and j != i} for i in range(len(d))
    ]
    count = np.array([len(s) for s in neighbors])
    np.testing.assert_allclose(aux[f'{name}/anchors'], np.mean(count >= 2))
    np.testing.assert_allclose(aux[f'{name}/no_neighbors'], np.mean(count == 0))
    radius = np.linalg.norm(np.asarray(nodes), axis=1).mean()
    np.testing.assert_allclose(aux[f'{name}/radius'], radius, rtol=1e-6)
    if name == 'data':
      same = np.mean(
        [
          np.mean([labels[j] == labels[i] for j in s])
          for i, s in enumerate(neighbors)
          if len(s) >= 2
        ]
      )
      # Drawn with replacement from the neighbors, 10 of each of 48.
      assert abs(aux['data/same_class'] - same) < 4 * 0.5 / 480**0.5
  np.testing.assert_allclose(
    aux['proxy/clipped'], np.mean(norm > 2.3 * (1 - 2**-7))
  )
  assert 0 < aux['proxy/clipped'] < 1
  assert aux['data/clipped'] > 0.9
  assert 1 <= aux['data/lca_perplexity'] <= aux['data/lca_used'] <= 40
  assert 0 < aux['data/collision_rate'] < 1
  assert not any(
    jnp.any(g)
    for g in jax.tree.leaves(
      jax.jacrev(
        lambda z: losses.hier(jax.random.key(0), z, labels, proxies, **SMALL)[1]
      )(z)
    )
  )


def shard_map(step, devices, check_vma=False):
  """step(z, labels, proxies) -> (what all devices share, own rows)."""
  mesh = jax.make_mesh(
    (devices,), ('i',), axis_types=(jax.sharding.AxisType.Auto,)
  )
  rows, whole = jax.P('i'), jax.P()
  return jax.jit(
    jax.shard_map(
      step,
      mesh=mesh,
      in_specs=(rows, rows, whole),
      out_specs=(whole, rows),
      check_vma=check_vma,
    )
  )


def sharded(devices, mapped, **options):
  """Loss, gradient of the rows and of the proxies on so many devices."""
  # 41 proxies do not divide among devices.
  z, labels, proxies = batch(num_proxies=41)

  def step(z, labels, v):
    f = lambda z, v: losses.hier(
      jax.random.key(0), z, labels, v, axis_name='i', **SMALL | options
    )
    (loss, aux), (grad_z, grad_v) = jax.value_and_grad(f, (0, 1), has_aux=True)(
      z, v
    )
    if mapped == 'checked':
      return (loss, grad_v, aux), grad_z * devices
    return jax.lax.pmean((loss, grad_v, aux), 'i'), grad_z

  if mapped in ('shard_map', 'checked'):
    run = shard_map(step, devices, check_vma=mapped == 'checked')
    (loss, grad_v, aux), grad_z = run(z, labels, proxies)
  else:
    # More devices than are here: an axis of one device's own.
    run = spread.mapped(step, devices, in_axes=(0, 0, None))
    rows = [spread.rows_over(devices, a) for a in (z, labels)]
    whole, grad_z = run(*rows, proxies)
    loss, grad_v, aux = jax.tree.map(lambda a: a[0], whole)
  # A row's gradient is counted once for each device that holds the loss.
  return loss, grad_z.reshape(z.shape) / devices, grad_v, aux


@functools.cache
def on_one_device(**options):
  z, labels, proxies = batch(num_proxies=41)
  f = lambda z, v: losses.hier(
    jax.random.key(0), z, labels, v, **SMALL | options
  )
  (loss, aux), grads = jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))(
    z, proxies
  )
  return loss, *grads, aux


@pytest.mark.parametrize(
  ('devices', 'mapped'),
  [
    (1, 'pmap'),
    (2, 'pmap'),
    (4, 'pmap'),
    (8, 'vmap'),
    (4, 'shard_map'),
    (4, 'checked'),
  ],
)
def test_results_do_not_depend_on_the_number_of_devices(devices, mapped):
  *got, aux = sharded(devices, mapped)
  *want, want_aux = on_one_device()
  near = functools.partial(vectors.assert_near, tolerance=1e-6)
  jax.tree.map(near, got, want)
  chex.assert_trees_all_close(aux, want_aux, rtol=1e-5)


def test_distances_of_few_rows_give_the_loss_of_all(monkeypatch):
  module, rows = importlib.import_module('hier_jax.losses._hier'), []

  lca_losses = module.lca_losses

  def spy(*args, **kwargs):
    rows.extend(kwargs['rows'])
    return lca_losses(*args, **kwargs)

  monkeypatch.setattr(module, 'lca_losses', spy)
  options = dict(triplets_per_anchor=6, exclude_self_lca=True)
  *got, aux = sharded(16, 'vmap', **options)
  # 3 (1 + 6 + 6) of 48 rows and of 41 proxies.
  assert set(rows) == {39}
  *want, want_aux = on_one_device(**options)
  near = functools.partial(vectors.assert_near, tolerance=1e-6)
  jax.tree.map(near, got, want)
  chex.assert_trees_all_close(aux, want_aux, rtol=1e-5)


def collectives(devices, n, dim):
  """Bytes that cross devices in value and gradient, from the compiled HLO."""

  def step(z, labels, v):
    f = lambda z, v: losses.hier(
      jax.random.key(0), z, labels, v, axis_name='i', **SMALL
    )[0]
    loss, (grad_z, grad_v) = jax.value_and_grad(f, (0, 1))(z, v)
    return (loss, grad_v), grad_z

  lowered = shard_map(step, devices).lower(*batch(n, dim, num_proxies=64))
  text = lowered.compile().as_text()
  shapes = re.findall(
    r'= (.+?) (?:all-gather|all-reduce|reduce-scatter|all-to-all'
    r'|collective-permute)(?:-start)?\(',
    text,
  )
  assert shapes
  sizes = [
    4 * math.prod(int(n) for n in dims.split(',') if n)
    for shape in shapes
    for dims in re.findall(r'\w+\[([\d,]*)\]', shape)
  ]
  return sum(sizes)


def test_devices_exchange_embeddings_and_neighbors_alone():
  """O(B D): not B x B, B x P nor triplets x P."""
  k, proxies = SMALL['k'], 64
  for n, dim in ((64, 16), (256, 32)):
    # z and its gradient (all-reduced over CPU devices), labels, the neighbors
    # of the data and of the proxies, and some scalars and counts of the picks.
    allowed = 4 * (2 * n * dim + n + k * (n + proxies) + 2 * proxies + 64)
    assert collectives(4, n, dim) <= allowed


@pytest.mark.optimized
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
      lambda key, temperature: losses.hier(
        key, z, labels, proxies, temperature=temperature, **SMALL
      )[0]
    )
  )
  values = {float(f(jax.random.key(s), 0.1 + 0.1 * s)) for s in range(3)}
  assert len(values) == 3


def test_bad_input_is_named():
  z, labels, proxies = batch()
  trace = lambda **kwargs: jax.eval_shape(
    lambda z, v: losses.hier(jax.random.key(0), z, labels, v, **kwargs),
    z,
    proxies,
  )
  with pytest.raises(ValueError, match=r"'mean'.*'all' or 'valid'"):
    trace(normalize_by='mean', **SMALL)
  with pytest.raises(ValueError, match='k = 49'):
    trace(k=49)
