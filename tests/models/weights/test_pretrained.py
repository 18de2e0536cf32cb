"""Weights into backbones, into our files, and back under timm's names."""

import functools
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from hier_jax import models
from hier_jax.errors import UserError
from hier_jax.models import registry, vit
from hier_jax.models.weights import files, pretrained
from tests.support import places

DATA = places.FIXTURES
DINOV2 = (
  pathlib.Path(__file__).parents[2]
  / 'shared'
  / 'weights'
  / 'dinov2_vits14.safetensors'
)
IMAGES = np.random.default_rng(0).normal(size=(1, 16, 16, 3)).astype('float32')
_vit = functools.partial(
  vit.ViT, patch_size=4, width=16, depth=2, num_heads=2, image_size=16
)
_giant = functools.partial(
  _vit, swiglu=True, mlp_width=48, layer_scale=1.0, num_registers=3
)
NAME = 'vit_test_patch4'  # of which there are no published weights


def _random(model, images=IMAGES):
  """Variables of a model, drawn."""
  init = functools.partial(model.init, train=False)
  shapes = jax.eval_shape(init, jax.random.key(0), images)
  rng = np.random.default_rng(0)
  return jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape, scale=0.3).astype('float32'),
    shapes,
  )


def _assert_same(got, want):
  assert jax.tree.structure(got) == jax.tree.structure(want)
  jax.tree.map(np.testing.assert_array_equal, got, want)


@pytest.fixture(scope='module')
def small():
  """A backbone of a name, and variables of it."""
  model = models.create_backbone(NAME, image_size=16)
  return model, _random(model)


@pytest.mark.parametrize('name', [NAME, 'resnet_test'])
def test_our_files_hold_all_and_say_what_they_are(tmp_path, name):
  model = models.create_backbone(name, image_size=16)
  variables = _random(model)
  path = tmp_path / 'ours.safetensors'
  pretrained.save(path, variables, architecture=name)
  told = {'format': 'hier_jax', 'version': '1', 'architecture': name}
  assert files.metadata(path) == told
  loaded = pretrained.load(path, model)
  _assert_same(loaded.variables, variables)
  assert loaded[1:] == ('hier_jax', (), None, name)
  assert loaded.size == sum(leaf.size for leaf in jax.tree.leaves(variables))
  leaves = jax.tree.leaves(loaded.variables)
  assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
  assert all(isinstance(leaf, np.ndarray) for leaf in leaves)


@pytest.fixture(scope='module')
def deit(tmp_path_factory):
  """A file that says that it has weights of DeiT."""
  name = 'deit_tiny_patch16_224'
  init = functools.partial(models.create_backbone(name).init, train=False)
  images = jax.ShapeDtypeStruct((1, 224, 224, 3), np.float32)
  shapes = jax.eval_shape(init, jax.random.key(0), images)
  variables = jax.tree.map(lambda leaf: np.zeros(leaf.shape), shapes)
  path = tmp_path_factory.mktemp('deit') / 'deit.safetensors'
  pretrained.save(path, variables, architecture=name)
  return path


@pytest.mark.parametrize(
  'make',
  [models.create_backbone, functools.partial(models.create, image_size=224)],
  ids=['backbone', 'embedder'],
)
def test_weights_are_not_given_other_pixels_than_they_expect(deit, make):
  # Both have the same arrays; AugReg's pixels have mean and deviation 1/2.
  with pytest.raises(
    UserError, match=r'deit.safetensors has weights of deit_t'
  ) as e:
    pretrained.load(deit, make('vit_tiny_patch16_224'))
  assert 'mean [0.485, 0.456, 0.406] and std [0.229, 0.224, 0.225]' in str(
    e.value
  )
  assert 'made for mean [0.5, 0.5, 0.5]' in str(e.value)
  for name in ('deit_tiny_patch16_224', 'deit_tiny_patch16_224.fb_in1k'):
    loaded = pretrained.load(deit, make(name))
    assert loaded.architecture == 'deit_tiny_patch16_224'
    assert loaded.summary().startswith('deit_tiny_patch16_224, 5,')


