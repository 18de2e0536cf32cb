"""Every config of the package resolves and passes the checks."""

import importlib

import numpy as np
import pytest
from PIL import Image

from hier_jax.data import transforms
from hier_jax.errors import UserError
from hier_jax.training.config import checks, files, presets
from hier_jax.training.config import default as config_lib
from hier_jax.training.step import objective
from tests.support import places

OURS = {
  'quickstart': [None],
  'emoji': ['vit_tiny', 'resnet_thin_wide'],
  'folder': [None, 'dino_vits16'],
}
PAPER = 'cub', 'cars', 'sop', 'inshop'


def get_config(name, preset):
  return files.load(name if preset is None else f'{name}:{preset}')


def test_every_config_is_listed():
  assert set(files.names()) == {*OURS, *PAPER}
  assert set(presets.DATA) == {*PAPER, 'emoji'}


def test_files_of_experiments_are_the_configs_of_these_names():
  folder = places.ROOT / 'experiments' / 'configs'
  assert {path.stem for path in folder.glob('*.py')} == set(files.names())
  for name in files.names():
    shown = importlib.import_module(f'experiments.configs.{name}')
    module = importlib.import_module(f'hier_jax.configs.{name}')
    assert shown.get_config is module.get_config
    assert shown.__doc__ == module.__doc__
  path = str(folder / 'cub.py:resnet50')
  assert files.load(path).to_dict() == get_config('cub', 'resnet50').to_dict()


@pytest.mark.parametrize(
  ('name', 'preset'),
  [(n, p) for n, presets in OURS.items() for p in presets],
)
def test_preset_is_valid(name, preset):
  checks.validate(get_config(name, preset))


def test_quickstart_shrinks_images_without_changing_its_views():
  config = get_config('quickstart', None)
  side, view = config.model.image_size, config.data.train_view
  assert (config.data.short_side, config.data.cache) == (side, 'auto')
  # The whole of an image, a square of 40 pixels, is resized either way.
  assert view.scale is None
  pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
  image = Image.fromarray(pixels)
  options = view.to_dict() | {'affine': transforms.Affine(**view.affine)}
  made = transforms.TrainView(side, **options)
  for seed in range(5):
    want, got = (
      made(shown, np.random.default_rng(seed))
      for shown in (image, transforms.shrink(image, side))
    )
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize('name', sorted({*OURS, *PAPER} - {'folder'}))
def test_unknown_preset_is_named(name):
  with pytest.raises(UserError, match="unknown preset 'huge'"):
    get_config(name, 'huge')


def test_unknown_backbone_of_a_folder_is_named():
  with pytest.raises(UserError, match="'huge'"):
    checks.validate(get_config('folder', 'huge'))


# RECIPE.md 7, written out: epochs, warm-up, evaluation every, weight decay,
# scale of the ViTs' head, and ResNet-50's rate, factor and its epochs.
TABLE = {
  'cub': (100, 1, 1, 1e-2, 1, 1e-4, 0.5, 5),
  'cars': (100, 1, 1, 1e-2, 1, 1e-4, 0.5, 10),
  'sop': (150, 5, 5, 1e-4, 100, 6e-4, 0.3, 25),
  'inshop': (150, 5, 1, 1e-4, 100, 6e-4, 0.3, 20),
}
RATES = {'dino_vits16': 5e-6, 'deit_small': 1e-5, 'vit_small': 1e-5}


@pytest.mark.parametrize('recipe', ['', ',default', ',official'])
@pytest.mark.parametrize('name', PAPER)
def test_numbers_of_the_paper(name, recipe, monkeypatch):
  # 180 rows do not divide among all numbers of devices.
  monkeypatch.setattr(checks.jax, 'device_count', lambda: 2)
  epochs, warmup, every, decay, scale, rate, factor, period = TABLE[name]
  backbones = [b + dim for b in RATES for dim in ('', '-384')]
  for backbone in [*backbones, 'resnet50']:
    config = get_config(name, backbone + recipe)
    optim, hier = config.optim, config.loss.hier
    assert (config.epochs, config.eval.every_epochs) == (epochs, every)
    assert (optim.weight_decay, optim.adam_eps) == (decay, 1e-4)
    assert (optim.b1, optim.b2, optim.clip_value) == (0.9, 0.999, 10)
    scales = {'backbone': 1, 'hierarchical_proxies': 50, 'class_proxies': 1e4}
    vit = backbone != 'resnet50'
    assert optim.scales.to_dict() == scales | {'head': scale if vit else 1}
    assert (config.data.batch_size, config.data.images_per_class) == (180, 2)
    assert (config.loss.num_proxies, config.loss.hier_weight) == (512, 0.5)
    assert (hier.k, hier.margin, hier.temperature) == (20, 0.1, 0.1)
    assert hier.triplets_per_anchor == 50
    assert (config.model.c, config.model.clip_radius) == (0.1, 2.3)
    resolved = config_lib.resolve(config)
    assert (config.model.image_size, resolved.data.eval_resize) == (224, 256)
    official = recipe == ',official'
    if vit:
      assert optim.lr == RATES[backbone.removesuffix('-384')]
      assert optim.schedule == 'constant'
      assert optim.warmup_epochs == warmup
      assert config.data.train_view.scale == (0.2, 1.0)
      dim = 384 if '-384' in backbone else 128
      assert config.model.embedding_dim == dim
    else:
      assert (optim.lr, optim.schedule) == (rate, 'step')
      assert (optim.step_factor, optim.step_every) == (factor, period)
      rests = 0 if name == 'cub' and not official else warmup
      assert optim.warmup_epochs == rests
      assert config.data.train_view.scale == (0.08, 1.0)
      assert config.model.embedding_dim == 512
      assert config.model.frozen_stats
    assert hier.self_negatives == official
    assert optim.grad_scale == (0.5 if official else 1)
    assert config.data.sampler == ('official' if official else 'class')
    token = config.model.deit_token
    assert token == ('official' if official and 'deit' in backbone else None)


@pytest.mark.parametrize('name', [*PAPER, 'emoji'])
def test_recall_at_and_data(name):
  config = get_config(name, 'dino_vits16')
  at = {'sop': (1, 10, 100, 1000), 'inshop': (1, 10, 20, 30)}
  assert config.eval.recall_at == at.get(name, (1, 2, 4, 8))
  known = {'cub': 'cub200', 'cars': 'cars196'}
  assert config.data.name == known.get(name, name)
  assert config.model.backbone == 'vit_small_patch16_224.dino'
  assert config.pretrained == 'hub'


@pytest.mark.parametrize('backbone', presets.BACKBONES)
def test_presets_are_valid(backbone, monkeypatch):
  monkeypatch.setattr(checks.jax, 'device_count', lambda: 2)
  monkeypatch.setattr(checks.jax, 'local_device_count', lambda: 2)
  config = get_config('cub', f'{backbone},official')
  config.eval.batch_size = 500
  checks.validate(config)


def test_options_of_a_preset():
  config = get_config('cub', 'vit_small,multi_similarity,no_hier')
  assert config.loss.metric == 'multi_similarity'
  assert config.loss.hier_weight == 0
  for loss in objective.LOSSES:
    assert get_config('sop', f'vit_small,{loss}').loss.metric == loss
  with pytest.raises(UserError, match=r"option 'oficial'.*official"):
    get_config('cub', 'vit_small,oficial')
  for wrong in ('resnet50-384', 'vit_small-512'):
    with pytest.raises(UserError, match='unknown preset'):
      get_config('cub', wrong)
