"""HIER whose anchors among the proxies are drawn, beside that of all."""

import functools
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import losses, mining, poincare
from hier_jax.losses import _hier, _hier_drawn
from tests.support import sharded, vectors

KEY = jax.random.key(0)
C = 0.1


def proxies(count, dim=6, equal=0):
  """Tangent vectors, of which some are equal, and their points."""
  tangent = losses.init_hier_proxies(jax.random.key(1), count, dim)
  tangent = tangent.at[count - equal :].set(tangent[:equal])
  return tangent, poincare.to_ball(tangent, c=C, clip_radius=2.3)


@pytest.mark.optimized
@pytest.mark.parametrize(
  ('c', 'count', 'drawn', 'equal'),
  [(C, 90, 9, 0), (C, 40, 12, 15), (None, 90, 9, 0)],
)
def test_neighbors_are_those_among_all_proxies_to_the_bit(
  c, count, drawn, equal
):
  k, (_, rho) = 6, proxies(count, equal=equal)

  @jax.jit
  def both(key, rho):
    dist = _hier._distance(rho, rho, c)
    some = _hier_drawn.draw(key, rho, drawn, k, c, _hier._distance, None)
    return mining.reciprocal_neighbors(jnp.exp(-dist), k), dist, some

  for seed in range(5):
    (want, number), dist, found = both(jax.random.key(seed), rho)
    index = np.append(found.proxies, count)
    rows, neighbors, size, _ = found.mined
    anchors = index[rows]
    assert len(set(anchors)) == drawn
    np.testing.assert_array_equal(size, number[anchors])
    np.testing.assert_array_equal(
      np.sort(index[np.minimum(neighbors, len(index) - 1)], 1), want[anchors]
    )
    # All of the neighbors have a row, which is that of the whole matrix.
    real = index[:-1] < count
    rows = dist[index[:-1][real]]
    np.testing.assert_allclose(found.dist[real], rows, rtol=1e-5, atol=1e-5)
    assert not np.any(found.dist[~real])


def every_triplet(similarity, k):
  """Each triplet that all proxies can draw, weighted by its chance."""
  neighbors, count = mining.reciprocal_neighbors(similarity, k)
  n, found = len(similarity), []
  for i, (row, size) in enumerate(zip(neighbors, count, strict=True)):
    near = row[:size].tolist()
    rest = sorted({*range(n)} - {*near, i})
    if size >= 2 and rest:
      share = 1 / (size * len(rest))
      pairs = itertools.product(near, rest)
      found += [(i, j, other, share) for j, other in pairs]
  *ijk, weight = zip(*found, strict=True)
  return mining.Triplets(*map(np.int32, ijk), np.float32(weight))


@pytest.mark.slow
def test_the_mean_over_draws_is_the_loss_of_all_and_its_gradient():
  """Within 4.5 standard errors of 6,000 draws, each a 20th of it or less."""
  count, k, drawn, draws = 12, 4, 5, 6000
  # Two groups and strangers: some have two neighbors in return, some have not.
  tangent, _ = proxies(count, dim=3)
  tangent = tangent.at[:8].multiply(0.2).at[4:8].add(1.0)
  points = functools.partial(poincare.to_ball, c=C, clip_radius=2.3)
  rho = points(tangent)
  triplets = every_triplet(jnp.exp(-poincare.dist_matrix(rho, rho, c=C)), k)
  anchors = len(set(triplets.anchor.tolist()))
  # So that every draw has an anchor, and not every proxy is one.
  assert count - drawn < anchors < count

  def of_all(tangent):
    rho = points(tangent)
    dist = poincare.dist_matrix(rho, rho, c=C)
    return losses.lca(KEY, dist, triplets, estimator='argmax')[0]

  def of_some(tangent, key):
    # Each of k embeddings has all others for neighbors: none is an anchor.
    z, labels = 0.1 * jnp.eye(k, 3), jnp.arange(k, dtype=jnp.int32)
    options = dict(k=k, triplets_per_anchor=4, estimator='argmax')
    return losses.hier(key, z, labels, tangent, proxy_anchors=drawn, **options)[
      0
    ]

  want = jax.tree.leaves(jax.value_and_grad(of_all)(tangent))
  keys = jax.random.split(KEY, draws)
  found = jax.jit(jax.vmap(jax.value_and_grad(of_some), (None, 0)))(
    tangent, keys
  )
  for values, mean in zip(jax.tree.leaves(found), want, strict=True):
    values = np.asarray(values, np.float64)
    error = values.std(0) / draws**0.5
    assert np.max(error) < 0.05 * np.max(np.abs(mean))
    away = np.abs(values.mean(0) - mean)
    assert np.all(away <= 4.5 * error + 1e-6), np.max(away / error)


