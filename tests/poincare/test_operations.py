"""Every operation of the ball: values, dtypes, limits, derivatives.

Compiling is what these tests take. Each operation has one program of its value
and gradients, of width 2 and with a curvature for each point, and one of its
own, of width 512; most tests run these two.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import poincare
from tests.support import derivatives, exact_geometry
from tests.support.ball_operations import OPS, arguments, error

U = np.finfo(np.float32).eps / 2
# These are within two units in the last place and a bit.
NEAREST = ('exp0', 'log0', 'round_trip', 'dist', 'dist0')
EDGES = 9
N, NARROW, WIDE = EDGES**2, 2, 512
OTHERS = {
  'project': poincare.project,
  'riemannian_gradient': poincare.riemannian_gradient,
  'to_ball': functools.partial(poincare.to_ball, clip_radius=2.3),
  'matvec': functools.partial(
    poincare.matvec, np.arange(6, dtype=np.float32).reshape(3, 2)
  ),
  'clip_norm': lambda x, c: poincare.clip_norm(x, 1.0),
  'hyperplane_matrix': lambda x, c: poincare.hyperplane_matrix(
    x, x[::-1], x, c=c[0]
  ),
  'frechet_mean': lambda x, c: poincare.frechet_mean(x, c=c[0]),
  'log_prob': lambda x, c: poincare.wrapped_normal.log_prob(x, x[::-1], c=c),
}
each_operation = pytest.mark.parametrize('name', OPS)
each_dtype = pytest.mark.parametrize(
  'dtype',
  [jnp.float32, pytest.param(jnp.bfloat16, marks=pytest.mark.slow)],
  ids=['float32', 'bfloat16'],
)


@functools.cache
def value_and_gradients(op):
  """Of curvatures `[n]` and an operation's arguments, compiled."""

  @jax.jit
  def run(c, *args):
    out, vjp = jax.vjp(lambda c, *a: op(*a, c=c), c, *args)
    return out, vjp(jnp.asarray(derivatives.noise(0, out), out.dtype))

  return run


def at(c, op, *args):
  """The value and gradients where each point has the curvature c."""
  return jax.device_get(
    value_and_gradients(op)(np.full(len(args[0]), c, np.float32), *args)
  )


def assert_finite(tree):
  for leaf in jax.tree.leaves(tree):
    assert np.all(np.isfinite(np.asarray(leaf, np.float64)))


@pytest.mark.parametrize(
  ('name', 'order'),
  [
    *((name, 1) for name in OPS if name not in ('log0', 'dist')),
    ('log0', 2),
    ('dist', 2),
    pytest.param('logmap', 2, marks=pytest.mark.slow),
  ],
)
def test_derivatives_agree_with_differences(name, order):
  kinds, op, _ = OPS[name]
  args = arguments(kinds, np.random.default_rng(3), 3, 4, 0.7, 'mid')
  derivatives.check(
    lambda c, *args: op(*args, c=c), np.float32(0.7), *args, order=order
  )


@each_operation
def test_any_leading_dimensions_and_one_curvature_a_point(name):
  kinds, op, _ = OPS[name]
  args = arguments(kinds, np.random.default_rng(4), 6, 3, 1.0, 'head')
  c = np.linspace(0.2, 1, 6, dtype=np.float32)

  @jax.jit
  def both(c, *args):
    shaped = [a.reshape(2, 3, *a.shape[1:]) for a in args]
    each = jax.vmap(lambda c, *args: op(*args, c=c))(c, *args)
    return each, op(*shaped, c=c.reshape(2, 3))

  each, grid = both(c, *args)
  np.testing.assert_allclose(
    grid.reshape(each.shape), each, rtol=1e-5, atol=1e-6
  )


def test_jacobians_at_coinciding_points_are_the_identity():
  zero, eye = np.zeros(4, np.float32), np.eye(4, dtype=np.float32)
  x = np.float32([0.3, -0.4, 0.1, 0.2])
  jacobian = lambda f: jax.jit(
    lambda y: (f(y, c=0.7), jax.jacobian(lambda y: f(y, c=0.7))(y))
  )
  for f in (poincare.exp0, poincare.log0):
    np.testing.assert_array_equal(jacobian(f)(zero)[1], eye)
  nothing, slope = jacobian(functools.partial(poincare.logmap, x))(x)
  assert not np.any(nothing)
  np.testing.assert_allclose(slope, eye, atol=1e-6)
  _, slope = jacobian(functools.partial(poincare.expmap, x))(zero)
  np.testing.assert_allclose(slope, eye, atol=1e-6)


