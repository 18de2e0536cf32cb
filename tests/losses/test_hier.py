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

from hier_jax import losses, mining, poincare
from tests.losses.test_lca import official_noise, official_triplets
from tests.support import sharded as spread
from tests.support import vectors


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1))
def official_loss(z, raw, drawn, options):
  """Both terms of triplets and noise that are given."""
  margin, temperature, c, clip = options
  rho = poincare.to_ball(raw, c=c, clip_radius=clip)
  total = 0.0
  for nodes, (triplets, noise) in zip((z, rho), drawn, strict=True):
    value, _ = losses.lca(
      None,
      poincare.dist_matrix(nodes, rho, c=c),
      triplets,
      gumbel=noise,
      temperature=temperature,
      margin=margin,
    )
    total += value
  return total


@pytest.mark.optimized
@pytest.mark.parametrize(
  'case', ['tiny', pytest.param('small', marks=pytest.mark.slow), 'small_c1']
)
def test_whole_loss_matches_official_gradients(case):
  """Both terms from points to loss, as `hier` joins them."""
  arrays = vectors.under(f'hier/{case}')
  _, _, *options, _ = (float(a) for a in arrays['meta'])
  drawn = [
    (official_triplets(arrays, term), official_noise(arrays, term))
    for term in ('data', 'proxy')
  ]
  value, grads = official_loss(arrays['z'], arrays['lcas_raw'], drawn, options)
  # The official distances are up to 2e-5 too small in this range, and the
  # softmax at temperature t magnifies that by d / t.
  np.testing.assert_allclose(value, arrays['f64/loss'], rtol=1e-4)
  for got, name in zip(grads, ('z', 'lcas_raw'), strict=True):
    want = arrays[f'f64/grad/{name}']
    vectors.assert_near(got, want, 1e-3)


# They do not divide among devices.
PROXIES = 41


@functools.cache
def batch(n=48, dim=16, num_proxies=PROXIES):
  z = jax.random.normal(jax.random.key(1), (n, dim))
  proxies = losses.init_hier_proxies(jax.random.key(2), num_proxies, dim)
  z = poincare.to_ball(z, c=0.1, clip_radius=2.3)
  return z, jnp.arange(n) // 4, proxies


KEY = jax.random.key(0)
SMALL = dict(k=6, triplets_per_anchor=10)


@functools.cache
def program(**options):
  """Loss, aux and gradients by z and the proxies, in one program."""

  def f(z, v, labels, key, temperature):
    return losses.hier(
      key, z, labels, v, temperature=temperature, **SMALL | options
    )

  f = jax.jit(jax.value_and_grad(f, (0, 1), has_aux=True))

  def run(z, labels, v, key=KEY, temperature=0.1):
    (loss, aux), grads = jax.device_get(f(z, v, labels, key, temperature))
    return loss, aux, grads

  return run


def values(**options):
  """Loss and aux of the batch, in a program without gradients."""
  f = lambda z, labels, v: losses.hier(KEY, z, labels, v, **SMALL | options)
  return jax.device_get(jax.jit(f)(*batch()))


@pytest.mark.optimized
@pytest.mark.slow
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_distances_of_many_rows_to_few_are_those_of_few_to_many(dtype):
  """Whichever way round they are made; gradients too, but for rounding.

  A compiler may contract and order two programs in two ways: some units in the
  last place of a distance, of a sum of gradients as a share of the largest.
  """
  z = batch()[0].astype(dtype)
  f = functools.partial(poincare.dist_matrix, c=0.1)

  @jax.jit
  def slopes(x, y):
    total = lambda x, y: (lambda d: (jnp.sum(d), d))(f(x, y))
    return jax.grad(total, (0, 1), has_aux=True)(x, y)

  (many_z, many_few), many = slopes(z, z[:5])
  (few_few, few_z), few = slopes(z[:5], z)
  tolerance = 16 * float(jnp.finfo(dtype).eps)
  for got, want in (
    (few_z, many_z),
    (few_few, many_few),
    (few.T, many),
    (f(z[:5], z).T, f(z, z[:5])),
  ):
    vectors.assert_near(got, want, tolerance)


@pytest.mark.slow
def test_what_a_gpu_is_given_computes_the_same(monkeypatch):
  want, _, want_grads = program()(*batch())
  jax.clear_caches()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  got, _, grads = program.__wrapped__()(*batch())
  monkeypatch.undo()
  jax.clear_caches()
  np.testing.assert_allclose(got, want, rtol=1e-6)
  near = functools.partial(vectors.assert_near, tolerance=1e-5)
  jax.tree.map(near, grads, want_grads)


