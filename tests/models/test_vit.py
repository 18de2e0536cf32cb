"""ViT against hand counts, a NumPy float64 oracle and its contract."""

import functools
import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.models import create_backbone, resize_pos_embed, transformer, vit

IMAGES = np.random.default_rng(0).normal(size=(3, 16, 16, 3)).astype('float32')


def _model(**fields):
  return vit.ViT(
    **{**vit.VARIANTS['test'], 'patch_size': 4, 'image_size': 16, **fields}
  )


def _shapes(model, images=IMAGES):
  init = functools.partial(model.init, train=False)
  return jax.eval_shape(init, jax.random.key(0), images)['params']


def _params(model):
  """Random parameters, far from the zeros and ones they start at."""
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape, scale=0.3).astype('float32'),
    _shapes(model),
  )


def _count(params):
  return sum(leaf.size for leaf in jax.tree.leaves(params))


@functools.partial(
  jax.jit, static_argnums=0, static_argnames=('train', 'return_intermediates')
)
def _apply(model, params, images=IMAGES, train=False, **kwargs):
  return model.apply({'params': params}, images, train=train, **kwargs)


def _layer_norm(x, p):
  mean = x.mean(-1, keepdims=True)
  var = ((x - mean) ** 2).mean(-1, keepdims=True)
  return (x - mean) / np.sqrt(var + 1e-6) * p['scale'] + p['bias']


def _dense(x, p):
  return x @ p['kernel'] + p['bias']


def _attention(x, p, heads):
  """One head, one image at a time, as the formula reads."""
  width = x.shape[-1]
  size = width // heads
  y = np.zeros_like(x)
  for i, tokens in enumerate(_dense(x, p['qkv'])):
    for h in range(heads):
      q, k, v = (
        tokens[:, part * width + h * size : part * width + (h + 1) * size]
        for part in range(3)
      )
      e = np.exp(q @ k.T / math.sqrt(size))
      y[i, :, h * size : (h + 1) * size] = e / e.sum(1, keepdims=True) @ v
  return _dense(y, p['proj'])


def _mlp(x, p):
  y = _dense(x, p['fc1'])
  hidden = len(p['fc2']['kernel'])
  if y.shape[-1] == 2 * hidden:
    gate, value = y[..., :hidden], y[..., hidden:]
    return _dense(gate / (1 + np.exp(-gate)) * value, p['fc2'])
  y = y * 0.5 * (1 + np.vectorize(math.erf)(y / math.sqrt(2)))
  return _dense(y, p['fc2'])


def _block(x, p, heads):
  scale1, scale2 = p.get('ls1', 1), p.get('ls2', 1)
  x = x + scale1 * _attention(_layer_norm(x, p['norm1']), p['attn'], heads)
  return x + scale2 * _mlp(_layer_norm(x, p['norm2']), p['mlp'])


def _patches(images, patch):
  """`[b, H, W, 3]` to `[b, n, patch * patch * 3]`, row by row."""
  _, h, w, _ = images.shape
  return np.stack(
    [
      images[:, i : i + patch, j : j + patch].reshape(len(images), -1)
      for i in range(0, h, patch)
      for j in range(0, w, patch)
    ],
    axis=1,
  )


def _vit(p, images, *, patch, heads, depth):
  """Final tokens of a ViT at its reference size."""
  kernel = p['patch_embed']['kernel']
  x = _patches(images, patch) @ kernel.reshape(-1, kernel.shape[-1])
  x = x + p['patch_embed']['bias']
  first = [p['cls_token'], *([p['dist_token']] if 'dist_token' in p else [])]
  first = np.concatenate(first, 1).repeat(len(x), 0)
  n = first.shape[1]
  x = np.concatenate([first, x], 1) + p['pos_embed']
  if 'reg_token' in p:
    registers = p['reg_token'].repeat(len(x), 0)
    x = np.concatenate([x[:, :n], registers, x[:, n:]], 1)
  for i in range(depth):
    x = _block(x, p[f'block{i}'], heads)
  return _layer_norm(x, p['norm'])