def test_an_embedder_may_be_given_the_pixels_of_its_weights(deit):
  spec = registry.spec('deit_tiny_patch16_224')
  model = models.create(
    'vit_tiny_patch16_224', image_size=224, mean=spec.mean, std=spec.std
  )
  assert pretrained.load(deit, model).architecture == spec.architecture


def test_a_file_is_told_from_a_name(tmp_path):
  assert pretrained.is_file(tmp_path / 'none')
  assert pretrained.is_file('~/weights.safetensors')
  assert not pretrained.is_file('dino_vits16')
  with pytest.raises(
    UserError, match='dino_vits61 is no file, and there is no'
  ):
    pretrained.is_file('dino_vits61')


def test_files_of_a_later_version(tmp_path, small):
  model, _ = small
  path = tmp_path / 'ours.safetensors'
  files.write(path, {}, {'format': 'hier_jax', 'version': '2'})
  with pytest.raises(UserError, match=r"ours\.safetensors .*'2'.*upgrade"):
    pretrained.load(path, model)


def test_unknown_architectures_are_not_written(tmp_path, small):
  for write in (pretrained.save, pretrained.export):
    with pytest.raises(UserError, match="no backbone 'vit_smal_patch4'"):
      write(
        tmp_path / 'a.safetensors', small[1], architecture='vit_smal_patch4'
      )
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
  ('file', 'model'),
  [
    ('timm_vit.safetensors', _vit()),
    ('timm_giant.safetensors', _giant()),
    ('deit.pth', _vit(distilled=True)),
    ('dino.pth', _vit()),
  ],
)
def test_timm_to_us_and_back_is_bitwise(tmp_path, file, model):
  loaded = pretrained.load(DATA / f'parity_{file}', model)
  path = tmp_path / 'back.safetensors'
  pretrained.export(path, loaded.variables, architecture=NAME)
  original = files.read(DATA / f'parity_{file}')
  back = files.read(path)
  kept = {
    name.removeprefix('module.backbone.'): array
    for name, array in original.items()
    if name not in loaded.dropped
  }
  assert set(back) == set(kept)
  for name, array in kept.items():
    assert back[name].dtype == array.dtype
    np.testing.assert_array_equal(back[name], array)


def test_resnets_to_timm_and_back(tmp_path):
  model = models.create_backbone('resnet_test')
  variables = _random(model)
  path = tmp_path / 'timm.safetensors'
  pretrained.export(path, variables, architecture='resnet_test')
  arrays = files.read(path)
  np.testing.assert_array_equal(
    arrays['layer2.0.downsample.1.running_var'],
    variables['batch_stats']['layer2_0']['downsample_bn']['var'],
  )
  _assert_same(pretrained.load(path, model).variables, variables)


def test_registers_take_the_position_of_the_class_token_along(tmp_path):
  """timm has none for it, so that the token and its position are one."""
  model = _giant()
  variables = _random(model)
  path = tmp_path / 'timm.safetensors'
  pretrained.export(path, variables, architecture=NAME)
  assert files.read(path)['pos_embed'].shape == (1, 16, 16)
  loaded = pretrained.load(path, model).variables
  assert not loaded['params']['pos_embed'][:, 0].any()
  run = functools.partial(jax.jit(model.apply, static_argnames='train'))
  np.testing.assert_array_equal(
    run(loaded, IMAGES, train=False), run(variables, IMAGES, train=False)
  )


@pytest.fixture(scope='module')
def embedded():
  """An embedder with its variables."""
  model = models.create(NAME, image_size=16, embedding_dim=8, radial_scale=1.0)
  stored = IMAGES.astype(np.uint8)
  init = jax.eval_shape(model.init, jax.random.key(0), stored)
  rng = np.random.default_rng(0)
  return model, jax.tree.map(
    lambda leaf: rng.normal(size=leaf.shape).astype('float32'), init
  )


