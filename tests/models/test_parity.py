"""Our backbones against the originals, stage by stage, on the same weights."""

import functools

import jax
import numpy as np
import pytest

from hier_jax import models
from hier_jax.models import registry, resnet, vit
from hier_jax.models.weights import pretrained
from tests.support import places

DATA = places.FIXTURES
SHARED = places.SHARED
DINOV2 = SHARED / 'weights' / 'dinov2_vits14.safetensors'
EMOJI = SHARED / 'data' / 'emoji_ml.npz'

# Largest absolute error of float32 for stages whose entries are of order 1.
TOLERANCE = 2e-5
# After the twelve blocks of the real network, whose features' entries reach 10.
REAL_TOLERANCE = 1e-4

_vit = functools.partial(
  vit.ViT, patch_size=4, width=16, depth=2, num_heads=2, image_size=16
)
_giant = functools.partial(_vit, swiglu=True, mlp_width=48, layer_scale=1.0)
# File of weights -> our model, layout found, arrays dropped.
FIXTURES = {
  'timm_vit.safetensors': (_vit(), 'timm', {'head.weight', 'head.bias'}),
  'timm_giant.safetensors': (_giant(num_registers=3), 'timm', set()),
  'deit.pth': (
    _vit(distilled=True),
    'timm',
    {
      f'{head}.{x}'
      for head in ('head', 'head_dist')
      for x in ('weight', 'bias')
    },
  ),
  'dino.pth': (_vit(), 'timm', {'module.head.mlp.0.weight'}),
  'dinov2.pth': (_giant(num_registers=3), 'DINOv2 giant', {'mask_token'}),
  'hf_vit.bin': (
    _vit(),
    'transformers ViT',
    {'classifier.weight', 'classifier.bias'},
  ),
  'hf_deit.safetensors': (
    _vit(distilled=True),
    'transformers ViT',
    {
      f'{head}_classifier.{x}'
      for head in ('cls', 'distillation')
      for x in ('weight', 'bias')
    },
  ),
  'hf_dinov2.safetensors': (
    _vit(num_registers=3, layer_scale=1.0),
    'transformers Dinov2',
    {'embeddings.mask_token'},
  ),
  'hf_giant.safetensors': (
    _giant(),
    'transformers Dinov2 giant',
    {'embeddings.mask_token'},
  ),
  'augreg.npz': (_vit(), 'AugReg', {'head/kernel'}),
  'big_vision.npz': (_vit(), 'big_vision', set()),
  'resnet.safetensors': (
    resnet.ResNet(
      resnet.Bottleneck,
      stages=((4, 1, 1), (4, 2, 2), (4, 1, 2), (4, 1, 2)),
      stem_width=64,
      stem_patch=None,
    ),
    'timm',
    None,
  ),
}


@functools.partial(jax.jit, static_argnums=0)
def _run(model, variables, images):
  features, stages = model.apply(
    variables, images, train=False, return_intermediates=True
  )
  return stages | {'features': features}


def _assert_stages(got, want, tolerance=TOLERANCE):
  assert set(got) == set(want)
  for stage, expected in want.items():
    error = np.abs(np.asarray(got[stage]) - expected).max()
    assert error <= tolerance, f'{stage}: {error}'


@pytest.mark.parametrize('file', FIXTURES)
def test_stages_of_small_models(file):
  model, layout, dropped = FIXTURES[file]
  name = file.partition('.')[0]
  with np.load(DATA / 'parity_stages.npz') as archive:
    images = archive['images_48' if name == 'resnet' else 'images']
    want = {
      stage: archive[stage]
      for stage in archive.files
      if stage.startswith(f'{name}/')
    }
  loaded = pretrained.load(DATA / f'parity_{file}', model)
  assert loaded.layout == layout
  if dropped is not None:
    assert set(loaded.dropped) == dropped
  got = _run(model, loaded.variables, images)
  _assert_stages({f'{name}/{s}': a for s, a in got.items()}, want)


