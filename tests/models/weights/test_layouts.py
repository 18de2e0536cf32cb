"""The tables of names, row by row."""

import collections
import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from hier_jax import models
from hier_jax.models import registry
from hier_jax.models.weights import layouts

BY_NAME = {layout.name: layout for layout in layouts.LAYOUTS}


@functools.cache
def _shapes(architecture):
  """Shapes by path, of a model with few blocks."""
  options = {} if architecture == 'resnet50' else {'depth': 1}
  model = models.create_backbone(architecture, **options)
  images = jax.ShapeDtypeStruct((1, 112, 112, 3), np.float32)
  init = functools.partial(model.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), images)
  flat = traverse_util.flatten_dict(shapes, sep='/')
  return {path: leaf.shape for path, leaf in flat.items()}


@pytest.mark.parametrize('architecture', registry.PUBLISHED)
@pytest.mark.parametrize(
  'layout', [layouts.TIMM, layouts.OURS], ids=lambda x: x.name
)
def test_every_parameter_has_a_row_and_a_way_back(architecture, layout):
  rng = np.random.default_rng(0)
  sources = collections.Counter()
  for target, shape in _shapes(architecture).items():
    row = layout.row(target)
    assert row is not None, target
    (source,) = row.sources
    assert layout.knows(source) and not layout.drops(source)
    sources[source] += 1
    array = rng.random([min(n, 7) for n in shape])
    saved = row.transform.save(array)
    np.testing.assert_array_equal(row.transform.load(saved), array)
  assert max(sources.values()) == 1


@pytest.mark.parametrize(
  ('layout', 'architecture'),
  [
    ('DINOv2', 'vit_small_patch14_reg4_dinov2'),
    ('DINOv2 giant', 'vit_giant_patch14_reg4_dinov2'),
    ('transformers ViT', 'deit_small_distilled_patch16_224'),
    ('transformers Dinov2', 'vit_small_patch14_reg4_dinov2'),
    ('transformers Dinov2 giant', 'vit_giant_patch14_reg4_dinov2'),
    ('AugReg', 'vit_small_patch16_224'),
    ('big_vision', 'vit_small_patch16_224'),
  ],
)
def test_other_layouts_name_every_parameter_and_are_detected(
  layout, architecture
):
  names = [
    source
    for target in _shapes(architecture)
    for source in BY_NAME[layout].row(target).sources
  ]
  assert len(set(names)) == len(names)
  assert layouts.detect(names) is BY_NAME[layout]


def test_linear_and_convolution_by_hand():
  linear = np.array([[1, 2, 3], [4, 5, 6]])  # 3 inputs, 2 outputs
  np.testing.assert_array_equal(
    layouts.LINEAR.load(linear), [[1, 4], [2, 5], [3, 6]]
  )
  conv = np.arange(2 * 3 * 5 * 7).reshape(2, 3, 5, 7)
  ours = layouts.CONV.load(conv)
  assert ours.shape == (5, 7, 3, 2)
  assert ours[4, 1, 2, 1] == conv[1, 2, 4, 1]


def test_queries_keys_and_values_by_hand():
  q, k, v = (n + np.array([[0, 1], [2, 3]]) for n in (10, 20, 30))
  row = BY_NAME['transformers ViT'].row('params/block0/attn/qkv/kernel')
  assert [name.split('.')[-2] for name in row.sources] == [
    'query',
    'key',
    'value',
  ]
  np.testing.assert_array_equal(
    row.transform.load(q, k, v),
    [[10, 12, 20, 22, 30, 32], [11, 13, 21, 23, 31, 33]],
  )
  row = BY_NAME['AugReg'].row('params/block0/attn/qkv/kernel')
  # [inputs, heads, size of a head]
  heads = [a.reshape(2, 1, 2) for a in (q, k, v)]
  np.testing.assert_array_equal(
    row.transform.load(*heads),
    [[10, 11, 20, 21, 30, 31], [12, 13, 22, 23, 32, 33]],
  )
  out = BY_NAME['AugReg'].row('params/block0/attn/proj/kernel').transform
  # [heads, size of a head, outputs]
  array = np.arange(2 * 3 * 4).reshape(2, 3, 4)
  assert out.load(array)[1 * 3 + 2, 3] == array[1, 2, 3]


def test_numbers_go_over():
  row = layouts.TIMM.row('params/block12/mlp/fc2/kernel')
  assert row.sources == ('blocks.12.mlp.fc2.weight',)
  row = layouts.TIMM.row('batch_stats/layer2_13/bn3/var')
  assert row.sources == ('layer2.13.bn3.running_var',)
  assert layouts.TIMM.row('params/blockx/mlp/fc2/kernel') is None


@pytest.mark.parametrize(
  ('layout', 'name', 'bare'),
  [
    ('timm', 'module.backbone.norm.weight', 'norm.weight'),
    ('timm', 'backbone.norm.weight', 'norm.weight'),
    ('timm', 'norm.weight', 'norm.weight'),
    ('timm', 'student.norm.weight', 'student.norm.weight'),
    ('transformers ViT', 'deit.layernorm.bias', 'layernorm.bias'),
    (
      'transformers Dinov2',
      'dinov2_with_registers.layernorm.bias',
      'layernorm.bias',
    ),
    ('AugReg', 'opt/target/cls', 'cls'),
    ('big_vision', 'params/img/cls', 'cls'),
    ('hier_jax', 'params/backbone/norm/bias', 'params/norm/bias'),
    ('hier_jax', 'batch_stats/backbone/bn1/var', 'batch_stats/bn1/var'),
  ],
)
def test_prefixes(layout, name, bare):
  assert BY_NAME[layout].bare(name) == bare


@pytest.mark.parametrize(
  ('layout', 'dropped', 'kept'),
  [
    (
      'timm',
      [
        'head.weight',
        'head_dist.bias',
        'fc.weight',
        'module.head.mlp.0.bias',
        'pre_logits.fc.weight',
        'mask_token',
        'layer1.0.bn1.num_batches_tracked',
      ],
      [
        'norm.weight',
        'fc_norm.weight',
        'blocks.0.mlp.fc1.weight',
        'headless.a',
      ],
    ),
    (
      'transformers ViT',
      [
        'classifier.weight',
        'cls_classifier.bias',
        'vit.pooler.dense.weight',
        'distillation_classifier.bias',
        'dinov2.embeddings.mask_token',
      ],
      ['embeddings.cls_token', 'vit.layernorm.weight'],
    ),
    ('AugReg', ['head/kernel', 'pre_logits/bias'], ['cls']),
    ('hier_jax', ['params/head/linear/kernel'], ['params/norm/bias']),
  ],
)
def test_what_is_dropped(layout, dropped, kept):
  layout = BY_NAME[layout]
  assert [name for name in dropped if not layout.drops(name)] == []
  assert [name for name in kept if layout.drops(name)] == []


def test_no_layout():
  assert layouts.detect(['lstm.weight', 'lstm.bias']) is None
  assert layouts.detect([]) is None