@pytest.mark.parametrize(
  'fields',
  [
    {},
    {'distilled': True, 'deit_token': 'mean'},
    {'num_registers': 3, 'layer_scale': 0.7},
    {'swiglu': True, 'mlp_width': 24, 'layer_scale': 0.7},
  ],
  ids=['plain', 'deit', 'dinov2', 'swiglu'],
)
def test_equals_float64_oracle(fields):
  model = _model(**fields)
  params = _params(model)
  got, tokens = _apply(model, params, return_intermediates=True)
  exact = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
  want = _vit(exact, IMAGES.astype(np.float64), patch=4, heads=2, depth=2)
  np.testing.assert_allclose(tokens['norm'], want, rtol=1e-5, atol=1e-5)
  first = 2 if model.distilled else 1
  np.testing.assert_allclose(got, want[:, :first].mean(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
  ('name', 'count'),
  # timm's counts without a head, and ViT-S by hand below.
  [
    ('vit_tiny_patch16_224', 5_524_416),
    ('vit_small_patch16_224', 21_665_664),
    ('vit_base_patch16_224', 85_798_656),
    ('vit_large_patch16_224', 303_301_632),
    ('deit_small_distilled_patch16_224', 21_665_664 + 2 * 384),
    # Those of the Hugging Face hub without the mask token.
    ('vit_small_patch14_dinov2', 22_056_576 - 384),
    ('vit_giant_patch14_dinov2', 1_136_480_768 - 1536),
  ],
)
def test_parameter_counts(name, count):
  model = create_backbone(name)
  size = model.image_size
  assert _count(_shapes(model, np.zeros((1, size, size, 3)))) == count


def test_small_count_by_hand():
  w = 384
  embed = 16 * 16 * 3 * w + w + w + (14 * 14 + 1) * w
  attention = w * 3 * w + 3 * w + w * w + w
  mlp = w * 4 * w + 4 * w + 4 * w * w + w
  assert embed + 12 * (attention + mlp + 4 * w) + 2 * w == 21_665_664


def test_optional_parameters_add_what_they_should():
  def count(**fields):
    return _count(_shapes(_model(**fields)))

  plain, w = count(), 32
  assert count(distilled=True) == plain + 2 * w
  assert count(num_registers=4) == plain + 4 * w
  assert count(layer_scale=1e-5) == plain + 2 * 2 * w


def test_bfloat16_computes_and_float32_remains():
  model = _model(dtype=jnp.bfloat16, layer_scale=0.7, num_registers=3)
  chex.assert_type(jax.tree.leaves(_shapes(model)), jnp.float32)
  params = _params(model)
  features, tokens = _apply(model, params, return_intermediates=True)
  assert features.dtype == jnp.float32
  assert {k: str(v.dtype) for k, v in tokens.items()} == {
    'embed': 'bfloat16',
    'block0': 'bfloat16',
    'block1': 'bfloat16',
    'norm': 'float32',
  }
  exact = _apply(model.clone(dtype=jnp.float32), params)
  assert 0 < np.abs(features - exact).max() < 0.1


def test_intermediates():
  model = _model(num_registers=3, layer_scale=0.7)
  params = _params(model)
  features, tokens = _apply(model, params, return_intermediates=True)
  chex.assert_shape(features, (3, 32))
  assert set(tokens) == {'embed', 'block0', 'block1', 'norm'}
  chex.assert_shape(list(tokens.values()), (3, 1 + 3 + 16, 32))
  np.testing.assert_array_equal(features, tokens['norm'][:, 0])


def test_tokens_by_kind():
  model = _model(distilled=True, num_registers=3)
  tokens = np.arange(21.0).reshape(1, 21, 1).repeat(2, 0)
  parts = model.split_tokens(tokens)
  found = {kind: part[1, :, 0].tolist() for kind, part in parts.items()}
  assert found == {
    'class': [0],
    'distillation': [1],
    'registers': [2, 3, 4],
    'patches': list(range(5, 21)),
  }
  assert _model().split_tokens(tokens)['distillation'].shape == (2, 0, 1)


def test_pools():
  model = _model(num_registers=3)
  params = _params(model)
  token, tokens = _apply(model, params, return_intermediates=True)
  mean = tokens['norm'][:, 4:].mean(1)
  want = {'mean': mean, 'token_mean': np.concatenate([token, mean], 1)}
  for pool, features in want.items():
    got = _apply(model.clone(pool=pool), params)
    np.testing.assert_allclose(got, features, rtol=1e-6, atol=1e-6)


def _with_pos_embed(params, pos_embed):
  """Only position embeddings reach the first block."""
  params = jax.tree.map(jnp.zeros_like, params)
  return {**params, 'pos_embed': jnp.asarray(pos_embed, jnp.float32)[None]}


def _embed(model, params, height, width):
  images = np.zeros((1, height, width, 3), np.float32)
  _, tokens = _apply(model, params, images, return_intermediates=True)
  return np.asarray(tokens['embed'][0])


def test_position_embeddings_at_the_reference_size_are_the_parameters():
  model = _model(depth=0)
  pos_embed = np.random.default_rng(2).normal(size=(17, 32))
  params = _with_pos_embed(_params(model), pos_embed)
  np.testing.assert_array_equal(
    _embed(model, params, 16, 16), pos_embed.astype('float32')
  )


def _cubic(t):
  """Keys' kernel with a = -0.75, PyTorch's bicubic."""
  a, t = -0.75, abs(t)
  if t <= 1:
    return (a + 2) * t**3 - (a + 3) * t**2 + 1
  return a * (t**3 - 5 * t**2 + 8 * t - 4) if t < 2 else 0.0


def _resize_matrix(n, m):
  """`[m, n]`: half-pixel centers, borders repeated, no antialiasing."""
  weights = np.zeros((m, n))
  for i in range(m):
    x = (i + 0.5) * n / m - 0.5
    for j in range(math.floor(x) - 1, math.floor(x) + 3):
      weights[i, min(max(j, 0), n - 1)] += _cubic(x - j)
  return weights


@pytest.mark.parametrize(('rows', 'columns'), [(6, 6), (3, 2), (4, 7)])
def test_position_embeddings_at_other_sizes_are_bicubic(rows, columns):
  model = _model(depth=0)
  pos_embed = np.random.default_rng(2).normal(size=(17, 32))
  params = _with_pos_embed(_params(model), pos_embed)
  got = _embed(model, params, 4 * rows, 4 * columns)
  want = np.einsum(
    'im,jn,mnd->ijd',
    _resize_matrix(4, rows),
    _resize_matrix(4, columns),
    pos_embed[1:].reshape(4, 4, 32),
  )
  np.testing.assert_array_equal(got[0], pos_embed[0].astype('float32'))
  np.testing.assert_allclose(got[1:], want.reshape(-1, 32), atol=1e-5)


def test_position_embeddings_of_a_grid_that_is_not_square():
  old = np.random.default_rng(2).normal(size=(1, 2 + 15, 4)).astype('float32')
  got = resize_pos_embed(old, 2, (3, 5), (6, 4))
  want = np.einsum(
    'im,jn,mnd->ijd',
    _resize_matrix(3, 6),
    _resize_matrix(5, 4),
    old[0, 2:].reshape(3, 5, 4),
  )
  np.testing.assert_array_equal(got[:, :2], old[:, :2])
  np.testing.assert_allclose(got[0, 2:], want.reshape(-1, 4), atol=1e-5)


@pytest.mark.parametrize('train', [True, False])
def test_deit_token(train):
  model = _model(distilled=True)
  params = _params(model)
  features = {
    token: _apply(model.clone(deit_token=token), params, train=train)
    for token in ('cls', 'mean', 'official')
  }
  assert np.abs(features['cls'] - features['mean']).max() > 0.1
  same = 'cls' if train else 'mean'
  np.testing.assert_allclose(features['official'], features[same], atol=1e-5)


@pytest.mark.parametrize(
  ('fields', 'message'),
  [
    ({'deit_token': 'both'}, r"deit_token is 'both'.*'cls', 'mean', 'offici"),
    ({'deit_token': 'mean'}, "deit_token is 'mean', but this model has no"),
    ({'pool': 'max'}, r"pool is 'max'; choose one of \('token', 'mean', 'tok"),
    ({'drop_path': 1.0}, 'drop_path is 1.0; choose a rate of at least 0'),
    ({'drop_path': -0.1}, 'drop_path is -0.1'),
  ],
)
def test_attributes_that_cannot_be(fields, message):
  with pytest.raises(UserError, match=message):
    _shapes(_model(**fields))


def _dropping(depth, rate, **fields):
  """A model, and parameters with which only attention changes the tokens."""
  model = _model(depth=depth, image_size=4, drop_path=rate, **fields)
  params = _params(model)
  for i in range(depth):
    mlp = params[f'block{i}']['mlp']
    mlp['fc2'] = jax.tree.map(np.zeros_like, mlp['fc2'])
  return model, params


def test_drop_path_leaves_branches_out_more_often_with_depth():
  model, params = _dropping(3, 0.5)
  rows = 1024
  images = np.random.default_rng(4).normal(size=(rows, 4, 4, 3))
  images = images.astype('float32')
  rngs = {'drop_path': jax.random.key(0)}
  apply = functools.partial(_apply, model, params, images)
  _, dropped = apply(train=True, return_intermediates=True, rngs=rngs)
  for i, rate in enumerate((0, 0.25, 0.5)):
    x = dropped[f'block{i - 1}' if i else 'embed']
    block = transformer.Block(num_heads=2, mlp_width=128)
    whole = jax.jit(block.apply)({'params': params[f'block{i}']}, x)
    got, whole = np.asarray(dropped[f'block{i}'] - x), np.asarray(whole - x)
    left_out = ~np.any(got, axis=(1, 2))
    # Within five standard deviations of the binomial count.
    deviation = 5 * math.sqrt(rate * (1 - rate) / rows)
    assert abs(left_out.mean() - rate) <= deviation
    want = whole[~left_out] / (1 - rate)
    np.testing.assert_allclose(got[~left_out], want, rtol=1e-4, atol=1e-4)
  # No rng is needed, and none used, outside training.
  want = _apply(model.clone(drop_path=0.0), params, images)
  np.testing.assert_allclose(apply(train=False), want, atol=1e-5)


def test_drop_path_does_not_depend_on_the_number_of_devices():
  model, params = _dropping(2, 0.5)
  images = np.random.default_rng(4).normal(size=(8, 4, 4, 3)).astype('float32')
  rngs = {'drop_path': jax.random.key(3)}
  one = _apply(model, params, images, train=True, rngs=rngs)
  spread = model.clone(axis_name='devices')
  four = jax.pmap(
    lambda images: spread.apply(
      {'params': params}, images, train=True, rngs=rngs
    ),
    axis_name='devices',
  )(images.reshape(4, 2, 4, 4, 3))
  np.testing.assert_allclose(four.reshape(8, -1), one, rtol=1e-5, atol=1e-5)
  whole = _apply(model.clone(drop_path=0.0), params, images)
  changed = np.abs(one - whole).max(1) > 1e-3
  assert changed.any()


def test_remat_keeps_less_and_changes_no_gradient():
  fields = {'depth': 4, 'drop_path': 0.3, 'layer_scale': 0.7}
  rngs = {'drop_path': jax.random.key(0)}
  params = _params(_model(**fields))

  def kept_and_gradient(remat):
    """Numbers kept for the backward pass besides parameters, and its result."""
    model = _model(remat=remat, **fields)
    apply = functools.partial(_apply, model, train=True, rngs=rngs)
    features, pull = jax.vjp(apply, params)
    kept = sum(leaf.size for leaf in jax.tree.leaves(pull))
    return kept - _count(params), pull(jnp.ones_like(features))

  assert jax.tree.structure(params) == jax.tree.structure(
    _shapes(_model(remat=True, **fields))
  )
  kept, want = kept_and_gradient(False)
  less, got = kept_and_gradient(True)
  scale = max(np.abs(leaf).max() for leaf in jax.tree.leaves(want))
  chex.assert_trees_all_close(got, want, rtol=0, atol=1e-5 * scale)
  # The tokens between blocks, against a dozen arrays and more within each.
  assert less < kept / 4


@pytest.mark.parametrize('remat', [False, True])
def test_blocks_as_one_loop_compute_the_same(remat):
  fields = {'depth': 3, 'drop_path': 0.5, 'layer_scale': 0.7}
  rngs = {'drop_path': jax.random.key(0)}
  model = _model(token_multiple=8, **fields)
  params = _params(model)

  def run(model):
    def apply(params):
      return _apply(
        model, params, train=True, return_intermediates=True, rngs=rngs
      )

    (features, tokens), pull = jax.vjp(jax.jit(apply), params)
    ones = jax.tree.map(jnp.ones_like, tokens)
    return features, tokens, pull((features, ones))

  scanned = model.clone(scan_blocks=True, remat=remat)
  assert _shapes(scanned) == _shapes(model)
  chex.assert_trees_all_close(run(scanned), run(model), rtol=1e-4, atol=1e-4)
  plain = _apply(model, params)
  np.testing.assert_allclose(_apply(scanned, params), plain, rtol=1e-5)


def test_one_block_of_a_loop_is_compiled():
  def products(**fields):
    model = _model(depth=6, **fields)
    lowered = _apply.lower(model, _shapes(model))
    return lowered.as_text().count('dot_general')

  assert products(scan_blocks=True) < products() / 3


@pytest.mark.parametrize(
  'fields',
  [{}, {'distilled': True, 'num_registers': 2, 'layer_scale': 0.1}],
  ids=['plain', 'all'],
)
def test_every_parameter_has_a_gradient(fields):
  model = _model(**fields)
  params = _params(model)
  target = np.random.default_rng(3).normal(size=(3, 32)).astype('float32')

  @jax.jit
  def grads(params):
    return jax.grad(lambda p: jnp.sum(target * _apply(model, p, train=True)))(
      params
    )

  grads = grads(params)
  chex.assert_tree_all_finite(grads)
  assert not [
    path
    for path, leaf in jax.tree_util.tree_leaves_with_path(grads)
    if not jnp.any(leaf)
  ]


@pytest.mark.parametrize('remat', [False, True])
def test_padding_tokens_change_nothing(remat):
  plain = _model(token_multiple=1)
  params = _params(plain)
  padded = plain.clone(token_multiple=8, remat=remat)

  def run(model):
    apply = lambda params: _apply(model, params, return_intermediates=True)
    (features, tokens), pull = jax.vjp(jax.jit(apply), params)
    ones = jax.tree.map(jnp.ones_like, tokens)
    return features, tokens, pull((features, ones))

  chex.assert_trees_all_close(run(padded), run(plain), rtol=1e-4, atol=1e-5)


def test_what_a_gpu_is_given_computes_the_same(monkeypatch):
  model = _model()
  params = _params(model)

  def run():
    y, pull = jax.vjp(jax.jit(lambda p: _apply(model, p)), params)
    return y, pull(jnp.ones_like(y))

  want = run()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  chex.assert_trees_all_close(run(), want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('shape', [(18, 16), (16, 18), (0, 16)])
def test_images_that_are_no_multiple_of_the_patch(shape):
  model = _model()
  params = _params(model)
  message = f'{shape[0]}x{shape[1]} .* multiples of 4'
  with pytest.raises(UserError, match=message):
    _apply(model, params, np.zeros((1, *shape, 3), np.float32))


def test_reference_size_that_is_no_multiple_of_the_patch():
  with pytest.raises(UserError, match=r'30x30 .* multiples of 4'):
    _params(_model(image_size=30))


def test_initial_values():
  model = transformer.Block(2, mlp_width=128, layer_scale=0.1)
  tokens = np.zeros((1, 1, 32), np.float32)
  block = jax.jit(model.init)(jax.random.key(0), tokens)['params']
  # A normal of 0.02 cut at two standard deviations keeps 0.8796 of it.
  for kernel in (block['attn']['qkv'], block['mlp']['fc1']):
    np.testing.assert_allclose(np.std(kernel['kernel']), 0.0176, rtol=0.05)
    assert not np.any(kernel['bias'])
  np.testing.assert_array_equal(block['ls1'], np.full(32, np.float32(0.1)))
  np.testing.assert_array_equal(block['norm1']['scale'], np.ones(32))