def emoji(count=2):
  """Emoji enlarged to 252 pixels, as the real DINOv2 expects its input."""
  with np.load(EMOJI) as archive:
    images = archive['images'][:: 12538 // count][:count]
  images = images.repeat(4, 1).repeat(4, 2)[:, 2:-2, 2:-2] / 255
  spec = registry.spec('dinov2_vits14')
  return ((images - spec.mean) / spec.std).astype(np.float32)


def real_dinov2():
  """transformers' model with the real weights of ViT-S/14."""
  import safetensors.torch
  import transformers

  config = transformers.Dinov2Config.from_pretrained(
    DINOV2.with_name('dinov2_vits14_config.json')
  )
  return transformers.Dinov2Model.from_pretrained(
    None, config=config, state_dict=safetensors.torch.load_file(DINOV2)
  ).eval()


def class_and_mean(tokens):
  """What is recorded of the final tokens `[b, n, d]`: `[2, b, d]`."""
  return np.stack([tokens[:, 0], tokens[:, 1:].mean(1)])


@pytest.fixture(scope='module')
def dinov2():
  """The real DINOv2 ViT-S/14, some images, and its stages on them."""
  if not DINOV2.exists() or not EMOJI.exists():
    pytest.skip(f'{DINOV2} or {EMOJI} is absent')
  model = models.create_backbone('dinov2_vits14')
  loaded = pretrained.load(DINOV2, model)
  images = emoji()
  return loaded, images, _run(model, loaded.variables, images)


def test_real_dinov2_gives_the_features_recorded(dinov2):
  loaded, _, stages = dinov2
  assert loaded.dropped == ('embeddings.mask_token',)
  want = np.load(DATA / 'parity_dinov2_vits14.npy')
  got = class_and_mean(stages['norm'])
  np.testing.assert_allclose(got, want, rtol=0, atol=REAL_TOLERANCE)


def test_real_dinov2_equals_transformers(dinov2):
  pytest.importorskip('torch')
  pytest.importorskip('transformers')
  from tests.support import torch_models

  _, images, got = dinov2
  want = torch_models.stages(real_dinov2(), images)
  for stage in ('norm', 'features'):
    np.testing.assert_allclose(
      got[stage], want[stage], rtol=0, atol=REAL_TOLERANCE
    )


def _timm(architecture):
  """timm's model of an architecture, drawn, and the options of ours."""
  timm = pytest.importorskip('timm')
  from tests.support import torch_models

  if architecture == 'resnet50':
    return torch_models.fill(timm.create_model(architecture, num_classes=0)), {}
  # Few patches, and of the deep ones few blocks: each is the same code.
  patch = models.create_backbone(architecture).patch_size
  sizes = {'depth': 2, 'img_size': 4 * patch}
  model = timm.create_model(architecture, num_classes=0, **sizes)
  return torch_models.fill(model), {'depth': 2, 'image_size': 4 * patch}


@pytest.mark.parametrize('architecture', registry.PUBLISHED)
def test_stages_of_timm_and_back(architecture, tmp_path):
  original, options = _timm(architecture)
  import safetensors.torch
  import torch

  from tests.support import torch_models

  state = original.state_dict()
  path = tmp_path / 'timm.safetensors'
  safetensors.torch.save_file(state, path)
  model = models.create_backbone(architecture, **options)
  loaded = pretrained.load(path, model)
  side = options.get('image_size', 64)
  images = np.random.default_rng(0).normal(size=(1, side, side, 3)).astype('f')
  want = torch_models.stages(original, images)
  _assert_stages(_run(model, loaded.variables, images), want)

  back = tmp_path / 'back.safetensors'
  pretrained.export(back, loaded.variables, architecture=architecture)
  returned = safetensors.torch.load_file(back)
  original.load_state_dict(returned)
  for name, array in returned.items():
    assert torch.equal(array, state[name]), name