FLAT = dict(c=0, clip_radius=0.3)


@pytest.mark.parametrize('options', [{}, FLAT, {'c': None}])
def test_hier_is_finite_and_moves_data_and_proxies(options):
  z, labels, proxies = batch()
  c = options.get('c', 0.1)
  z = z / jnp.linalg.norm(z, axis=1, keepdims=True) * (0.6 if c else 1.0)
  loss, aux, grads = program(**options)(z, labels, proxies)
  chex.assert_tree_all_finite((loss, aux, grads))
  assert loss > 0
  assert all(np.any(g != 0) for g in grads)


@pytest.mark.parametrize(
  'options',
  [
    FLAT,
    pytest.param(dict(c=0, clip_radius=None), marks=pytest.mark.slow),
  ],
)
def test_at_curvature_zero_hier_is_the_limit_of_small_ones(options):
  loss, aux, _ = program(**options)(*batch())
  near, same = values(**options | {'c': 1e-9})
  np.testing.assert_allclose(loss, near, rtol=1e-4)
  assert aux.keys() == same.keys()
  clips = options['clip_radius'] is not None
  assert ('proxy/clipped' in aux) == clips
  if clips:
    assert aux['proxy/clipped'] == same['proxy/clipped']
    # All of them: a share is some 41st.
    np.testing.assert_allclose(aux['proxy/clipped'], 1, rtol=1e-6)


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
  loss, _, (grad, _) = program()(z, labels, proxies)
  same, _, _ = program()(z.astype(jnp.float32), labels, proxies)
  assert loss.dtype == jnp.float32
  assert grad.dtype == jnp.bfloat16
  np.testing.assert_allclose(loss, same, rtol=1e-6)


def test_no_anchor_gives_zero_loss_and_zero_gradient():
  z, _, proxies = batch()
  loss, _, grads = program(k=1)(z, jnp.arange(48), proxies)
  assert loss == 0
  assert all(np.all(g == 0) for g in grads)


@pytest.mark.parametrize(
  'estimator',
  [
    'softmax',
    pytest.param('gumbel_rao', marks=pytest.mark.slow),
    pytest.param('argmax', marks=pytest.mark.slow),
  ],
)
def test_other_estimators_move_data_and_proxies(estimator):
  f = program(estimator=estimator)
  loss, _, grads = f(*batch(), temperature=0.5)
  chex.assert_tree_all_finite((loss, grads))
  assert all(np.any(g != 0) for g in grads)


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
  # Takes scalars alone.
  monkeypatch.setattr(module.numerics, 'made_once', lambda *arrays: arrays)
  z, labels, proxies = batch()

  _, official = values(exclude_self_lca=False)
  # Not of the cache: the spy is in it.
  excluding = program.__wrapped__(exclude_self_lca=True)
  loss, aux, grads = excluding(z, labels, proxies)
  chex.assert_tree_all_finite((loss, grads))
  equal = functools.partial(np.testing.assert_allclose, rtol=1e-6)
  equal(aux['data/dist'], official['data/dist'])
  among, diagonal = aux['proxy/dist'], np.eye(PROXIES, dtype=bool)
  assert np.all(np.diag(official['proxy/dist']) == 0)
  # Beyond reach on the diagonal, the same elsewhere.
  assert np.all(np.diag(among) > 1e5)
  equal(among[~diagonal], official['proxy/dist'][~diagonal])
  with pytest.raises(ValueError, match='among 3 proxies'):
    losses.hier(KEY, z, labels, proxies[:3], exclude_self_lca=True, k=2)


def test_without_a_clip_nothing_is_clipped():
  def told(clip_radius):
    f = functools.partial(losses.hier, k=3, clip_radius=clip_radius)
    rows, labels = jnp.zeros((8, 4)), jnp.arange(8)
    return set(jax.eval_shape(f, jax.random.key(0), rows, labels, rows)[1])

  assert told(2.3) - told(None) == {'data/clipped', 'proxy/clipped'}


