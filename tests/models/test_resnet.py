"""ResNet against hand counts, a NumPy float64 oracle and its contract."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from hier_jax.errors import UserError
from hier_jax.models import create_backbone, resnet

IMAGES = np.random.default_rng(0).normal(size=(8, 16, 16, 3)).astype('float32')


def _model(**fields):
  return resnet.ResNet(**{**resnet.VARIANTS['resnet_test'], **fields})


# Parameters of resnet_thin but its first kernel: 32; 32 -> 64; 64 -> 128; 128.
THIN = (
  2 * 32
  + (9 * 32 * 64 + 9 * 64 * 64 + 32 * 64 + 3 * 2 * 64)
  + (9 * 64 * 128 + 9 * 128 * 128 + 64 * 128 + 3 * 2 * 128)
  + (2 * 9 * 128 * 128 + 2 * 2 * 128)
)
BOTTLENECK = {
  'block': resnet.Bottleneck,
  'stages': ((4, 2, 1), (6, 1, 2)),
  'stem_patch': None,
}


def _shapes(model, images=IMAGES):
  init = functools.partial(model.init_with_output, train=False)
  return jax.eval_shape(init, jax.random.key(0), images)


def _variables(model):
  """Random variables, far from the zeros and ones they start at."""
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    if path[-1].key == 'kernel':
      return rng.normal(size=leaf.shape, scale=0.3).astype('float32')
    return rng.uniform(0.5, 1.5, leaf.shape).astype('float32')

  return jax.tree_util.tree_map_with_path(draw, _shapes(model)[1])


@functools.partial(jax.jit, static_argnums=0)
def _train(model, variables, images):
  return model.apply(variables, images, train=True, mutable=['batch_stats'])


@functools.partial(jax.jit, static_argnums=0)
def _evaluate(model, variables, images):
  return model.apply(variables, images, train=False)


def _conv(x, kernel, stride=1):
  """Cross-correlation padded alike on both sides; patches are not padded."""
  size = kernel.shape[0]
  pad = (size - 1) // 2 if size % 2 else 0
  x = np.pad(x, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
  windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
  return np.einsum('bhwcij,ijcf->bhwf', windows[:, ::stride, ::stride], kernel)


def _norm(x, params, stats=None):
  """BatchNorm with the batch's statistics, or with running ones."""
  mean = x.mean((0, 1, 2)) if stats is None else stats['mean']
  var = x.var((0, 1, 2)) if stats is None else stats['var']
  return (x - mean) / np.sqrt(var + 1e-5) * params['scale'] + params['bias']


def _blurred(x):
  """Averages of the map and of what its neighbors on each side hold."""
  x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), 'edge')
  windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
  weights = np.outer([1, 2, 1], [1, 2, 1]) / 16
  return np.einsum('bhwcij,ij->bhwc', windows, weights)


def _resnet(params, images, stages, stem_stride, stats=None, blur=False):
  """Features; `stages` are lists of the blocks' strides."""
  relu = functools.partial(np.maximum, 0)
  of = (lambda *path: None) if stats is None else functools.partial(_at, stats)
  x = _conv(images, params['conv1']['kernel'], stem_stride)
  x = relu(_norm(x, params['bn1'], of('bn1')))
  if params['conv1']['kernel'].shape[0] == 7:
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))
    x = windows[:, ::2, ::2].max((-2, -1))
  for i, strides in enumerate(stages, start=1):
    for j, stride in enumerate(strides):
      name = f'layer{i}_{j}'
      p, convs = params[name], 3 if 'conv3' in params[name] else 2
      x = _blurred(x) if blur and stride > 1 else x
      y = x
      for k in range(1, convs + 1):
        strided = stride if k == convs - 1 else 1
        y = _conv(y, p[f'conv{k}']['kernel'], strided)
        y = _norm(y, p[f'bn{k}'], of(name, f'bn{k}'))
        y = y if k == convs else relu(y)
      if 'downsample_conv' in p:
        x = _conv(x, p['downsample_conv']['kernel'], stride)
        x = _norm(x, p['downsample_bn'], of(name, 'downsample_bn'))
      x = relu(x + y)
  return x.mean((1, 2)) + x.max((1, 2))


def _at(tree, *path):
  return functools.reduce(lambda t, key: t[key], path, tree)


