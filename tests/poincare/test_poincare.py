"""Every operation of the ball: values, dtypes, limits, gradients, bad input."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.test_util import check_grads

from hier_jax import lorentz, poincare
from tests.support import exact_geometry, vectors

U = np.finfo(np.float32).eps / 2
# Name -> arguments, the operation, its oracle in long double. Arguments: x, y
# points; X triples of points; v directions of any length; u tangent vectors at
# x as long as the ball is wide; t numbers in [0, 1]; w weights.
OPS = {
  'mobius_add': ('xy', poincare.mobius_add, exact_geometry.mobius_add),
  'mobius_sub': (
    'xy',
    poincare.mobius_sub,
    lambda x, y, c: exact_geometry.mobius_add(x, -y, c),
  ),
  'coadd': ('xy', poincare.coadd, exact_geometry.coadd),
  'cosub': (
    'xy',
    poincare.cosub,
    lambda x, y, c: exact_geometry.coadd(x, -y, c),
  ),
  'gyration': ('xyv', poincare.gyration, exact_geometry.gyration),
  'antipode': ('x', poincare.antipode, lambda x, c: -x),
  'scalar_mul': (
    'tx',
    poincare.scalar_mul,
    lambda t, x, c: exact_geometry.scalar_mul(t[:, None], x, c),
  ),
  'pointwise_mul': (
    'vx',
    poincare.pointwise_mul,
    lambda w, x, c: exact_geometry.exp0(w * exact_geometry.log0(x, c), c),
  ),
  'fn_apply': (
    'x',
    functools.partial(poincare.fn_apply, lambda v: v * abs(v) + v),
    lambda x, c: exact_geometry.exp0(
      (v := exact_geometry.log0(x, c)) * abs(v) + v, c
    ),
  ),
  'exp0': ('v', poincare.exp0, exact_geometry.exp0),
  'log0': ('x', poincare.log0, exact_geometry.log0),
  'round_trip': (
    'x',
    lambda x, c: poincare.exp0(poincare.log0(x, c=c), c=c),
    lambda x, c: x,
  ),
  'expmap': ('xu', poincare.expmap, exact_geometry.expmap),
  'logmap': ('xy', poincare.logmap, exact_geometry.logmap),
  'geodesic': (
    'txy',
    poincare.geodesic,
    lambda t, x, y, c: exact_geometry.geodesic(t[:, None], x, y, c),
  ),
  'geodesic_unit': (
    'txv',
    poincare.geodesic_unit,
    lambda t, x, v, c: exact_geometry.expmap(
      x,
      t[:, None] * v / exact_geometry.norm(v) / exact_geometry.conformal(x, c),
      c,
    ),
  ),
  'conformal_factor': (
    'x',
    poincare.conformal_factor,
    lambda x, c: exact_geometry.conformal(x, c)[:, 0],
  ),
  'inner': (
    'xvv',
    poincare.inner,
    lambda x, u, v, c: (
      exact_geometry.conformal(x, c) ** 2 * exact_geometry.dot(u, v)
    )[:, 0],
  ),
  'norm': (
    'xv',
    poincare.norm,
    lambda x, v, c: (exact_geometry.conformal(x, c) * exact_geometry.norm(v))[
      :, 0
    ],
  ),
  'egrad_to_rgrad': (
    'xv',
    poincare.egrad_to_rgrad,
    lambda x, g, c: g / exact_geometry.conformal(x, c) ** 2,
  ),
  'parallel_transport': (
    'xyv',
    poincare.parallel_transport,
    exact_geometry.transport,
  ),
  'transport0': (
    'xv',
    poincare.transport0,
    lambda x, v, c: 2 * v / exact_geometry.conformal(x, c),
  ),
  'transport0_back': (
    'xv',
    poincare.transport0_back,
    lambda x, v, c: v * exact_geometry.conformal(x, c) / 2,
  ),
  'dist': ('xy', poincare.dist, exact_geometry.dist),
  'dist0': (
    'x',
    poincare.dist0,
    lambda x, c: exact_geometry.dist(x, 0 * x, c),
  ),
  'dist_to_hyperplane': (
    'xyv',
    functools.partial(poincare.dist_to_hyperplane, signed=True),
    exact_geometry.dist_to_hyperplane,
  ),
  'busemann': ('xv', poincare.busemann, exact_geometry.busemann),
  'horospherical_projection': (
    'xv',
    poincare.horospherical_projection,
    exact_geometry.horospherical_projection,
  ),
  'midpoint': (
    'Xw',
    poincare.midpoint,
    exact_geometry.midpoint,
  ),
}
# Where an error is a share not of the result, which may vanish, but of what it
# is made of.
SCALES = {
  'mobius_add': lambda x, y, c: np.maximum(*map(exact_geometry.norm, (x, y))),
  'geodesic': lambda t, x, y, c: np.maximum(*map(exact_geometry.norm, (x, y))),
  'geodesic_unit': lambda t, x, v, c: np.maximum(
    exact_geometry.norm(x), t[:, None] / 2
  ),
  'expmap': lambda x, u, c: exact_geometry.norm(x),
  'coadd': lambda x, y, c: np.minimum(*map(exact_geometry.norm, (x, y))),
  'inner': lambda x, u, v, c: (
    exact_geometry.conformal(x, c) ** 2
    * exact_geometry.norm(u)
    * exact_geometry.norm(v)
  )[:, 0],
  'dist_to_hyperplane': lambda x, p, a, c: (
    exact_geometry.dist(x, p, c)
    + 1
    / np.abs(exact_geometry.cosine(exact_geometry.mobius_add(-p, x, c), a))
    / np.sqrt(c)
  ),
  'midpoint': lambda x, w, c: exact_geometry.norm(x).max(1),
  # It moves by 2 / |omega - sqrt(c) x| for each unit that omega does.
  'busemann': lambda x, omega, c: (
    exact_geometry.dist(x, 0 * x, c)
    + 20
    / exact_geometry.norm(omega / exact_geometry.norm(omega) - np.sqrt(c) * x)[
      :, 0
    ]
    / np.sqrt(c)
  ),
}
SCALES['mobius_sub'] = SCALES['mobius_add']
SCALES['cosub'] = SCALES['coadd']
SCALES['horospherical_projection'] = lambda x, omega, c: SCALES['busemann'](
  x, omega, c
)[:, None]


def arguments(kinds, rng, n, d, c, regime):
  """float32 arguments of an operation."""
  width = 1 / np.sqrt(c or 1)
  x = exact_geometry.ball(rng, n, d, c, regime)
  draws = {
    'x': lambda: x,
    'X': lambda: exact_geometry.ball(rng, 3 * n, d, c, regime).reshape(n, 3, d),
    'w': lambda: rng.uniform(0.1, 1, (n, 3)),
    'y': lambda: exact_geometry.ball(rng, n, d, c, regime),
    'v': lambda: (
      exact_geometry.directions(rng, n, d) * rng.uniform(0.1, 2, (n, 1)) * width
    ),
    'u': lambda: (
      exact_geometry.directions(rng, n, d)
      * rng.uniform(0.1, 2, (n, 1))
      * width
      * (1 - c * np.sum(x.astype(float) ** 2, 1, keepdims=True))
      / 2
    ),
    't': lambda: rng.uniform(0, 1, n),
  }
  return [draws[kind]().astype(np.float32) for kind in kinds]


def error(name, got, args, c):
  oracle = OPS[name][2]
  wide, c = exact_geometry.wide(*args), exact_geometry.curvature(c)
  want = oracle(*wide, c)
  size = np.abs if want.ndim == 1 else exact_geometry.norm
  scale = size(want)
  if name in SCALES:
    scale = np.maximum(scale, SCALES[name](*wide, c))
  assert got.shape == want.shape
  return float(
    np.max(size(np.asarray(got).astype(np.longdouble) - want) / scale)
  )


@pytest.mark.optimized
@pytest.mark.parametrize('name', OPS)
def test_values_keep_their_digits(name):
  kinds, op, _ = OPS[name]
  jitted = jax.jit(lambda c, *args: op(*args, c=c))
  for d in (2, 16, 512):
    for c in exact_geometry.CURVATURES:
      for regime in exact_geometry.REGIMES:
        rng = np.random.default_rng(d)
        args = arguments(kinds, rng, 50, d, c, regime)
        for got in (op(*args, c=c), jitted(c, *args)):
          assert got.dtype == jnp.float32
          bound = 16 if regime == 'boundary' else 8
          assert error(name, got, args, c) <= bound * U, (d, c, regime)


@pytest.mark.optimized
@pytest.mark.parametrize(
  'name', ['exp0', 'log0', 'round_trip', 'dist', 'dist0']
)
def test_exp_log_and_dist_are_within_two_ulp_and_a_bit(name):
  kinds, op, _ = OPS[name]
  worst = 0.0
  for regime in exact_geometry.REGIMES:
    for c in exact_geometry.CURVATURES:
      for d in exact_geometry.DIMENSIONS:
        args = arguments(kinds, np.random.default_rng(7), 200, d, c, regime)
        worst = max(worst, error(name, op(*args, c=c), args, c))
  assert worst <= 2.5e-7


@pytest.mark.optimized
@pytest.mark.parametrize('name', OPS)
def test_bfloat16_is_rounded_once(name):
  kinds, op, _ = OPS[name]
  for regime in ('origin', 'head', 'mid'):
    args = arguments(kinds, np.random.default_rng(1), 50, 16, 0.1, regime)
    narrow = [
      a if kind in 'tw' else jnp.asarray(a, jnp.bfloat16)
      for kind, a in zip(kinds, args, strict=True)
    ]
    exact = [np.asarray(a, np.float32) for a in narrow]
    for f in (op, jax.jit(op)) if name != 'fn_apply' else (op,):
      got = f(*narrow, c=jnp.float32(0.1))
      assert got.dtype == jnp.bfloat16
      if name == 'round_trip':  # two operations, hence two roundings
        continue
      got = np.asarray(got, np.float32)
      assert error(name, got, exact, 0.1) <= 4e-3


@pytest.mark.parametrize('name', OPS)
def test_zero_curvature_is_the_limit(name):
  kinds, op, _ = OPS[name]
  args = arguments(kinds, np.random.default_rng(2), 20, 5, 0, 'mid')
  flat = op(*args, c=0)
  near = op(*args, c=1e-9)
  chex.assert_trees_all_close(flat, near, rtol=1e-4, atol=1e-4)
  # So is its derivative in c; that of the Busemann function does not exist.
  if name not in ('busemann', 'horospherical_projection'):
    slope = jax.jacfwd(lambda c: op(*args, c=c))
    chex.assert_trees_all_close(slope(0.0), slope(1e-6), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize('name', OPS)
def test_derivatives_agree_with_differences(name):
  kinds, op, _ = OPS[name]
  order = 2 if name in ('log0', 'dist', 'logmap') else 1
  with jax.enable_x64(True):
    rng = np.random.default_rng(3)
    args = arguments(kinds, rng, 3, 4, 0.7, 'mid')
    args = [jnp.asarray(a, jnp.float64) for a in (0.7, *args)]
    f = jax.jit(lambda c, *args: op(*args, c=c))
    check_grads(f, tuple(args), order, ['fwd', 'rev'], rtol=2e-3, atol=2e-3)


def edge_points(c):
  radius = 1 / np.sqrt(c)
  row = lambda r: [r, 0, 0]
  inside, outside = np.float32(radius * (1 - 1e-7)), 3 * radius
  return np.float32(
    [
      row(0),
      row(0),
      row(0.5 * radius),
      row(0.5 * radius),
      row(inside),
      row(radius),
      row(-radius),
      row(outside),
      row(outside),
    ]
  )


@pytest.mark.optimized
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('name', OPS)
def test_values_and_gradients_are_finite_everywhere(name, dtype):
  kinds, op, _ = OPS[name]

  @jax.jit
  def value_and_gradients(c, *args):
    out, vjp = jax.vjp(lambda c, *a: op(*a, c=c), c, *args)
    return out, vjp(jnp.ones_like(out))

  for c in exact_geometry.CURVATURES:
    points = jnp.asarray(edge_points(c), dtype)
    i, j = (k.ravel() for k in jnp.mgrid[: len(points), : len(points)])
    takes = {'x': points[i], 'y': points[j], 'v': points[j], 'u': points[j]}
    takes['t'] = jnp.linspace(0, 1, i.size)
    takes['X'] = jnp.stack([points[i], points[j], points[i]], 1)
    takes['w'] = jnp.ones((i.size, 3))
    args = [takes[kind] for kind in kinds]
    out, gradients = value_and_gradients(c, *args)
    chex.assert_tree_all_finite((out, gradients))
    chex.assert_trees_all_equal_dtypes(list(gradients[1:]), args)


@pytest.mark.optimized
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize('c', exact_geometry.CURVATURES)
def test_the_other_operations_are_finite_everywhere(c, dtype):
  x = jnp.asarray(edge_points(c), dtype)
  for f in (
    poincare.project,
    poincare.riemannian_gradient,
    functools.partial(poincare.to_ball, clip_radius=2.3),
    functools.partial(poincare.matvec, jnp.arange(6.0).reshape(2, 3)),
    lambda x, c: poincare.clip_norm(x, 1.0),
    lambda x, c: poincare.hyperplane_matrix(x, x[::-1], x, c=c),
    lambda x, c: poincare.frechet_mean(x, c=c),
    lambda x, c: poincare.wrapped_normal.log_prob(x, x[::-1], c=c),
  ):
    out, vjp = jax.vjp(lambda x, c, f=f: f(x, c=c), x, jnp.float32(c))
    gradients = vjp(jnp.ones_like(out))
    chex.assert_tree_all_finite((out, gradients))
    assert out.dtype == gradients[0].dtype == dtype


def test_jacobians_at_coinciding_points_are_the_identity():
  zero, eye = jnp.zeros(4), jnp.eye(4)
  for f in (poincare.exp0, poincare.log0):
    jacobian = jax.jacobian(functools.partial(f, c=0.7))(zero)
    chex.assert_trees_all_equal(jacobian, eye)
  x = jnp.array([0.3, -0.4, 0.1, 0.2])
  assert not jnp.any(poincare.logmap(x, x, c=0.7))
  jacobian = jax.jacobian(lambda y: poincare.logmap(x, y, c=0.7))(x)
  chex.assert_trees_all_close(jacobian, eye, atol=1e-6)
  jacobian = jax.jacobian(lambda v: poincare.expmap(x, v, c=0.7))(zero)
  chex.assert_trees_all_close(jacobian, eye, atol=1e-6)


@pytest.mark.parametrize('name', OPS)
def test_any_leading_dimensions_and_one_curvature_a_point(name):
  kinds, op, _ = OPS[name]
  args = arguments(kinds, np.random.default_rng(4), 6, 3, 1.0, 'head')
  c = np.linspace(0.2, 1, 6, dtype=np.float32)
  rows = jnp.stack([op(*(a[k] for a in args), c=c[k]) for k in range(len(c))])
  batch = op(*args, c=c)
  chex.assert_trees_all_close(batch, rows, rtol=1e-5, atol=1e-6)
  grid = op(*(a.reshape(2, 3, *a.shape[1:]) for a in args), c=c.reshape(2, 3))
  chex.assert_trees_all_close(
    grid.reshape(batch.shape), batch, rtol=1e-5, atol=1e-6
  )
  mapped = jax.vmap(lambda c, *a: op(*a, c=c))(c, *args)
  chex.assert_trees_all_close(mapped, batch, rtol=1e-5, atol=1e-6)


def test_leading_dimensions_broadcast():
  x, y = jnp.full((3,), 0.1), jnp.full((4, 2, 3), 0.2)
  assert poincare.dist(x, y, c=1.0).shape == (4, 2)
  assert poincare.mobius_add(x, y[0], c=jnp.ones((5, 1))).shape == (5, 2, 3)
  assert poincare.geodesic(jnp.linspace(0, 1, 7), x, x, c=1.0).shape == (7, 3)
  assert poincare.dist(x, x, c=jnp.ones(6)).shape == (6,)
  assert poincare.matvec(jnp.ones((5, 3)), y, c=1.0).shape == (4, 2, 5)


def test_matvec_is_a_homomorphism_and_scales_lengths():
  rng = np.random.default_rng(5)
  x = exact_geometry.ball(rng, 20, 4, 0.5, 'mid')
  m, n = rng.standard_normal((2, 4, 4)).astype(np.float32) / 2
  both = poincare.matvec(m @ n, x, c=0.5)
  chain = poincare.matvec(m, poincare.matvec(n, x, c=0.5), c=0.5)
  chex.assert_trees_all_close(both, chain, rtol=2e-5, atol=1e-6)
  oracle = exact_geometry.exp0(
    exact_geometry.log0(*exact_geometry.wide(x), exact_geometry.curvature(0.5))
    @ m.T,
    exact_geometry.curvature(0.5),
  )
  assert (
    exact_geometry.row_error(poincare.matvec(m, x, c=0.5), oracle) <= 16 * U
  )


def test_project_and_clip_leave_inner_points_alone():
  x = jnp.array([[0.3, 0.4], [3.0, 4.0]])
  projected = poincare.project(x, c=1.0, margin=0.1)
  chex.assert_trees_all_close(
    projected, jnp.array([[0.3, 0.4], [0.54, 0.72]]), rtol=1e-6
  )
  assert jnp.array_equal(poincare.project(x, c=0), x)
  clipped = poincare.clip_norm(x, 1.0)
  assert jnp.array_equal(clipped[0], x[0])
  assert 0.9999 < jnp.linalg.norm(clipped[1]) < 1.0


@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16, jnp.float16])
def test_project_leaves_no_point_outside_after_rounding(dtype):
  rng = np.random.default_rng(6)
  x = jnp.asarray(3 * exact_geometry.directions(rng, 500, 3), dtype)
  sq = jnp.sum(poincare.project(x, c=1.0).astype(jnp.float32) ** 2, -1)
  assert jnp.all(sq < 1)


def test_riemannian_gradient_is_identity_forward_and_scales_backward():
  x = jnp.array([[0.6, 0.0], [0.0, 0.8]])
  out, vjp = jax.vjp(lambda x: poincare.riemannian_gradient(x, c=1.0), x)
  assert jnp.array_equal(out, x)
  want = jnp.array([[0.64**2 / 4], [0.36**2 / 4]]) * jnp.ones((2, 2))
  chex.assert_trees_all_close(vjp(jnp.ones_like(x))[0], want, rtol=1e-6)


@pytest.mark.parametrize('case', ['c0.1_mid', 'c1.0_mid'])
@pytest.mark.parametrize(
  ('official', 'ours'),
  [
    ('dist', poincare.dist),
    ('dist_matrix', poincare.dist_matrix),
    ('mobius_add', poincare.mobius_add),
    ('expmap0', poincare.exp0),
    ('logmap0', poincare.log0),
    ('project', poincare.project),
  ],
)
def test_official_vectors(official, ours, case):
  # The official denominator is 1e-5 too large: up to 1e-4 in this range.
  arrays = vectors.under(f'pmath/{official}/{case}')
  names = [k.removeprefix('in/') for k in arrays if k.startswith('in/')]
  inputs = [arrays[f'in/{name}'] for name in names]
  c = float(case[1:].split('_')[0])
  out, vjp = jax.vjp(lambda *a: ours(*a, c=c), *inputs)
  np.testing.assert_allclose(out, arrays['f64/out'], rtol=1e-4, atol=1e-5)
  for name, gradient in zip(names, vjp(arrays['ct']), strict=True):
    want = arrays[f'f64/grad/{name}']
    np.testing.assert_allclose(
      gradient, want, rtol=2e-4, atol=2e-4 * np.abs(want).max()
    )


@pytest.mark.parametrize('clip_radius', [None, 0.5, 2.3])
@pytest.mark.parametrize('c', [0, 1e-3, 0.1, 1.0, 1e4])
def test_to_ball_is_its_steps_at_once(c, clip_radius):
  """Gradients too: of vectors short, clipped, saturated and of length 0."""
  direction = jax.random.normal(jax.random.key(0), (48, 5))
  length = jnp.concatenate([jnp.zeros(1), jnp.logspace(-8, 12, 47)])[:, None]
  u = length * direction / jnp.linalg.norm(direction, axis=1, keepdims=True)

  def steps(u):
    v = u if clip_radius is None else poincare.clip_norm(u, clip_radius)
    x = poincare.project(poincare.exp0(v, c=c), c=c)
    return poincare.riemannian_gradient(x, c=c)

  at_once = functools.partial(poincare.to_ball, c=c, clip_radius=clip_radius)
  weight = jax.random.normal(jax.random.key(1), u.shape)
  (got, grad), (want, want_grad) = (
    jax.jit(lambda u, f=f: (f(u), jax.vjp(f, u)[1](weight)[0]))(u)
    for f in (at_once, steps)
  )
  norm = lambda a: np.linalg.norm(a, axis=1)
  np.testing.assert_array_less(norm(got - want), 5e-7 * norm(want) + 1e-37)
  # 1 - c|x|^2 is rounded at 1, of an x that is; its square is a factor of the
  # gradient.
  eps = float(jnp.finfo(jnp.float32).eps)
  tolerance = 1e-6 + 16 * eps / (1 - c * norm(want) ** 2)
  error = norm(grad - want_grad)
  np.testing.assert_array_less(error, tolerance * norm(want_grad))


@pytest.mark.parametrize(
  ('case', 'c', 'clip_radius'), [('std', 0.1, 2.3), ('c1', 1.0, 1.0)]
)
def test_official_vectors_of_to_ball(case, c, clip_radius):
  arrays = vectors.under(f'topoincare/{case}')
  f = functools.partial(poincare.to_ball, c=c, clip_radius=clip_radius)
  out, vjp = jax.vjp(f, arrays['in/x'])
  np.testing.assert_allclose(out, arrays['f64/out'], rtol=2e-6)
  (gradient,) = vjp(arrays['ct'])
  want = arrays['f64/grad/x']
  np.testing.assert_allclose(
    gradient, want, rtol=1e-4, atol=1e-5 * np.abs(want).max()
  )


def test_bad_input_is_named():
  x = jnp.zeros((3, 2))
  with pytest.raises(TypeError, match='int32'):
    poincare.exp0(jnp.zeros((3, 2), jnp.int32), c=1.0)
  with pytest.raises(
    TypeError, match=r'one dtype, got x: float32, y: bfloat16'
  ):
    poincare.dist(x, x.astype(jnp.bfloat16), c=1.0)
  with pytest.raises(ValueError, match=r'\(3, 2\), \(3, 4\)'):
    poincare.dist(x, jnp.zeros((3, 4)), c=1.0)
  with pytest.raises(
    ValueError, match=r'do not broadcast.*x: \(3, 2\), y: \(4, 2\)'
  ):
    poincare.dist(x, jnp.zeros((4, 2)), c=1.0)
  with pytest.raises(ValueError, match=r'do not broadcast.*c: \(4,\)'):
    poincare.dist(x, x, c=jnp.ones(4))
  with pytest.raises(ValueError, match=r'do not broadcast.*t: \(2,\)'):
    poincare.geodesic(jnp.ones(2), x, x, c=1.0)
  with pytest.raises(ValueError, match=r'weights.*got \(4,\) and \(3, 2\)'):
    poincare.midpoint(x, jnp.ones(4), c=1.0)
  with pytest.raises(ValueError, match=r'curvature c must be positive.*-1'):
    poincare.dist(x, x, c=-1)
  with pytest.raises(TypeError, match=r'c is None, .* 0 for its Euclidean'):
    poincare.exp0(jnp.ones(2), c=None)
  with pytest.raises(ValueError, match='nan'):
    poincare.dist(x, x, c=float('nan'))
  with pytest.raises(ValueError, match=r'got -0\.5'):
    poincare.dist(x, x, c=np.array([1.0, -0.5, 1.0]))
  with pytest.raises(ValueError, match='inf'):
    poincare.exp0(x, c=float('inf'))
  with pytest.raises(ValueError, match=r'\[n, d\] and \[m, d\]'):
    poincare.dist_matrix(x[0], x, c=1.0)
  with pytest.raises(ValueError, match='backward'):
    poincare.dist_matrix(x, x, c=1.0, backward='fast')
  with pytest.raises(ValueError, match=r'\(5, 3\), \(3, 2\)'):
    poincare.matvec(jnp.ones((5, 3)), x, c=1.0)
  with pytest.raises(ValueError, match='margin'):
    poincare.project(x, c=1.0, margin=1.5)


@pytest.mark.parametrize('jit', [nnx.jit, lambda f: f])
def test_curvature_may_be_a_parameter_of_nnx(jit):
  x = jnp.full((2, 3), 0.2)
  c = nnx.Param(jnp.float32(0.3))
  for f in (
    lambda c: poincare.dist(x, -x, c=c),
    lambda c: poincare.dist_matrix(x, -x, c=c),
    lambda c: poincare.to_ball(x, c=c, clip_radius=2.3),
    lambda c: lorentz.from_poincare(x, c=c),
  ):
    found, wanted = jit(f)(c), f(jnp.float32(0.3))
    chex.assert_trees_all_close(found, wanted, rtol=1e-6)


@pytest.mark.parametrize('c', ['0.1', None, [0.1], 1j])
def test_curvature_that_is_no_number_is_named(c):
  x = jnp.full((2, 3), 0.2)
  message = 'c must be a number or an array, got '
  if c is None:
    message = 'c is None, which elsewhere means cosines'
  with pytest.raises(TypeError, match=message):
    poincare.dist(x, x, c=c)


def test_traced_negative_curvature_counts_as_zero():
  x = jnp.full((2, 3), 0.2)
  f = jax.jit(lambda c: poincare.dist(x, -x, c=c))
  chex.assert_trees_all_equal(f(-1.0), f(0.0))