def test_embedders_go_to_timm_with_their_heads(tmp_path, embedded):
  _, variables = embedded
  path = tmp_path / 'timm.safetensors'
  pretrained.export(path, variables, architecture=NAME)
  arrays = files.read(path)
  head = variables['params']['head']
  np.testing.assert_array_equal(
    arrays['head.proj.weight'], head['linear']['kernel'].T
  )
  np.testing.assert_array_equal(
    arrays['head.proj.bias'], head['linear']['bias']
  )
  others = {f'head.{name}' for name in head if name != 'linear'}
  assert len(others) == 1 and others < set(arrays)
  np.testing.assert_array_equal(
    arrays['blocks.1.attn.proj.weight'],
    variables['params']['backbone']['block1']['attn']['proj']['kernel'].T,
  )


@pytest.mark.parametrize('write', [pretrained.save, pretrained.export])
def test_backbones_of_embedders(tmp_path, embedded, write):
  model, variables = embedded
  path = tmp_path / 'embedder.safetensors'
  write(path, variables, architecture=NAME)
  loaded = pretrained.load(path, model.backbone)
  _assert_same(loaded.variables['params'], variables['params']['backbone'])
  assert len(loaded.dropped) == 3


def test_parameters_without_a_name_in_timm(tmp_path):
  variables = {'params': {'norm': {'scale': np.ones(3), 'bias': np.ones(3)}}}
  variables['params'] |= {'lstm': {'a': np.ones(3), 'b': np.ones(3)}}
  with pytest.raises(
    UserError, match='no name for params/lstm/a, params/lstm/b; expected'
  ):
    pretrained.export(tmp_path / 'a.safetensors', variables, architecture=NAME)
  assert not list(tmp_path.iterdir())


def test_another_architecture(small):
  path = DATA / 'parity_deit.pth'
  with pytest.raises(UserError) as error:
    pretrained.load(path, _vit(depth=3, width=8, layer_scale=1.0))
  message = str(error.value)
  # Scales of two blocks and all of a third; the distillation token.
  assert message.startswith(
    f'{path}, of layout timm, does not fit the backbone: 18 missing'
    ' (blocks.0.ls1.gamma, blocks.0.ls2.gamma, blocks.1.ls1.gamma,'
    ' blocks.1.ls2.gamma, blocks.2.attn.proj.bias, ...); 1 unexpected'
    ' (dist_token); 30 of another shape (blocks.0.attn.proj.bias (16,) for'
    ' params/block0/attn/proj/bias (8,), '
  ), message
  assert message.endswith('Choose the backbone that it was made for.')


def test_two_arrays_of_one_name(tmp_path):
  arrays = dict(files.read(DATA / 'parity_timm_vit.safetensors'))
  arrays['module.norm.bias'] = arrays['norm.bias']
  path = tmp_path / 'twice.safetensors'
  files.write(path, arrays, {})
  with pytest.raises(
    UserError, match=r': 1 unexpected \((module\.)?norm\.bias'
  ):
    pretrained.load(path, _vit())


def test_arrays_of_another_rank(tmp_path):
  arrays = dict(files.read(DATA / 'parity_timm_vit.safetensors'))
  arrays['patch_embed.proj.weight'] = np.ones((16, 48), np.float32)
  arrays['pos_embed'] = np.ones((17, 16), np.float32)
  path = tmp_path / 'flat.safetensors'
  files.write(path, arrays, {})
  with pytest.raises(UserError, match='of another shape'):
    pretrained.convert(path, tmp_path / 'ours.safetensors', architecture=NAME)
  with pytest.raises(UserError, match='2 of another shape') as error:
    pretrained.load(path, _vit())
  assert 'patch_embed.proj.weight (16, 48) for' in str(error.value)
  assert 'pos_embed (17, 16) for params/pos_embed (1, 17, 16)' in str(
    error.value
  )


def test_scalars_in_place_of_matrices(tmp_path):
  arrays = dict(files.read(DATA / 'parity_augreg.npz'))
  attention = 'Transformer/encoderblock_1/MultiHeadDotProductAttention_1'
  for layer in ('query', 'out'):
    arrays[f'{attention}/{layer}/kernel'] = np.array(1.0)
  path = tmp_path / 'scalars.npz'
  np.savez(path, **arrays)
  with pytest.raises(UserError, match='2 of another shape') as error:
    pretrained.load(path, _vit())
  assert f'{attention}/out/kernel () for' in str(error.value)