@pytest.mark.parametrize('train', [True, False])
@pytest.mark.parametrize(
  ('fields', 'strides', 'stem_stride'),
  [
    ({}, [[1], [2]], 4),
    (BOTTLENECK, [[1, 1], [2]], 2),
    ({'stem_size': 5, 'blur': True}, [[1], [2]], 4),
    ({**BOTTLENECK, 'blur': True}, [[1, 1], [2]], 2),
  ],
  ids=['basic', 'bottleneck', 'blur', 'bottleneck_blur'],
)
def test_equals_float64_oracle(train, fields, strides, stem_stride):
  model = _model(**fields)
  variables = _variables(model)
  exact = jax.tree.map(lambda a: np.asarray(a, np.float64), variables)
  stats = None if train else exact['batch_stats']
  images = IMAGES.astype(np.float64)
  blur = fields.get('blur', False)
  want = _resnet(exact['params'], images, strides, stem_stride, stats, blur)
  if train:
    got, _ = _train(model, variables, IMAGES)
  else:
    got = _evaluate(model, variables, IMAGES)
  # Relative to the largest: a feature rounds at the scale of what it sums.
  np.testing.assert_allclose(got, want, atol=1e-5 * want.max())


@pytest.mark.parametrize(
  ('name', 'count', 'width'),
  [
    # torchvision's 25,557,032 without the head's 2048 x 1000 + 1000.
    ('resnet50', 25_557_032 - 2_049_000, 2048),
    # With its stem of 2x2 and of 5x5 patches.
    ('resnet_thin', 12 * 32 + THIN, 128),
    ('resnet_thin_blur', 75 * 32 + THIN, 128),
    (
      'resnet_thin_wide',
      (12 * 48 + 2 * 48)
      + (9 * 48 * 96 + 9 * 96 * 96 + 48 * 96 + 3 * 2 * 96)
      + (9 * 96 * 192 + 9 * 192 * 192 + 96 * 192 + 3 * 2 * 192)
      + (2 * 9 * 192 * 192 + 2 * 2 * 192),
      192,
    ),
  ],
)
def test_parameter_counts_and_shapes(name, count, width):
  model = create_backbone(name, image_size=32)
  for size in (32, 40):
    images = np.zeros((2, size, size, 3), np.float32)
    features, variables = _shapes(model, images)
    chex.assert_shape(features, (2, width))
    leaves = jax.tree.leaves(variables['params'])
    assert sum(leaf.size for leaf in leaves) == count


def test_bfloat16_computes_and_float32_remains():
  model = _model(dtype=jnp.bfloat16)
  variables = _variables(model)
  features, updates = _train(model, variables, IMAGES)
  chex.assert_type(jax.tree.leaves((variables, updates, features)), jnp.float32)
  exact, _ = _train(_model(), variables, IMAGES)
  assert 0 < np.abs(features - exact).max() < 0.2


def test_batch_norm_across_devices_is_that_of_the_whole_batch():
  model = _model(axis_name='devices')
  variables = _variables(model)
  # Devices whose own statistics differ much.
  images = IMAGES * np.arange(1, 9, dtype='float32').reshape(8, 1, 1, 1)
  target = np.random.default_rng(2).normal(size=(8, 16)).astype('float32')

  def step(model, variables, images, target):
    def loss(params):
      features, updates = _train(model, {**variables, 'params': params}, images)
      return jnp.sum(features * target), (features, updates)

    return jax.grad(loss, has_aux=True)(variables['params'])

  def device_step(variables, images, target):
    grads, (features, updates) = step(model, variables, images, target)
    return jax.lax.psum(grads, 'devices'), (features, updates)

  split = lambda a: a.reshape(4, 2, *a.shape[1:])
  grads, (features, updates) = jax.pmap(
    device_step, axis_name='devices', in_axes=(None, 0, 0)
  )(variables, split(images), split(target))
  want_grads, (want_features, want_updates) = jax.jit(
    functools.partial(step, _model())
  )(variables, images, target)

  np.testing.assert_allclose(
    features.reshape(8, 16), want_features, rtol=1e-5, atol=1e-5
  )
  for device in range(4):
    here = functools.partial(jax.tree.map, lambda a, i=device: a[i])
    chex.assert_trees_all_close(here(updates), want_updates, rtol=1e-5)
    got, want = ravel_pytree(here(grads))[0], ravel_pytree(want_grads)[0]
    # Relative to the largest: a sum over the batch rounds at its terms' scale.
    np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())


def test_running_statistics():
  model = _model()
  variables = _variables(model)
  _, updates = _train(model, variables, IMAGES)
  kernel = np.asarray(variables['params']['conv1']['kernel'], np.float64)
  x = _conv(IMAGES.astype(np.float64), kernel, 4)
  old, new = variables['batch_stats']['bn1'], updates['batch_stats']['bn1']
  np.testing.assert_allclose(
    new['mean'], 0.9 * old['mean'] + 0.1 * x.mean((0, 1, 2)), rtol=1e-5
  )
  np.testing.assert_allclose(
    new['var'], 0.9 * old['var'] + 0.1 * x.var((0, 1, 2)), rtol=1e-5
  )