def test_monitoring_is_what_it_says():
  z, labels, proxies = batch()
  k = SMALL['k']
  _, aux, _ = program()(z, labels, proxies)
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
  assert 1 <= aux['data/lca_perplexity'] <= aux['data/lca_used'] <= PROXIES
  assert 0 < aux['data/collision_rate'] < 1
  told = lambda z, v: sum(losses.hier(KEY, z, labels, v, **SMALL)[1].values())
  for slope in jax.jit(jax.grad(told, (0, 1)))(z, proxies):
    assert not np.any(slope)


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
  z, labels, proxies = batch()

  def step(z, labels, v):
    f = lambda z, v: losses.hier(
      KEY, z, labels, v, axis_name='i', **SMALL | options
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


def assert_like_one_device(got, **options):
  *got, aux = got
  loss, want_aux, grads = program(**options)(*batch())
  near = functools.partial(vectors.assert_near, tolerance=1e-6)
  jax.tree.map(near, got, [loss, *grads])
  chex.assert_trees_all_close(aux, want_aux, rtol=1e-5)


@pytest.mark.parametrize(
  ('devices', 'mapped'),
  [
    (4, 'pmap'),
    pytest.param(2, 'shard_map', marks=pytest.mark.slow),
    pytest.param(8, 'vmap', marks=pytest.mark.slow),
    pytest.param(4, 'checked', marks=pytest.mark.slow),
  ],
)
def test_results_do_not_depend_on_the_number_of_devices(devices, mapped):
  assert_like_one_device(sharded(devices, mapped))


@pytest.mark.optimized
@pytest.mark.slow
def test_distances_of_few_rows_give_the_loss_of_all(monkeypatch):
  module, rows = importlib.import_module('hier_jax.losses._hier'), []

  lca_losses = module.lca_losses

  def spy(*args, **kwargs):
    rows.extend(kwargs['rows'])
    return lca_losses(*args, **kwargs)

  monkeypatch.setattr(module, 'lca_losses', spy)
  options = dict(triplets_per_anchor=6, exclude_self_lca=True)
  got = sharded(16, 'vmap', **options)
  # 3 (1 + 6 + 6) of 48 rows and of 41 proxies.
  assert set(rows) == {39}
  assert_like_one_device(got, **options)


def collectives(devices, n, dim):
  """Bytes that cross devices in value and gradient, from the compiled HLO."""

  def step(z, labels, v):
    f = lambda z, v: losses.hier(KEY, z, labels, v, axis_name='i', **SMALL)[0]
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
  n, dim = 256, 32
  # z and its gradient (all-reduced over CPU devices), labels, the neighbors
  # of the data and of the proxies, and some scalars and counts of the picks.
  allowed = 4 * (2 * n * dim + n + k * (n + proxies) + 2 * proxies + 64)
  assert collectives(4, n, dim) <= allowed


@pytest.mark.parametrize('devices', [1, 2])
def test_the_neighbors_of_one_device_are_mined_at_once(monkeypatch, devices):
  at_once, calls = mining.neighbors_in_sets, []

  def spy(*args):
    calls.append(args)
    return at_once(*args)

  monkeypatch.setattr(mining, 'neighbors_in_sets', spy)
  z, labels, proxies = batch()
  f = lambda z, labels: losses.hier(
    KEY, z, labels, proxies, axis_name='i', **SMALL
  )
  rows = [spread.rows_over(devices, a) for a in (z, labels)]
  jax.eval_shape(jax.vmap(f, axis_name='i'), *rows)
  assert bool(calls) == (devices == 1)


@pytest.mark.optimized
def test_memory_of_value_and_gradient():
  f = lambda z, v, labels, key: losses.hier(key, z, labels, v)[0]
  z, v = jnp.ones((180, 128)), jnp.ones((512, 128))
  labels, key = jnp.zeros(180, jnp.int32), jax.random.key(0)
  lowered = jax.jit(jax.value_and_grad(f, (0, 1))).lower(z, v, labels, key)
  compiled = lowered.compile()
  assert compiled.memory_analysis().temp_size_in_bytes <= 48e6
  # On a CPU it takes as long to compile as it has kernels.
  if jax.default_backend() == 'cpu':
    assert compiled.as_text().count(' fusion(') < 160


def test_key_and_temperature_are_arguments_of_a_program():
  values = [
    float(program()(*batch(), jax.random.key(s), t)[0])
    for s, t in ((0, 0.1), (1, 0.1), (0, 0.2))
  ]
  assert len(set(values)) == 3


def test_bad_input_is_named():
  z, labels, proxies = batch()
  trace = lambda **kwargs: jax.eval_shape(
    lambda z, v: losses.hier(KEY, z, labels, v, **kwargs),
    z,
    proxies,
  )
  with pytest.raises(ValueError, match=r"'mean'.*'all' or 'valid'"):
    trace(normalize_by='mean', **SMALL)
  with pytest.raises(ValueError, match='k = 49'):
    trace(k=49)
