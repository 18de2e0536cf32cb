"""The layers: official vectors, definitions, limits, learning."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from hier_jax import layers, poincare
from hier_jax.errors import UserError
from tests.support import exact_geometry, vectors


def test_ball_head_matches_official_vectors():
  arrays = vectors.under('head/small')
  head = layers.BallHead(6)

  def apply(x, w, b):
    params = {'linear': {'kernel': w.T, 'bias': b}}
    return head.apply({'params': params}, x)

  inputs = [arrays[f'in/{name}'] for name in ('x', 'W', 'b')]
  out, vjp = jax.vjp(jax.jit(apply), *inputs)
  near = functools.partial(vectors.assert_near, tolerance=5e-6)
  near(out, arrays['f64/out'])
  for name, gradient in zip(('x', 'W', 'b'), vjp(arrays['in/ct']), strict=True):
    near(gradient, arrays[f'f64/grad/{name}'])


def test_ball_head_computes_in_float32_and_starts_orthogonal():
  head = layers.BallHead(8)
  x = jax.random.normal(jax.random.key(0), (5, 32), jnp.bfloat16)
  variables = head.init(jax.random.key(1), x)
  kernel = variables['params']['linear']['kernel']
  np.testing.assert_allclose(kernel.T @ kernel, np.eye(8), atol=1e-6)
  z = head.apply(variables, x)
  assert z.dtype == jnp.float32
  # The clip radius 2.3 at c = 0.1: tanh(sqrt(.1) 2.3) / sqrt(.1).
  assert jnp.all(jnp.linalg.norm(z, axis=1) <= 1.96512)


def test_without_curvature_embeddings_are_unit_vectors():
  head = layers.BallHead(8, c=None)
  x = jax.random.normal(jax.random.key(0), (5, 32))
  z, _ = head.init_with_output(jax.random.key(1), x)
  np.testing.assert_allclose(jnp.linalg.norm(z, axis=1), 1, rtol=1e-6)


def test_at_curvature_zero_embeddings_are_clipped_vectors():
  x = 3 * jax.random.normal(jax.random.key(0), (5, 32))
  head = layers.BallHead(8, c=0, clip_radius=1.5)
  z, variables = head.init_with_output(jax.random.key(1), x)
  u = x - jnp.mean(x, 1, keepdims=True)
  u = u / jnp.sqrt(jnp.mean(u**2, 1, keepdims=True) + 1e-5)
  u = u @ variables['params']['linear']['kernel']
  length = jnp.linalg.norm(u, axis=1, keepdims=True)
  np.testing.assert_allclose(z, u * np.minimum(1, 1.5 / length), rtol=1e-4)
  assert jnp.all(length > 1.5)


def test_head_without_its_norm_or_its_clip():
  x = 0.2 * jax.random.normal(jax.random.key(0), (5, 32))
  for settings in ({'last_norm': False}, {'clip_radius': None}):
    head = layers.BallHead(8, c=0.3, **settings)
    z, variables = head.init_with_output(jax.random.key(1), x)
    (wide,) = exact_geometry.wide(x)
    if head.last_norm:
      wide = wide - wide.mean(1, keepdims=True)
      wide = wide / np.sqrt((wide**2).mean(1, keepdims=True) + 1e-5)
    u = wide @ exact_geometry.wide(variables['params']['linear']['kernel'])[0]
    if head.clip_radius is not None:
      length = exact_geometry.norm(u)
      u = u * np.minimum(1, head.clip_radius / (length + 1e-5))
    want = exact_geometry.exp0(u, exact_geometry.curvature(0.3))
    # `project`'s margin, 1e-3 of the radius, is reached without the clip.
    rim = (1 - 1e-3) / np.sqrt(exact_geometry.curvature(0.3))
    want = want * np.minimum(1, rim / exact_geometry.norm(want))
    assert exact_geometry.row_error(z, want) <= 1e-5


def test_radial_scale_frees_the_radii():
  x = jax.random.normal(jax.random.key(0), (200, 64))
  for dim in (8, 48):
    head = layers.BallHead(dim, radial_scale=1.5)
    z, variables = head.init_with_output(jax.random.key(1), x)
    radii = jnp.linalg.norm(poincare.log0(z, c=0.1), axis=1)
    # |u|^2 / d is a mean of d numbers of mean 1 in each of 200 rows.
    mean_square = jnp.mean(radii**2) / 1.5**2
    assert abs(mean_square - 1) < 5 * np.sqrt(2 / dim / 200)
    assert radii.std() > 0.05
    params = variables['params']
    np.testing.assert_allclose(params['log_radial_scale'], np.log(1.5))
    larger = {**params, 'log_radial_scale': np.float32(np.log(2.1))}
    more = poincare.log0(head.apply({'params': larger}, x), c=0.1)
    below = radii * 2.1 / 1.5 < 2.29
    assert below.any()
    ratio = jnp.linalg.norm(more, axis=1) / radii
    np.testing.assert_allclose(ratio[below], 2.1 / 1.5, rtol=1e-5)

    def loss(params, head=head):
      return jnp.sum(head.apply({'params': params}, x) ** 2)

    gradient = jax.jit(jax.grad(loss))(params)
    chex.assert_tree_all_finite(gradient)
    assert gradient['log_radial_scale'] > 0


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'radial_scale': 0.0}, 'radial_scale is 0.0; choose a positive'),
    ({'radial_scale': float('inf')}, 'radial_scale is inf; choose a positive'),
    ({'radial_scale': 1.0, 'c': None}, 'with c None .* have no radius'),
  ],
)
def test_radial_scales_that_cannot_be(settings, message):
  head = layers.BallHead(4, **settings)
  with pytest.raises(UserError, match=message):
    head.init(jax.random.key(0), np.ones((1, 4), np.float32))


def points(n=7, d=5, c=1.0, seed=0):
  return exact_geometry.ball(np.random.default_rng(seed), n, d, c, 'mid')


def perturbed(layer, *args):
  """Variables away from their symmetric start."""
  variables = jax.jit(layer.init)(jax.random.key(0), *args)
  leaves, tree = jax.tree.flatten(variables)
  keys = jax.random.split(jax.random.key(1), len(leaves))
  noise = [
    a + 0.3 * jax.random.normal(k, a.shape)
    for k, a in zip(keys, leaves, strict=True)
  ]
  return jax.tree.unflatten(tree, noise)


@pytest.mark.parametrize('c', [0.3, 1.0])
def test_hyp_linear_is_matvec_and_bias(c):
  layer, x = layers.HypLinear(3, c=c), points(c=c)
  variables = perturbed(layer, x)
  kernel, bias = (variables['params'][k] for k in ('kernel', 'bias'))
  wide = exact_geometry.wide(x, kernel, bias)
  true_c = exact_geometry.curvature(c)
  want = exact_geometry.mobius_add(
    exact_geometry.exp0(exact_geometry.log0(wide[0], true_c) @ wide[1], true_c),
    exact_geometry.exp0(wide[2], true_c),
    true_c,
  )
  got = jax.jit(layer.apply)(variables, x)
  assert exact_geometry.row_error(got, want) <= 1e-5
  bare = layers.HypLinear(3, c=c, use_bias=False)
  assert set(bare.init(jax.random.key(0), x)['params']) == {'kernel'}


def test_hyp_linear_without_curvature_is_a_linear_map():
  layer, x = layers.HypLinear(3, c=0), points()
  variables = perturbed(layer, x)
  kernel, bias = (variables['params'][k] for k in ('kernel', 'bias'))
  want = x @ kernel + bias[None]
  chex.assert_trees_all_close(layer.apply(variables, x), want, rtol=1e-5)


def mlr_by_definition(x, p, a, c):
  """Logits lambda_p |a| d(x, hyperplane through p with normal a)."""
  size = exact_geometry.conformal(p, c) * exact_geometry.norm(a)
  side = exact_geometry.dist_to_hyperplane(x[:, None], p[None], a[None], c)
  return side * size[:, 0]


@pytest.mark.parametrize('c', [0.3, 1.0])
@pytest.mark.parametrize('form', ['hnn', 'hnn++'])
def test_hyp_mlr_is_the_distance_to_hyperplanes(form, c):
  layer, x = layers.HypMLR(4, c=c, form=form), points(c=c)
  variables = perturbed(layer, x)
  params = variables['params']
  kernel, true_c = (
    *exact_geometry.wide(params['kernel']),
    exact_geometry.curvature(c),
  )
  if form == 'hnn':
    p = exact_geometry.exp0(*exact_geometry.wide(params['point']), true_c)
    a = 2 * kernel / exact_geometry.conformal(p, true_c)
  else:
    (r,) = exact_geometry.wide(params['bias'][:, None])
    p = exact_geometry.exp0(r * kernel / exact_geometry.norm(kernel), true_c)
    a = kernel / np.cosh(np.sqrt(true_c) * r) ** 2
  (wide,) = exact_geometry.wide(x)
  want = mlr_by_definition(wide, p, a, true_c)
  got = np.asarray(jax.jit(layer.apply)(variables, x))
  assert got.shape == (7, 4)
  assert np.max(np.abs(got - want)) <= 1e-5 * np.max(np.abs(want))
  grid = layer.apply(variables, x[:6].reshape(2, 3, 5))
  chex.assert_trees_all_close(grid.reshape(6, 4), got[:6], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('form', ['hnn', 'hnn++'])
def test_hyp_mlr_without_curvature_is_linear(form):
  layer, x = layers.HypMLR(4, c=0, form=form), points()
  variables = perturbed(layer, x)
  params = variables['params']
  kernel = params['kernel']
  if form == 'hnn':
    offset = jnp.sum(kernel * params['point'], 1)
  else:
    offset = params['bias'] * jnp.linalg.norm(kernel, axis=1)
  want = 4 * (x @ kernel.T - offset[None])
  got = layer.apply(variables, x)
  chex.assert_trees_all_close(got, want, rtol=1e-4, atol=1e-4)


def test_hyp_distance_to_points_or_to_an_input():
  x, y = points(), points(seed=1)
  pairwise = layers.HypDistance(c=0.5)
  chex.assert_trees_all_close(
    pairwise.apply({}, x, y), poincare.dist(x, y, c=0.5)
  )
  layer = layers.HypDistance(3, c=0.5)
  variables = perturbed(layer, x)
  centers = poincare.exp0(variables['params']['point'], c=0.5)
  want = poincare.dist(x[:, None], centers[None], c=0.5)
  chex.assert_trees_all_close(layer.apply(variables, x), want, rtol=1e-6)
  grid = layer.apply(variables, x[:6].reshape(2, 3, 5))
  assert grid.shape == (2, 3, 3)
  for wrong, args in ((layer, (x, y)), (pairwise, (x,))):
    with pytest.raises(ValueError, match='either points= or a second input'):
      wrong.init(jax.random.key(0), *args)


@pytest.mark.parametrize('initial', [1e-6, 0.1, 1.0, 50.0, 1000.0])
def test_curvature_starts_where_it_is_told(initial):
  layer = layers.Curvature(initial)
  c, variables = layer.init_with_output(jax.random.key(0))
  np.testing.assert_allclose(c, initial, rtol=2e-5)
  # Nothing an optimizer does makes it negative.
  low = jax.tree.map(lambda raw: raw - 60, variables)
  assert layer.apply(low) >= 0


def test_bad_layers_are_named():
  with pytest.raises(ValueError, match='initial is 0, expected a finite'):
    layers.Curvature(0).init(jax.random.key(0))
  with pytest.raises(ValueError, match='initial is nan, expected a finite'):
    layers.Curvature(jnp.float32('nan')).init(jax.random.key(0))
  with pytest.raises(ValueError, match="form is 'svm'"):
    layers.HypMLR(3, form='svm').init(jax.random.key(0), points())
  with pytest.raises(ValueError, match=r'curvature c must be positive.*-1'):
    layers.HypLinear(3, c=-1).init(jax.random.key(0), points())


@pytest.mark.parametrize('form', ['hnn', 'hnn++'])
def test_a_network_learns_its_weights_and_its_curvature(form):
  rng = np.random.default_rng(3)
  labels = np.repeat(np.arange(3), 20)
  centers = rng.standard_normal((3, 4))
  x = np.float32(0.4 * (centers[labels] + 0.3 * rng.standard_normal((60, 4))))
  curvature = layers.Curvature(0.5)
  hidden, top = layers.HypLinear(6), layers.HypMLR(3, form=form)
  key = jax.random.key(0)
  params = {
    'c': curvature.init(key),
    'hidden': jax.jit(hidden.init)(key, x),
    'top': jax.jit(top.init)(key, jnp.zeros((1, 6))),
  }

  def loss(params):
    c = curvature.apply(params['c'])
    z = hidden.apply(params['hidden'], poincare.exp0(x, c=c), learned_c=c)
    logits = top.apply(params['top'], z, learned_c=c)
    return jnp.mean(
      optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    )

  optimizer = optax.adam(1e-2)
  state = optimizer.init(params)

  @jax.jit
  def step(params, state):
    value, gradients = jax.value_and_grad(loss)(params)
    updates, state = optimizer.update(gradients, state)
    return optax.apply_updates(params, updates), state, value, gradients

  params, state, first, gradients = step(params, state)
  chex.assert_tree_all_finite(gradients)
  assert all(jnp.any(g != 0) for g in jax.tree.leaves(gradients))
  for _ in range(100):
    params, state, last, _ = step(params, state)
  assert last < 0.2 < 0.9 < first


def test_layers_compute_in_float32():
  x = jnp.bfloat16(points())
  for layer in (
    layers.HypLinear(3),
    layers.HypMLR(3),
    layers.HypMLR(3, form='hnn'),
    layers.HypDistance(3),
  ):
    out, variables = jax.jit(layer.init_with_output)(jax.random.key(0), x)
    assert out.dtype == jnp.float32
    f = lambda v, x, layer=layer: jnp.sum(layer.apply(v, x))
    gradients = jax.jit(jax.grad(f, (0, 1)))(variables, x)
    chex.assert_tree_all_finite(gradients)
    assert gradients[1].dtype == jnp.bfloat16