def test_position_embeddings_that_are_no_square(tmp_path):
  arrays = dict(files.read(DATA / 'parity_timm_vit.safetensors'))
  arrays['pos_embed'] = np.ones((1, 16, 16), np.float32)[:, :15]
  path = tmp_path / 'odd.safetensors'
  files.write(path, arrays, {})
  with pytest.raises(UserError, match=r'pos_embed \(1, 15, 16\) for'):
    pretrained.load(path, _vit())


def test_unknown_layouts(tmp_path, small):
  path = tmp_path / 'lstm.npz'
  np.savez(path, **{f'lstm.{i}': np.ones(1) for i in range(7)})
  with pytest.raises(
    UserError,
    match=r'lstm\.npz is of no known layout: its arrays are lstm\.0, .*lstm\.4,'
    r' \.\.\.; known are those of timm, hier_jax, DINOv2',
  ):
    pretrained.load(path, small[0])


@pytest.mark.parametrize('file', ['timm_giant.safetensors', 'dinov2.pth'])
def test_position_embeddings_of_another_size(file):
  """With (DINOv2's) and without (timm's) one for the class token."""
  path = DATA / f'parity_{file}'
  same = pretrained.load(path, _giant())
  assert same.resized is None
  loaded = pretrained.load(path, _giant(image_size=24))
  assert loaded.resized == (4, 6)
  want = vit.resize_pos_embed(
    same.variables['params']['pos_embed'], 1, (4, 4), (6, 6)
  )
  np.testing.assert_array_equal(loaded.variables['params']['pos_embed'], want)


def test_sizes_that_are_no_multiple_of_the_patch():
  with pytest.raises(UserError, match=r'18x18 .* multiples of 4'):
    pretrained.load(DATA / 'parity_timm_vit.safetensors', _vit(image_size=18))


def test_sources_that_are_nothing(small):
  load = functools.partial(pretrained.load, model=small[0])
  with pytest.raises(
    UserError, match=r'dino_vits61 is no file, and there is no .*dino_vits16,'
  ):
    load('dino_vits61')
  with pytest.raises(UserError, match=f'no published weights of {NAME}: give'):
    load(NAME)
  with pytest.raises(UserError, match=r'runs/best\.pth does not exist'):
    load('runs/best.pth')
  with pytest.raises(UserError, match='dino_vits16 does not exist'):
    load(pathlib.Path('dino_vits16'))


@pytest.mark.parametrize(
  ('source', 'repository', 'name'),
  [
    ('dino_vits16', 'timm/vit_small_patch16_224.dino', 'dino_vits16'),
    ('resnet50', 'timm/resnet50.tv_in1k', 'resnet50'),
    (
      'timm/vit_tiny_patch16_224.augreg_in21k',
      'timm/vit_tiny_patch16_224.augreg_in21k',
      'vit_tiny_patch16_224.augreg_in21k',
    ),
    ('facebook/dino-vits16', 'facebook/dino-vits16', None),
  ],
)
def test_sources_on_the_hub(monkeypatch, tmp_path, source, repository, name):
  asked = []

  def download(repository, *, cache_dir):
    asked.append((repository, cache_dir))
    return DATA / 'parity_timm_vit.safetensors'

  monkeypatch.setattr(pretrained.hub, 'download', download)
  assert pretrained.load(source, _vit(), cache_dir='cache').layout == 'timm'
  assert asked == [(repository, 'cache')]
  if name is None:
    return
  with pytest.raises(UserError, match='does not fit'):
    pretrained.convert(source, tmp_path / 'a.safetensors')


