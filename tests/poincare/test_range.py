"""Rows from the least float to the largest: norms are of scaled squares."""

import functools

import chex
import jax
import jax.numpy as jnp
import mpmath
import numpy as np
import pytest

from hier_jax import layers, losses, numerics, poincare

C, RADIUS = 0.1, 2.3
# From the least floats that no processor takes for 0 to the largest.
SIZES = (4e-38, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e18, 1e20, 1e30, 3e38)
DIRECTION = (0.6, -0.3, 0.7, 0.0)
each_size = pytest.mark.parametrize('size', SIZES)
each_dtype = pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])


def row(size, dtype=jnp.float32):
  return jnp.asarray(size * np.array([[*DIRECTION, 1.0]]), dtype)


def exactly(x):
  return [mpmath.mpf(float(v)) for v in np.asarray(x, np.float64).ravel()]


def length(x):
  return mpmath.sqrt(mpmath.fsum(v * v for v in x))


def factors(name, r):
  """f with f(r) u / |u| the function of u, |u| = r."""
  c = mpmath.mpf(float(np.float32(C)))
  root = mpmath.sqrt(c)
  clip = lambda r: min(r, RADIUS_32 * r / (r + mpmath.mpf(1e-5)))
  exp0 = lambda r: mpmath.tanh(root * r) / root
  project = lambda r: min(r, (1 - mpmath.mpf(1e-3)) / root)
  return {
    'clip_norm': clip,
    'exp0': exp0,
    'exp0 flat': lambda r: r,
    'project': project,
    'to_ball': lambda r: project(exp0(clip(r))),
    'unit': lambda r: mpmath.mpf(1),
  }[name](r)


RADIUS_32 = mpmath.mpf(float(np.float32(RADIUS)))
MAPS = {
  'clip_norm': functools.partial(poincare.clip_norm, radius=RADIUS),
  'exp0': functools.partial(poincare.exp0, c=C),
  'exp0 flat': functools.partial(poincare.exp0, c=0),
  'project': functools.partial(poincare.project, c=C),
  'to_ball': functools.partial(poincare.to_ball, c=C, clip_radius=RADIUS),
  'unit': numerics.unit,
}
each_map = pytest.mark.parametrize('name', MAPS)


def assert_near(got, want, tolerance):
  """Of a row as a share of its length, but for floats taken for 0."""
  error = length([a - b for a, b in zip(exactly(got), want, strict=True)])
  assert error <= tolerance * length(want) + 5 * np.finfo(np.float32).tiny


@each_dtype
@each_size
@each_map
def test_maps_of_rows_of_any_length(name, size, dtype):
  u = row(size, dtype)
  f = MAPS[name]
  if name == 'unit' and dtype != jnp.float32:
    f = lambda u: numerics.unit(numerics.widened(u)).astype(u.dtype)
  with mpmath.workdps(60):
    wide = exactly(u)
    r = length(wide)
    want = [v * factors(name, r) / r for v in wide]
    for g in (f, jax.jit(f)):
      got = g(u)
      assert got.dtype == dtype
      assert_near(got, want, 16 * float(jnp.finfo(dtype).eps))


@each_size
@each_map
def test_gradients_of_rows_of_any_length(name, size):
  """Along the row f'(r) of its cotangent's part, f(r) / r of the other."""
  u, g = row(size), jnp.array([[1.0, 2.0, -3.0, 0.5, 1.5]]) / 8
  _, pull = jax.vjp(jax.jit(MAPS[name]), u)
  (got,) = pull(g)
  with mpmath.workdps(60):
    wide, cotangent = exactly(u), exactly(g)
    r = length(wide)
    f = functools.partial(factors, name)
    slope = mpmath.diff(f, r, h=r * mpmath.mpf(1e-20))
    along = mpmath.fsum(a * b for a, b in zip(wide, cotangent, strict=True)) / r
    straight = [along * v / r for v in wide]
    want = [
      slope * s + f(r) / r * (k - s)
      for s, k in zip(straight, cotangent, strict=True)
    ]
    if name == 'to_ball':
      image = length([v * f(r) / r for v in wide])
      gap = 1 - mpmath.mpf(float(np.float32(C))) * image**2
      want = [v * gap**2 / 4 for v in want]
    assert_near(got, want, 2e-5)