def batch(n=16, dim=6):
  z = jax.random.normal(jax.random.key(2), (n, dim))
  return poincare.to_ball(z, c=C, clip_radius=2.3), jnp.arange(n) // 4


def step(z, labels, tangent, axis_name, **options):
  """Value with aux and gradients; 10 anchors, on any number of devices."""
  f = lambda z, tangent: losses.hier(
    KEY,
    z,
    labels,
    tangent,
    k=5,
    triplets_per_anchor=4,
    proxy_anchors=10,
    axis_name=axis_name,
    **options,
  )
  return jax.value_and_grad(f, (0, 1), has_aux=True)(z, tangent)


@pytest.mark.slow
@pytest.mark.parametrize('devices', [2, 4, 8])
def test_results_do_not_depend_on_the_number_of_devices(devices):
  (z, labels), (tangent, _) = batch(), proxies(41)
  options = dict(exclude_self_lca=True, self_negatives=devices == 2)
  one = functools.partial(step, axis_name=None, **options)
  (want, want_aux), wanted = jax.jit(one)(z, labels, tangent)
  many = functools.partial(step, axis_name='i', **options)
  mapped = sharded.mapped(many, devices, (0, 0, None))
  rows = [sharded.rows_over(devices, a) for a in (z, labels)]
  (got, aux), (by_z, by_proxies) = mapped(*rows, tangent)
  np.testing.assert_allclose(got, np.full(devices, want), rtol=1e-6)
  means = jnp.reshape(by_z, z.shape) / devices, jnp.mean(by_proxies, 0)
  for mean, grad in zip(means, wanted, strict=True):
    vectors.assert_near(mean, grad, 1e-6)
  first = jax.tree.map(lambda a: a[0], aux)
  chex.assert_trees_all_close(first, want_aux, rtol=1e-5)


def test_gradients_are_those_of_the_whole_matrix(monkeypatch):
  """Of rows in chunks, of which some are no points and some have none."""
  _, rho = proxies(23)
  index = jnp.array([4, 19, 23, 0, 7, 23, 11])
  monkeypatch.setattr(_hier_drawn, '_CHUNK', 2 * 23)
  by_dist = jax.random.normal(KEY, (7, 23)).at[jnp.array([2, 3, 5])].set(0.0)
  own = np.asarray(index) < 23

  def some(rho, c):
    return _hier_drawn.distances_of_rows(
      _hier._distance, 3, None, rho, c, index
    )[0]

  def whole(rho, c):
    return poincare.dist_matrix(rho[index[own]], rho, c=c)

  def slopes(f, by):
    value, pull = jax.vjp(f, rho, C)
    return value, *pull(by)

  got = jax.jit(functools.partial(slopes, some))(by_dist)
  want = jax.jit(functools.partial(slopes, whole))(by_dist[own])
  got = got[0][own], *got[1:]
  for a, b in zip(got, want, strict=True):
    vectors.assert_near(a, b, 1e-5)


def test_nothing_grows_with_the_square_of_the_proxies():
  (z, labels), (tangent, _) = batch(), proxies(97)
  program = jax.make_jaxpr(functools.partial(step, axis_name=None))
  assert '97,97]' not in str(program(z, labels, tangent))


def test_of_many_proxies_some_are_anchors():
  number = functools.partial(_hier_drawn.number, k=20)
  assert [number(None, p) for p in (1, 512, 513, 4096)] == [1, 512, 256, 256]
  assert [number(100, p) for p in (99, 100, 101)] == [99, 100, 100]
  for wrong, match in ((0, 'proxy_anchors is 0'), (20, '20 of 4096')):
    with pytest.raises(ValueError, match=match):
      number(wrong, 4096)


@pytest.mark.parametrize('name', ['proxy_anchors', 'k', 'triplets_per_anchor'])
@pytest.mark.parametrize('wrong', [2.5, '8', float('nan'), 0, -1, None])
def test_numbers_that_are_no_integers_are_refused(name, wrong):
  if (name, wrong) == ('proxy_anchors', None):
    return
  z, labels = jnp.zeros((8, 4)), jnp.arange(8) % 2
  options = {'k': 4, 'proxy_anchors': 6, name: wrong}
  call = functools.partial(losses.hier, jax.random.key(0), z, labels, **options)
  with pytest.raises(ValueError, match=f'{name} is {wrong!r}, expected a Py'):
    jax.eval_shape(call, jnp.ones((16, 4)))


def test_number_of_anchors_cannot_be_traced():
  with pytest.raises(ValueError, match='cannot be traced'):
    jax.eval_shape(lambda n: _hier_drawn.number(n, 16, 4), 6)