def bound(name, regime):
  if name in NEAREST:
    return 2.5e-7
  return U * (16 if regime == 'boundary' else 8)


@pytest.mark.optimized
@each_operation
def test_values_keep_their_digits(name):
  kinds, op, _ = OPS[name]
  for c in exact_geometry.CURVATURES:
    for regime in exact_geometry.REGIMES:
      for n, d in ((N, NARROW), (100, WIDE)):
        args = arguments(kinds, np.random.default_rng(d), n, d, c, regime)
        got = at(c, op, *args)[0] if d == NARROW else op(*args, c=c)
        assert got.dtype == jnp.float32
        assert error(name, got, args, c) <= bound(name, regime), (d, c, regime)


@pytest.mark.optimized
@pytest.mark.slow
@each_operation
def test_values_keep_their_digits_at_other_widths(name):
  kinds, op, _ = OPS[name]
  jitted = jax.jit(lambda c, *args: op(*args, c=c))
  for d in (16, 128):
    for c in exact_geometry.CURVATURES:
      for regime in exact_geometry.REGIMES:
        args = arguments(kinds, np.random.default_rng(7), 200, d, c, regime)
        got = jitted(c, *args) if d == 16 else op(*args, c=c)
        assert error(name, got, args, c) <= bound(name, regime), (d, c, regime)


@pytest.mark.optimized
@each_operation
def test_bfloat16_is_rounded_once(name):
  kinds, op, _ = OPS[name]
  for regime in ('origin', 'head', 'mid'):
    args = arguments(kinds, np.random.default_rng(1), 100, WIDE, 0.1, regime)
    narrow = [
      a if kind in 'tw' else a.astype(jnp.bfloat16)
      for kind, a in zip(kinds, args, strict=True)
    ]
    got = op(*narrow, c=np.float32(0.1))
    assert got.dtype == jnp.bfloat16
    if name != 'round_trip':  # two operations, hence two roundings
      exact = [np.asarray(a, np.float32) for a in narrow]
      assert error(name, np.asarray(got, np.float32), exact, 0.1) <= 4e-3


@pytest.mark.optimized
@each_operation
def test_zero_curvature_is_the_limit(name):
  kinds, op, _ = OPS[name]
  args = arguments(kinds, np.random.default_rng(2), N, NARROW, 0, 'mid')
  jax.eval_shape(functools.partial(op, c=0), *args)
  flat, (slope, *gradients) = at(0, op, *args)
  near, _ = at(1e-9, op, *args)
  np.testing.assert_allclose(flat, near, rtol=1e-4, atol=1e-4)
  # So are its derivatives; that of the Busemann function in c does not exist.
  _, (near_slope, *near_gradients) = at(1e-6, op, *args)
  pairs = list(zip(gradients, near_gradients, strict=True))
  if name in ('busemann', 'horospherical_projection'):
    return
  for got, want in [(slope, near_slope), *pairs]:
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=1e-4)


def edge_points(c):
  radius = 1 / np.sqrt(c)
  inside, outside = np.float32(radius * (1 - 1e-7)), 3 * radius
  x = np.zeros((EDGES, NARROW), np.float32)
  x[2:, 0] = (
    radius / 2,
    radius / 2,
    inside,
    radius,
    -radius,
    outside,
    outside,
  )
  return x


@pytest.mark.optimized
@each_dtype
@each_operation
def test_values_and_gradients_are_finite_everywhere(name, dtype):
  kinds, op, _ = OPS[name]
  i, j = (k.ravel() for k in np.mgrid[:EDGES, :EDGES])
  for c in exact_geometry.CURVATURES:
    points = edge_points(c).astype(dtype)
    takes = dict.fromkeys('yvu', points[j]) | {'x': points[i]}
    takes['t'] = np.linspace(0, 1, N, dtype=np.float32)
    takes['X'] = np.stack([points[i], points[j], points[i]], 1)
    takes['w'] = np.ones((N, 3), np.float32)
    args = [takes[kind] for kind in kinds]
    out, gradients = at(c, op, *args)
    assert_finite((out, gradients))
    assert out.dtype == dtype
    assert [g.dtype for g in gradients[1:]] == [a.dtype for a in args]


@pytest.mark.optimized
@each_dtype
@pytest.mark.parametrize('name', OTHERS)
def test_the_other_operations_are_finite_everywhere(name, dtype):
  for c in exact_geometry.CURVATURES:
    out, gradients = at(c, OTHERS[name], edge_points(c).astype(dtype))
    assert_finite((out, gradients))
    assert out.dtype == gradients[1].dtype == dtype
