"""Backbones by name: what each name makes, and what is said of wrong ones."""

import jax.numpy as jnp
import pytest

from hier_jax.errors import UserError
from hier_jax.models import create_backbone, registry, resnet, spec, vit

HALF = (0.5, 0.5, 0.5)


@pytest.mark.parametrize(
  ('name', 'fields'),
  [
    (
      'vit_small_patch16_224.augreg_in21k',
      {'width': 384, 'depth': 12, 'num_heads': 6, 'patch_size': 16}
      | {'image_size': 224, 'distilled': False, 'layer_scale': None},
    ),
    (
      'vit_base_patch16_384',
      {'width': 768, 'patch_size': 16, 'image_size': 384},
    ),
    (
      'deit_small_distilled_patch16_224',
      {'width': 384, 'distilled': True, 'image_size': 224},
    ),
    ('vit_small_patch8_224.dino', {'patch_size': 8, 'num_registers': 0}),
    (
      'vit_small_patch14_dinov2',
      {'patch_size': 14, 'image_size': 518, 'layer_scale': 1e-5}
      | {'num_registers': 0, 'swiglu': False},
    ),
    (
      'vit_giant_patch14_reg4_dinov2.lvd142m',
      {'width': 1536, 'depth': 40, 'num_heads': 24, 'mlp_width': 4096}
      | {'swiglu': True, 'num_registers': 4, 'image_size': 518},
    ),
    ('vit_tiny_patch4', {'width': 192, 'patch_size': 4, 'image_size': 224}),
  ],
)
def test_a_vits_name_says_what_it_is(name, fields):
  model = create_backbone(name)
  assert isinstance(model, vit.ViT)
  assert {key: getattr(model, key) for key in fields} == fields


@pytest.mark.parametrize(
  ('name', 'block', 'blocks'),
  [
    ('resnet50.tv_in1k', resnet.Bottleneck, [3, 4, 6, 3]),
    ('resnet_thin', resnet.BasicBlock, [1, 2]),
  ],
)
def test_a_resnets_name_says_what_it_is(name, block, blocks):
  model = create_backbone(name)
  assert isinstance(model, resnet.ResNet)
  assert model.block is block
  assert [depth for _, depth, _ in model.stages] == blocks


def test_arguments_and_options_reach_the_module():
  model = create_backbone(
    'dino_vits16',
    image_size=128,
    dtype=jnp.bfloat16,
    axis_name='devices',
    pool='mean',
    drop_path=0.1,
    remat=None,
    scan_blocks=True,
  )
  assert model.scan_blocks
  assert (model.image_size, model.dtype) == (128, jnp.bfloat16)
  assert (model.axis_name, model.pool) == ('devices', 'mean')
  assert (model.drop_path, model.remat) == (0.1, False)
  model = create_backbone(
    'resnet50', image_size=128, frozen_stats=True, axis_name='d'
  )
  assert (model.frozen_stats, model.axis_name) == (True, 'd')


@pytest.mark.parametrize(
  ('name', 'tag', 'size', 'mean', 'hub'),
  [
    (
      'vit_small_patch16_224',
      'augreg_in21k_ft_in1k',
      224,
      0.5,
      'timm/vit_small_patch16_224.augreg_in21k_ft_in1k',
    ),
    (
      'vit_small_patch16_224.augreg_in21k',
      'augreg_in21k',
      224,
      0.5,
      'timm/vit_small_patch16_224.augreg_in21k',
    ),
    ('dino_vits8', 'dino', 224, 0.485, 'timm/vit_small_patch8_224.dino'),
    (
      'dinov2_vitb14',
      'lvd142m',
      518,
      0.485,
      'timm/vit_base_patch14_dinov2.lvd142m',
    ),
    (
      'deit_small_distilled_patch16_224',
      'fb_in1k',
      224,
      0.485,
      'timm/deit_small_distilled_patch16_224.fb_in1k',
    ),
    ('resnet50', 'tv_in1k', 224, 0.485, 'timm/resnet50.tv_in1k'),
    ('vit_tiny_patch4', None, 224, 0.5, None),
    ('resnet_thin', None, 224, 0.5, None),
  ],
)
def test_spec(name, tag, size, mean, hub):
  found = spec(name)
  assert (found.tag, found.image_size, found.hub) == (tag, size, hub)
  assert found.mean[0] == mean
  assert found.std == (HALF if mean == 0.5 else (0.229, 0.224, 0.225))


def test_every_published_name_and_alias_can_be_made():
  names = [f'{a}.{t}' for a, tags in registry.PUBLISHED.items() for t in tags]
  for name in [*names, *registry.ALIASES]:
    create_backbone(name)
    assert spec(name).hub
  assert set(registry.ALIASES.values()) <= set(names)


@pytest.mark.parametrize(
  ('name', 'hint'),
  [
    ('vit_smal_patch16', 'vit_small_patch16'),
    ('vit_small', 'vit_small_patch16'),
    ('vit_small_patch0', 'vit_small_patch16'),
    ('resnet_thinn', 'resnet_thin'),
    ('dino_vits15', 'dino_vits16'),
    ('???', 'resnet50'),
    ('vit_small_patch16_224.dinos', 'vit_small_patch16_224.dino'),
    ('vit_small_patch16_224.clip', 'vit_small_patch16_224.augreg_in21k'),
    ('vit_tiny_patch4.dino', 'it has none'),
  ],
)
def test_unknown_names(name, hint):
  with pytest.raises(UserError) as error:
    create_backbone(name, image_size=32)
  assert name.partition('.')[0] in str(error.value)
  assert hint in str(error.value)


def test_no_name_is_proposed_twice():
  for name in ('resnet', 'resnet5'):
    with pytest.raises(UserError) as error:
      create_backbone(name)
    _, _, names = str(error.value).partition('did you mean ')
    names = names.partition('?')[0].split(' or ')
    assert len(names) == len(set(names))


def test_a_name_that_is_like_none_is_told_a_few():
  with pytest.raises(UserError) as error:
    create_backbone('???')
  assert len(str(error.value)) < 250


def test_unknown_options_are_all_named():
  with pytest.raises(UserError) as error:
    create_backbone('resnet50', deit_token='mean', drop_path=0.1, pool='avg')
  message = str(error.value)
  assert "'resnet50' has no option 'deit_token', 'drop_path'; it has" in message
  assert 'frozen_stats' in message
  assert 'parent' not in message
