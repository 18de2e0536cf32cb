"""The hyperboloid and the Klein model are the ball in other coordinates."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import lorentz, poincare
from tests.support import derivatives, exact_geometry

CURVATURES = (1e-6, 0.1, 1.0, 10.0, 1e4)
U = np.finfo(np.float32).eps / 2


def to_lorentz(x, c):
  """In long double."""
  gap = 1 - c * exact_geometry.dot(x, x)
  time = (1 + c * exact_geometry.dot(x, x)) / gap / np.sqrt(c)
  return np.concatenate([time, 2 * x / gap], -1)


@pytest.mark.optimized
@pytest.mark.parametrize('regime', exact_geometry.REGIMES)
@pytest.mark.parametrize('c', CURVATURES)
def test_conversions_keep_their_digits(c, regime):
  rng = np.random.default_rng(0)
  x = exact_geometry.ball(rng, 50, 16, c, regime)
  (wide,), true_c = exact_geometry.wide(x), exact_geometry.curvature(c)
  for f in (lorentz.from_poincare, jax.jit(lorentz.from_poincare)):
    above = f(x, c=c)
    assert exact_geometry.row_error(above, to_lorentz(wide, true_c)) <= 8 * U
  back = lorentz.to_poincare(above, c=c)
  assert exact_geometry.row_error(back, wide) <= 12 * U
  klein = 2 * wide / (1 + true_c * exact_geometry.dot(wide, wide))
  assert (
    exact_geometry.row_error(lorentz.poincare_to_klein(x, c=c), klein) <= 8 * U
  )
  assert exact_geometry.row_error(lorentz.to_klein(above, c=c), klein) <= 12 * U
  if regime != 'boundary':
    k = lorentz.poincare_to_klein(x, c=c)
    # The Klein ball is more crowded: k has fewer digits of x than x.
    chex.assert_trees_all_close(
      lorentz.klein_to_poincare(k, c=c),
      x,
      rtol=1e-5,
      atol=1e-6 * np.abs(x).max(),
    )
    chex.assert_trees_all_close(
      lorentz.from_klein(k, c=c), above, rtol=2e-4, atol=1e-6 / np.sqrt(c)
    )


@pytest.mark.parametrize('c', CURVATURES)
def test_points_lie_on_the_hyperboloid(c):
  x = exact_geometry.ball(np.random.default_rng(1), 50, 4, c, 'head')
  above = lorentz.from_poincare(x, c=c)
  chex.assert_trees_all_close(
    lorentz.inner(above, above), jnp.full(50, -1 / c), rtol=1e-5
  )
  drifted = above.at[:, 0].mul(1.1)
  chex.assert_trees_all_close(lorentz.project(drifted, c=c), above, rtol=1e-6)


@pytest.mark.parametrize('regime', [*exact_geometry.REGIMES, 'close'])
@pytest.mark.parametrize('c', CURVATURES)
def test_distances_equal_those_of_the_ball(c, regime):
  x, y = exact_geometry.pairs(np.random.default_rng(2), 50, 50, 16, c, regime)
  want = poincare.dist(x, y, c=c)
  lifted = [lorentz.from_poincare(p, c=c) for p in (x, y)]
  # What rounding the coordinates costs: about u sinh(h) in length.
  h = np.sqrt(c) * np.maximum(*(poincare.dist0(p, c=c) for p in (x, y)))
  noise = 8 * U * np.sinh(h) / np.sqrt(c) / want
  error = np.abs(lorentz.dist(*lifted, c=c) / want - 1)
  assert np.all(error <= 16 * U + noise)
  if regime != 'boundary':
    flat = [lorentz.poincare_to_klein(p, c=c) for p in (x, y)]
    noise = 8 * U * np.cosh(h) ** 2 / np.sqrt(c) / want
    error = np.abs(lorentz.klein_dist(*flat, c=c) / want - 1)
    assert np.all(error <= 16 * U + noise)
  # arcosh(-c <x, y>) is what it is, where that has digits.
  if regime == 'mid':
    product = jnp.maximum(-c * lorentz.inner(*lifted), 1)
    chex.assert_trees_all_close(
      jnp.arccosh(product) / np.sqrt(c), want, rtol=1e-2
    )


@pytest.mark.parametrize('c', CURVATURES)
def test_exp0_and_log0(c):
  rng = np.random.default_rng(3)
  u = exact_geometry.directions(rng, 50, 4) * rng.uniform(1e-3, 5, (50, 1))
  u = np.float32(u / np.sqrt(c))
  x = lorentz.exp0(u, c=c)
  (wide,), true_c = exact_geometry.wide(u), exact_geometry.curvature(c)
  r = np.sqrt(true_c) * exact_geometry.norm(wide)
  want = np.concatenate(
    [np.cosh(r) / np.sqrt(true_c), np.sinh(r) / r * wide], -1
  )
  assert exact_geometry.row_error(x, want) <= 24 * U
  chex.assert_trees_all_close(lorentz.log0(x, c=c), u, rtol=4e-6)
  origin = lorentz.exp0(jnp.zeros(4), c=c)
  chex.assert_trees_all_close(
    lorentz.dist(origin, x, c=c), np.linalg.norm(u, axis=1), rtol=4e-6
  )
  halved = poincare.exp0(u / 2, c=c)
  chex.assert_trees_all_close(
    lorentz.to_poincare(x, c=c), halved, rtol=1e-5, atol=1e-6 / np.sqrt(c)
  )


@pytest.mark.parametrize('regime', exact_geometry.REGIMES)
@pytest.mark.parametrize('c', CURVATURES)
def test_centroid_is_the_midpoint_of_the_ball(c, regime):
  rng = np.random.default_rng(4)
  x = exact_geometry.ball(rng, 60, 5, c, regime).reshape(10, 6, 5)
  w = rng.uniform(0.1, 1, (10, 6)).astype(np.float32)
  center = lorentz.centroid(lorentz.from_poincare(x, c=c), w, c=c)
  apart = poincare.dist(
    lorentz.to_poincare(center, c=c), poincare.midpoint(x, w, c=c), c=c
  )
  spread = poincare.dist(x[:, 0], x[:, 1], c=c)
  assert jnp.all(apart <= 1e-5 * spread)
  wide = to_lorentz(*exact_geometry.wide(x), exact_geometry.curvature(c))
  total = np.sum(w[..., None] * wide, 1)
  sq = total[:, 0] ** 2 - np.sum(total[:, 1:] ** 2, -1)
  want = total / np.sqrt(exact_geometry.curvature(c) * sq)[:, None]
  assert exact_geometry.row_error(center, want) <= 24 * U


POINTS = {
  'dist': lambda x, y, c: lorentz.dist(x, y, c=c),
  'centroid': lambda x, y, c: lorentz.centroid(jnp.stack([x, y], 1), c=c),
  'log0': lambda x, y, c: lorentz.log0(x, c=c),
  'exp0': lambda x, y, c: lorentz.exp0(x, c=c),
  'to_poincare': lambda x, y, c: lorentz.to_poincare(x, c=c),
  'from_poincare': lambda x, y, c: lorentz.from_poincare(x, c=c),
  'to_klein': lambda x, y, c: lorentz.to_klein(x, c=c),
  'from_klein': lambda x, y, c: lorentz.from_klein(x, c=c),
  'klein_dist': lambda x, y, c: lorentz.klein_dist(x, y, c=c),
  'poincare_to_klein': lambda x, y, c: lorentz.poincare_to_klein(x, c=c),
  'klein_to_poincare': lambda x, y, c: lorentz.klein_to_poincare(x, c=c),
  'project': lambda x, y, c: lorentz.project(x, c=c),
}


@pytest.mark.parametrize('name', POINTS)
def test_derivatives_agree_with_differences(name):
  x, y = (
    0.3 * exact_geometry.directions(np.random.default_rng(k), 3, 4)
    for k in (5, 6)
  )
  derivatives.check(POINTS[name], x, y, 0.7)


@pytest.mark.optimized
@pytest.mark.parametrize('name', POINTS)
def test_values_and_gradients_are_finite_everywhere(name):
  @jax.jit
  def run(*args):
    out, vjp = jax.vjp(POINTS[name], *args)
    return out, vjp(jnp.ones_like(out))

  edge = np.float32([[0, 0, 0], [0.5, 0, 0], [1, 0, 0], [2.0, 0, 0]])
  for other in (edge, edge[::-1]):
    for a in jax.tree.leaves(run(edge, other, np.float32(1))):
      assert np.all(np.isfinite(a))


def test_bfloat16_and_curvature_arrays():
  x = exact_geometry.ball(np.random.default_rng(7), 6, 4, 1.0, 'head')
  c = np.linspace(0.1, 1, 6, dtype=np.float32)
  above = lorentz.from_poincare(x, c=c)
  rows = [lorentz.from_poincare(x[k], c=c[k]) for k in range(6)]
  chex.assert_trees_all_close(above, jnp.stack(rows), rtol=1e-6)
  for f in (lorentz.from_poincare, lorentz.exp0, lorentz.from_klein):
    half = f(jnp.bfloat16(x), c=c)
    assert half.dtype == jnp.bfloat16
    exact = f(np.float32(jnp.bfloat16(x)), c=c)
    chex.assert_trees_all_close(half.astype(np.float32), exact, rtol=4e-3)
  d = functools.partial(lorentz.dist, c=jnp.float32(1))
  half = d(jnp.bfloat16(above), jnp.bfloat16(above[::-1]))
  assert half.dtype == jnp.bfloat16


def test_bad_input_is_named():
  x = jnp.ones((2, 3))
  with pytest.raises(ValueError, match='must be positive and finite, got 0'):
    lorentz.from_poincare(x, c=0)
  with pytest.raises(TypeError, match='int32'):
    lorentz.inner(jnp.ones((2, 3), jnp.int32), jnp.ones((2, 3), jnp.int32))
  with pytest.raises(ValueError, match=r'\(2, 3\), \(2, 2\)'):
    lorentz.dist(x, x[:, :2], c=1.0)
