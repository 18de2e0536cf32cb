"""Pairwise distances: digits, gradients, memory; hyperplanes, horospheres."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import poincare
from hier_jax.poincare import _distances
from tests.support import derivatives, exact_geometry

REGIMES = [*exact_geometry.REGIMES, 'close']


@functools.partial(jax.jit, static_argnames='backward')
def value_and_gradients(g, x, y, c, backward='auto'):
  f = functools.partial(poincare.dist_matrix, backward=backward)
  d, pull = jax.vjp(lambda x, y, c: f(x, y, c=c), x, y, c)
  return d, pull(g)


def gradients(*args, **options):
  return jax.device_get(value_and_gradients(*args, **options)[1])


def test_fixed_columns_have_distances_and_no_gradient():
  x, y = 0.5 * np.random.default_rng(4).standard_normal((2, 12, 3))
  x, y, fixed = (a.astype(np.float32) for a in (x, y[:7], y[7:]))

  @jax.jit
  def both(x, y):
    all_of = lambda x, y: _distances.dist_matrix_of(
      x, jnp.concatenate([fixed, y]), c=0.1, moving=len(fixed)
    )
    moving = lambda x, y: poincare.dist_matrix(x, y, c=0.1)
    slopes = lambda f: jax.grad(lambda *p: jnp.sum(f(*p) ** 2), (0, 1))(x, y)
    return all_of(x, y), slopes(all_of), slopes(moving)

  d, got, want = both(x, y)
  expected = poincare.dist_matrix(x, np.concatenate([fixed, y]), c=0.1)
  np.testing.assert_allclose(d, expected, rtol=1e-6)
  chex.assert_trees_all_close(got, want, rtol=1e-5, atol=1e-5)


def test_distances_within_points_are_those_of_two_sets():
  x = 0.5 * np.random.default_rng(4).standard_normal((12, 3)).astype('float32')

  def slope(within):
    f = lambda x: _distances.dist_matrix_of(
      x, x, c=0.1, moving=5, within=within
    )
    return jax.value_and_grad(lambda x: jnp.sum(f(x) ** 2))(x)

  chex.assert_trees_all_close(*jax.jit(lambda: (slope(True), slope(False)))())


of_known_curvature = jax.jit(functools.partial(poincare.dist_matrix, c=0.1))


def true_gradients(g, x, y, c):
  """By x, y and c, in long double, and the lengths of the terms they sum."""
  g, x, y = exact_geometry.wide(g, x, y)
  gap = lambda a: 1 - c * np.sum(a * a, -1)
  a, b = gap(x)[:, None], gap(y)[None]
  apart = x[:, None] - y[None]
  s = c * np.sum(apart**2, -1) / (a * b)
  slope = g / np.sqrt(c * s * (1 + s))
  pulls = (2 * c * slope / (a * b))[..., None] * apart
  pushes = 2 * c * slope * s
  by_x = pulls + (pushes / a)[..., None] * x[:, None]
  by_y = -pulls + (pushes / b)[..., None] * y[None]
  d = exact_geometry.dist(x[:, None], y[None], c)
  sq = lambda z: np.sum(z * z, -1)
  by_c = slope * s * (1 / c + (sq(x)[:, None] / a) + sq(y)[None] / b)
  by_c -= g * d / (2 * c)
  size = lambda term, axis: exact_geometry.norm(term)[..., 0].sum(axis)
  sums = by_x.sum(1), by_y.sum(0), by_c.sum()
  return sums, (size(by_x, 1), size(by_y, 0), np.abs(by_c).sum())


def digits(d, regime):
  """Asserts that values and gradients keep them."""
  bound = 1e-4 if regime == 'boundary' else 1e-6
  n, m = (60, 50) if d == 2 else (40, 30)
  for c in exact_geometry.CURVATURES:
    rng = np.random.default_rng(d)
    x, y = exact_geometry.pairs(rng, n, m, d, c, regime)
    want = exact_geometry.dist(
      *exact_geometry.wide(x[:, None], y[None]), exact_geometry.curvature(c)
    )
    results = [poincare.dist_matrix(x, y, c=c)]
    results.append(poincare.dist(x[:, None], y[None], c=c))
    if c == 0.1:
      results.append(of_known_curvature(x, y))
    for g in (np.ones((n, m)), rng.standard_normal((n, m))):
      g = g.astype(np.float32)
      got, slopes = value_and_gradients(g, x, y, c)
      results.append(got)
      gradients_keep_theirs(slopes, g, x, y, c, bound)
    for got in results:
      assert got.dtype == jnp.float32
      assert exact_geometry.relative_error(got, want) <= 2.5e-7


def gradients_keep_theirs(got, g, x, y, c, bound):
  want, terms = true_gradients(g, x, y, exact_geometry.curvature(c))
  for k in (0, 1):
    # Terms that point apart, or have both signs, cancel: what remains is
    # their rounding, not the sum's.
    short = exact_geometry.norm(np.asarray(got[k]) - want[k])[:, 0]
    assert np.max(short / terms[k]) <= bound
    if x.shape[1] > 2 and np.all(g == 1):
      assert exact_geometry.row_error(got[k], want[k]) <= bound
  assert abs(np.asarray(got[2]) - want[2]) <= 4e-6 * terms[2]


@pytest.mark.optimized
@pytest.mark.parametrize('regime', REGIMES)
@pytest.mark.parametrize(
  'd',
  [
    pytest.param(d, marks=[pytest.mark.slow] * (d in (16, 128)))
    for d in exact_geometry.DIMENSIONS
  ],
)
def test_distances_and_gradients_keep_their_digits(d, regime):
  digits(d, regime)


@pytest.mark.optimized
def test_what_a_gpu_is_given_keeps_its_digits(monkeypatch):
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  jax.clear_caches()
  for regime in ('boundary', 'close'):
    digits(128, regime)
  monkeypatch.undo()
  jax.clear_caches()


@pytest.mark.optimized
def test_the_matmul_backward_loses_close_pairs_and_auto_avoids_it():
  for regime, close in [('close', True), ('head', False)]:
    x, y = exact_geometry.pairs(
      np.random.default_rng(0), 40, 30, 16, 1.0, regime
    )
    g = np.ones((40, 30), np.float32)
    got = {
      name: gradients(g, x, y, 1.0, name)
      for name in ('auto', 'rowwise', 'matmul')
    }
    want, _ = true_gradients(g, x, y, exact_geometry.curvature(1.0))
    error = exact_geometry.row_error(got['matmul'][0], want[0])
    assert (error > 1e-5) == close
    chosen = got['rowwise' if close else 'matmul']
    chex.assert_trees_all_close(got['auto'], chosen, rtol=1e-6)
    assert exact_geometry.row_error(got['auto'][0], want[0]) <= 1e-6


@pytest.mark.optimized
def test_auto_takes_coinciding_pairs_for_no_close_ones():
  x = exact_geometry.ball(np.random.default_rng(8), 20, 16, 1.0, 'head')
  g = np.ones((20, 20), np.float32)
  auto, matmul = (gradients(g, x, x, 1.0, name) for name in ('auto', 'matmul'))
  chex.assert_trees_all_close(auto, matmul, rtol=1e-6)


def test_coinciding_pairs_have_distance_and_gradient_zero():
  x = exact_geometry.ball(np.random.default_rng(1), 5, 3, 1.0, 'mid')
  eye = np.eye(5, dtype=np.float32)
  d, (by_x, by_y, _) = value_and_gradients(eye, x, x, 1.0)
  assert not np.any(np.diagonal(d))
  assert not np.any(by_x)
  assert not np.any(by_y)


@pytest.mark.optimized
def test_bfloat16_is_rounded_once():
  for regime in REGIMES:
    x, y = exact_geometry.pairs(
      np.random.default_rng(2), 30, 20, 16, 0.1, regime
    )
    if regime in ('boundary', 'close'):
      # bfloat16 has no points between the boundary and .996 of the radius, and
      # none 1e-5 apart.
      continue
    x, y = x.astype(jnp.bfloat16), y.astype(jnp.bfloat16)
    got = poincare.dist_matrix(x, y, c=np.float32(0.1))
    assert got.dtype == jnp.bfloat16
    exact = exact_geometry.wide(*(np.float32(a) for a in (x[:, None], y[None])))
    want = exact_geometry.dist(*exact, exact_geometry.curvature(0.1))
    assert exact_geometry.relative_error(np.float32(got), want) <= 4e-3


@pytest.mark.parametrize('backward', ['auto', 'rowwise', 'matmul'])
def test_reverse_mode_agrees_with_differences(backward):
  x, y = np.random.default_rng(3).uniform(-0.3, 0.3, (2, 5, 4))
  f = functools.partial(poincare.dist_matrix, backward=backward)
  derivatives.check(lambda x, y, c: f(x, y, c=c), x, y, 0.7, forward=False)
  if backward == 'matmul':
    square = lambda x: jnp.sum(f(x, y, c=0.7) ** 2)
    derivatives.check(jax.grad(square), x)


@pytest.mark.optimized
@pytest.mark.parametrize('edge', [0.0, 0.999999, 1.0, 3.0])
@pytest.mark.parametrize('c', exact_geometry.CURVATURES)
def test_gradients_are_finite_everywhere(c, edge):
  x = np.zeros((3, 4), np.float32)
  x[:2, 0] = edge / np.sqrt(c)
  x[2, 1] = 0.5 / np.sqrt(c)
  found = value_and_gradients(np.ones((3, 3), np.float32), x, x, c)
  for a in jax.tree.leaves(found):
    assert np.all(np.isfinite(a))


@pytest.mark.optimized
@pytest.mark.parametrize(
  ('d', 'by', 'limit'),
  [
    pytest.param(128, (0, 1), 12e6, marks=pytest.mark.slow),
    (512, (0, 1), 32e6),
    (128, (0, 1, 2), 14e6),
  ],
)
def test_nothing_of_size_n_m_d_is_held(d, by, limit):
  x = np.full((692, d), 0.01, np.float32)
  f = lambda x, y, c: jnp.sum(poincare.dist_matrix(x, y, c=c))
  lowered = jax.jit(jax.value_and_grad(f, by)).lower(x, x, 0.1)
  assert lowered.compile().memory_analysis().temp_size_in_bytes <= limit


def test_leading_dimensions_and_curvatures_broadcast():
  rng = np.random.default_rng(4)
  x = exact_geometry.ball(rng, 24, 3, 1.0, 'mid').reshape(2, 4, 3, 3)
  y = exact_geometry.ball(rng, 20, 3, 1.0, 'mid').reshape(4, 5, 3)
  c = np.linspace(0.2, 1, 8, dtype=np.float32).reshape(2, 4)
  got = poincare.dist_matrix(x, y, c=c)
  assert got.shape == (2, 4, 3, 5)
  want = poincare.dist(x[..., None, :], y[:, None], c=c[..., None, None])
  chex.assert_trees_all_close(got, want, rtol=1e-6)
  mapped = jax.vmap(lambda x, c: poincare.dist_matrix(x, y, c=c))(x, c)
  chex.assert_trees_all_close(mapped, got, rtol=1e-6)


def test_empty_sides_make_empty_matrices():
  x, none = np.full((3, 4), 0.1, np.float32), np.zeros((0, 4), np.float32)
  for a, b in ((x, none), (none, x), (none, none)):
    shape = len(a), len(b)
    d, slopes = value_and_gradients(np.zeros(shape, np.float32), a, b, 1.0)
    assert d.shape == shape
    assert not any(map(np.any, slopes))


def test_zero_curvature_is_twice_the_euclidean_distance():
  x, y = exact_geometry.pairs(np.random.default_rng(5), 6, 5, 3, 1.0, 'mid')
  want = 2 * np.linalg.norm(x[:, None] - y[None], axis=-1)
  chex.assert_trees_all_close(poincare.dist_matrix(x, y, c=0), want, rtol=1e-6)
  ones = np.ones((6, 5), np.float32)
  by_c = gradients(ones, x, y, 0.0)[2]
  near = value_and_gradients(ones, x, y, 1e-2)[0].sum() - want.sum()
  assert abs(float(by_c) - float(near) / 1e-2) < 0.02 * abs(float(by_c))


@pytest.mark.parametrize('c', [0.0, 0.1, 1.0])
def test_hyperplane_matrix_is_the_distance_of_each_pair(c):
  rng = np.random.default_rng(6)
  x, p = exact_geometry.pairs(rng, 7, 5, 6, c or 1.0, 'mid')
  normal = rng.standard_normal((5, 6)).astype(np.float32)
  got = poincare.hyperplane_matrix(x, p, normal, c=c, signed=True)
  want = poincare.dist_to_hyperplane(x[:, None], p, normal, c=c, signed=True)
  chex.assert_trees_all_close(got, want, rtol=2e-5, atol=1e-5)
  unsigned = poincare.dist_to_hyperplane(x[:, None], p, normal, c=c)
  chex.assert_trees_all_close(unsigned, jnp.abs(want), rtol=2e-5, atol=1e-5)
  np.testing.assert_array_equal(
    poincare.hyperplane_matrix(x, p, normal, c=c), jnp.abs(got)
  )
  # A point of the hyperplane, and a normal of length 0.
  assert not np.any(poincare.dist_to_hyperplane(p, p, normal, c=c))
  assert not np.any(poincare.dist_to_hyperplane(x[:5], p, 0 * normal, c=c))


def test_distance_to_a_hyperplane_is_that_to_its_nearest_point():
  # In the disk, the hyperplane through 0 is the second axis.
  x = jnp.array([0.4, 0.3])
  axis = jnp.stack([jnp.zeros(2001), jnp.linspace(-0.99, 0.99, 2001)], 1)
  nearest = jnp.min(poincare.dist(x, axis, c=1.0))
  got = poincare.dist_to_hyperplane(x, jnp.zeros(2), jnp.array([3.0, 0]), c=1.0)
  assert abs(float(got - nearest)) < 1e-4


def test_busemann_is_the_limit_of_distances():
  x = exact_geometry.ball(np.random.default_rng(7), 6, 3, 1.0, 'mid')
  omega = jnp.array([1.0, 2.0, -2.0])
  t = 12.0
  far = poincare.exp0(omega / 3 * t / 2, c=1.0)
  limit = poincare.dist(x, far, c=1.0) - t
  chex.assert_trees_all_close(
    poincare.busemann(x, omega, c=1.0), limit, atol=0.1
  )
  projected = poincare.horospherical_projection(x, omega, c=1.0)
  chex.assert_trees_all_close(
    poincare.busemann(projected, omega, c=1.0),
    poincare.busemann(x, omega, c=1.0),
    rtol=1e-4,
    atol=1e-5,
  )
  assert jnp.allclose(jnp.cross(projected, omega), 0, atol=1e-6)