def test_convert_knows_what_the_file_says(tmp_path, small):
  model, variables = small
  source, target = (tmp_path / f'{x}.safetensors' for x in ('timm', 'ours'))
  pretrained.export(source, variables, architecture=NAME)
  name, loaded = pretrained.convert(source, target)
  assert (name, loaded.layout, loaded.dropped) == (NAME, 'timm', ())
  _assert_same(pretrained.load(target, model).variables, variables)
  assert files.metadata(target)['architecture'] == NAME


def test_convert_keeps_the_size_of_the_file(tmp_path, small):
  _, variables = small
  source, target = (tmp_path / x for x in ('timm.npz', 'ours.safetensors'))
  pretrained.export(tmp_path / 'a.safetensors', variables, architecture=NAME)
  np.savez(source, **files.read(tmp_path / 'a.safetensors'))
  name, loaded = pretrained.convert(source, target, architecture=NAME)
  assert name == NAME and loaded.resized is None
  _assert_same(loaded.variables, variables)


def _few(monkeypatch, *names):
  published = {name: () for name in names}
  monkeypatch.setattr(registry, 'PUBLISHED', published)


def test_convert_guesses_by_the_arrays(tmp_path, monkeypatch):
  _few(monkeypatch, NAME, 'vit_tiny_patch4')
  variables = _random(models.create_backbone('resnet_test'))
  pretrained.export(
    tmp_path / 'a.safetensors', variables, architecture='resnet_test'
  )
  source = tmp_path / 'a.npz'
  np.savez(source, **files.read(tmp_path / 'a.safetensors'))
  name, loaded = pretrained.convert(source, tmp_path / 'ours.safetensors')
  assert name == 'resnet_test'
  _assert_same(loaded.variables, variables)


def test_convert_asks_where_more_than_one_fits(tmp_path, small, monkeypatch):
  _few(monkeypatch, NAME, f'{NAME}_16', 'deit_test_distilled_patch4')
  pretrained.export(tmp_path / 'a.safetensors', small[1], architecture=NAME)
  source = tmp_path / 'a.npz'
  np.savez(source, **files.read(tmp_path / 'a.safetensors'))
  with pytest.raises(
    UserError,
    match=rf'a\.npz could be of {NAME}, {NAME}_16: say which .*architecture',
  ):
    pretrained.convert(source, tmp_path / 'ours.safetensors')
  with pytest.raises(UserError, match='could be of no backbone that is known'):
    pretrained.convert(DATA / 'parity_deit.pth', tmp_path / 'ours.safetensors')
  assert not (tmp_path / 'ours.safetensors').exists()


@pytest.mark.skipif(
  not sys.platform.startswith('linux'), reason='needs /proc of Linux'
)
@pytest.mark.skipif(not DINOV2.exists(), reason=f'{DINOV2} is absent')
def test_memory_of_loading():
  """At most three times the file, beside what the program holds already."""
  code = """
import pathlib, sys
from hier_jax import models
from hier_jax.models import pretrained

def memory(kind):
  status = pathlib.Path('/proc/self/status').read_text()
  return int(status.partition(kind + ':')[2].split()[0]) * 1024

path = pathlib.Path(sys.argv[1])
model = models.create_backbone('dinov2_vits14')
before = memory('VmRSS')
pretrained.load(path, model)
print((memory('VmHWM') - before) / path.stat().st_size)
"""
  done = subprocess.run(
    [sys.executable, '-c', code, DINOV2],
    check=True,
    capture_output=True,
    text=True,
  )
  assert 1 < float(done.stdout) <= 3


def test_weights_are_written_under_their_suffix_alone(tmp_path):
  source = tmp_path / 'a.safetensors'
  loaded = pretrained.load(DATA / 'parity_timm_vit.safetensors', _vit())
  for target in ('a', 'a.npz', 'a.pth'):
    with pytest.raises(UserError, match=r'expected \.safetensors'):
      pretrained.save(tmp_path / target, loaded.variables, architecture=NAME)
  pretrained.save(source, loaded.variables, architecture=NAME)
  before = source.read_bytes()
  with pytest.raises(UserError, match=r'a\.safetensors is an input'):
    pretrained.convert(source, source, timm=True)
  assert source.read_bytes() == before