def test_evaluation_does_not_depend_on_the_rest_of_the_batch():
  model = _model()
  variables = _variables(model)
  alone = _evaluate(model, variables, IMAGES[:1])
  among = _evaluate(model, variables, IMAGES)[:1]
  np.testing.assert_allclose(alone, among, rtol=1e-6)
  first, _ = _train(model, variables, IMAGES[:4])
  second, _ = _train(model, variables, IMAGES)
  assert np.abs(first[:1] - second[:1]).max() > 0.01


@pytest.mark.parametrize(
  'fields', [{}, BOTTLENECK], ids=['basic', 'bottleneck']
)
def test_every_parameter_has_a_gradient(fields):
  model = _model(**fields)
  variables = _variables(model)
  shape = _shapes(model)[0].shape
  target = np.random.default_rng(3).normal(size=shape).astype('float32')

  @jax.jit
  def grads(params):
    def loss(params):
      features, _ = _train(model, {**variables, 'params': params}, IMAGES)
      return jnp.sum(features * target)

    return jax.grad(loss)(params)

  grads = grads(variables['params'])
  chex.assert_tree_all_finite(grads)
  assert not [
    path
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
    if not jnp.any(leaf)
  ]


def test_frozen_statistics_are_used_and_kept_and_the_rest_is_trained():
  model = _model(frozen_stats=True)
  variables = _variables(model)
  features, updates = _train(model, variables, IMAGES)
  want = _evaluate(_model(), variables, IMAGES)
  np.testing.assert_allclose(features, want, rtol=1e-6)
  chex.assert_trees_all_equal(updates['batch_stats'], variables['batch_stats'])

  def loss(params):
    return jnp.sum(_train(model, {**variables, 'params': params}, IMAGES)[0])

  grads = jax.jit(jax.grad(loss))(variables['params'])
  for name in ('scale', 'bias'):
    assert np.all(np.isfinite(grads['bn1'][name]))
    assert np.any(grads['bn1'][name])


def test_pools_and_intermediates():
  model = _model()
  variables = _variables(model)
  apply = functools.partial(model.apply, train=False, return_intermediates=True)
  features, maps = jax.jit(apply)(variables, IMAGES)
  shapes = {name: x.shape[1:] for name, x in maps.items()}
  assert shapes == {
    'stem': (4, 4, 8),
    'layer1_0': (4, 4, 8),
    'layer2_0': (2, 2, 16),
  }
  last = np.asarray(maps['layer2_0'])
  average, maximum = last.mean((1, 2)), last.max((1, 2))
  np.testing.assert_allclose(features, average + maximum, rtol=1e-6)
  for pool, want in (('avg', average), ('max', maximum)):
    got = _evaluate(model.clone(pool=pool), variables, IMAGES)
    np.testing.assert_allclose(got, want, rtol=1e-6)
  flat = _evaluate(model.clone(pool='flatten'), variables, IMAGES)
  np.testing.assert_allclose(flat, last.reshape(len(last), -1), rtol=1e-6)
  with pytest.raises(UserError, match=r"pool is 'sum'.*'avg_max', 'avg', 'm"):
    _shapes(_model(pool='sum'))


@pytest.mark.parametrize(
  'fields',
  [{'stem_size': 4}, {'stem_size': 0}, {'stem_size': 5, 'stem_patch': None}],
)
def test_a_kernel_of_the_stem_has_a_middle_and_patches(fields):
  size = fields['stem_size']
  with pytest.raises(UserError, match=f'stem_size is {size} .*odd size'):
    _shapes(_model(**fields))


def test_remat_changes_no_gradient():
  variables = _variables(_model())

  @functools.partial(jax.jit, static_argnums=0)
  def grads(model):
    def loss(params):
      features, updates = _train(model, {**variables, 'params': params}, IMAGES)
      return jnp.sum(features[:, :5]), updates

    return jax.grad(loss, has_aux=True)(variables['params'])

  got, want = grads(_model(remat=True)), grads(_model())
  chex.assert_trees_all_close(got[1], want[1], rtol=1e-5)
  got, want = ravel_pytree(got[0])[0], ravel_pytree(want[0])[0]
  np.testing.assert_allclose(got, want, atol=1e-5 * np.abs(want).max())