@each_dtype
@each_size
def test_distances_at_zero_curvature(size, dtype):
  x = row(min(size, 8e37), dtype)
  zero = jnp.zeros_like(x)
  with mpmath.workdps(60):
    want = 2 * length(exactly(x))
    for d in (
      poincare.dist(x, zero, c=0),
      poincare.dist0(x, c=0),
      poincare.dist_matrix(x, zero, c=0)[0],
      poincare.norm(zero, x, c=C),
    ):
      assert abs(exactly(d)[0] / want - 1) <= 4 * float(jnp.finfo(dtype).eps)


@pytest.mark.parametrize('size', [4e-38, 1e-30, 1e-20])
def test_distances_of_points_next_to_each_other_and_to_0(size):
  x, y = row(size), row(-size)
  g = lambda f: jax.grad(lambda x: jnp.sum(f(x, y, c=C)))(x)
  with mpmath.workdps(60):
    want = 4 * length(exactly(x))
    # The direction from y to x, twice.
    slope = [2 * v / length(exactly(x)) for v in exactly(x)]
    for f in (poincare.dist, poincare.dist_matrix):
      assert abs(exactly(f(x, y, c=C))[0] / want - 1) <= 1e-6
      assert_near(g(f), slope, 1e-6)


def test_points_far_outside_have_finite_values_and_gradients():
  u = np.concatenate([row(size) for size in SIZES])
  v = np.concatenate([u, -u[::-1]])
  u = np.concatenate([u, u])
  ones = np.ones_like(u)
  cases = {
    name: (u, v)
    for name in ('mobius_add', 'coadd', 'logmap', 'dist', 'dist_matrix')
  } | {
    'expmap': (u, v),
    # Twice over 1 - c|x|^2, which is 1e-7 there.
    'norm': (u, v / 1e8),
    'dist_to_hyperplane': (u, v, ones),
    'busemann': (u, ones),
    'horospherical_projection': (u, ones),
  }
  for name, args in cases.items():

    @jax.jit
    def run(c, *args, name=name):
      f = functools.partial(getattr(poincare, name), c=c)
      out, pull = jax.vjp(f, *args)
      return out, pull(jnp.ones_like(out))

    for c in (1e-6, C, 10.0):
      for a in jax.tree.leaves(run(c, *args)):
        assert np.all(np.isfinite(a)), (name, c)
  lost = np.where(np.arange(5) == 2, np.float32(np.inf), u[:1])
  assert jnp.isnan(poincare.dist(lost, u[:1], c=C))


@pytest.mark.parametrize('size', [1e-30, 1e20, 1e30, 3e38])
@pytest.mark.parametrize('c', [None, 0.1])
def test_losses_of_features_of_any_length(size, c):
  rng = np.random.default_rng(0)
  z = rng.uniform(0.1, 1, (16, 5)) * rng.choice([-1, 1], (16, 5))
  labels = np.arange(16) // 2
  z = (0.9 * size * z).astype(np.float32)
  f = jax.jit(jax.value_and_grad(lambda z: losses.hyp(z, labels, c=c)))
  loss, gradient = f(z)
  chex.assert_tree_all_finite((loss, gradient))
  if c is None:
    # Cosines know no length, and gradients are of its reciprocal.
    same, slope = f(z / np.float32(size))
    np.testing.assert_allclose(loss, same, rtol=2e-6)
    lost = 2 * size * float(np.finfo(np.float32).tiny)
    np.testing.assert_allclose(
      np.asarray(gradient, float) * size,
      slope,
      atol=1e-5 * float(np.abs(slope).max()) + lost,
    )


@pytest.mark.parametrize('c', [0, 0.1])
def test_a_head_of_long_features_makes_points(c):
  head = layers.BallHead(4, c=c, last_norm=False)
  x = row(1e30)
  z, variables = head.init_with_output(jax.random.key(0), x)
  short = head.apply(variables, row(1e4))
  np.testing.assert_allclose(z, short, rtol=2e-5)
