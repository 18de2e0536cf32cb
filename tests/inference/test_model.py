"""Runs and pretrained backbones as functions of images."""

import jax
import numpy as np
import pytest

from hier_jax import models, paths
from hier_jax.errors import UserError
from hier_jax.inference import model
from hier_jax.models.weights import pretrained
from hier_jax.training.run import from_checkpoint
from tests.support import fake_bucket


@pytest.fixture(scope='module')
def weights(tmp_path_factory):
  """A file of a ViT of 8 pixels, and its features of some images."""
  path = tmp_path_factory.mktemp('weights') / 'vit.safetensors'
  backbone = models.create_backbone('vit_test_patch4', image_size=8)
  images = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), np.uint8)
  floats = (images / np.float32(255) - 0.5) / 0.5
  features, variables = backbone.init_with_output(
    jax.random.key(0), floats, train=False
  )
  pretrained.save(path, variables, architecture='vit_test_patch4')
  return path, images, features


def test_a_backbone_gives_its_features(weights):
  path, images, features = weights
  made = model.open_model(path)
  np.testing.assert_allclose(made.embed(images), features, rtol=1e-4, atol=1e-5)
  assert (made.c, made.proxies, made.data) == (None, None, None)
  assert (made.view.size, made.view.resize) == (8, 9)
  assert made.about['backbone'] == 'vit_test_patch4'
  assert made.about['mean'] == [0.5] * 3 and 'parameters' in made.note
  larger = model.open_model(path, image_size=16)
  assert larger.embed(np.zeros((4, 16, 16, 3), np.uint8)).shape == (4, 32)
  assert larger.digest != made.digest


def test_a_model_that_was_moved_is_the_same(weights, tmp_path):
  path = tmp_path / 'moved.safetensors'
  path.write_bytes(weights[0].read_bytes())
  one, other = model.open_model(weights[0]), model.open_model(path)
  assert one.digest == other.digest
  assert one.about['model'] != other.about['model']


def test_a_run(trained):
  made = model.open_model(trained[0])
  run = from_checkpoint.open_run(trained[0])
  images = np.random.default_rng(0).integers(0, 256, (8, 8, 8, 3), np.uint8)
  np.testing.assert_array_equal(made.embed(images), run.embed(images))
  assert made.c == 0.1 and made.proxies.shape == (24, 16)
  assert made.about['model'] == str(trained[0] / 'checkpoints' / '3')
  assert made.digest == model.open_model(trained[0] / 'checkpoints/3').digest
  with pytest.raises(UserError, match='leave out --image_size'):
    model.open_model(trained[0], image_size=8)


def test_a_run_in_a_bucket_is_found_again(trained, monkeypatch):
  fake_bucket.use(monkeypatch)
  place = paths.as_path('gs://bucket/runs/a')
  run = from_checkpoint.open_run(trained[0])._replace(workdir=place)
  monkeypatch.setattr(from_checkpoint, 'open_run', lambda _: run)
  made = model.open_model(trained[0])
  assert made.about['model'] == 'gs://bucket/runs/a/checkpoints/3'


@pytest.mark.parametrize(
  ('name', 'message'),
  [
    ('runs/none', 'no model runs/none: expected the workdir of a run'),
    ('dinov2_vits15', "such as dinov2_vits14; did you mean 'dinov2_vits14'"),
    ('vit_test_patch4', 'no published weights of vit_test_patch4'),
    ('none.safetensors', r'none\.safetensors does not exist'),
    ('.', 'holds no config.json: expected the workdir of a run'),
  ],
)
def test_no_model(tmp_path, monkeypatch, name, message):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=message):
    model.open_model(name)


def test_published_weights_need_the_hub(monkeypatch, tmp_path):
  pytest.importorskip('huggingface_hub')
  monkeypatch.setenv('HF_HUB_OFFLINE', '1')
  monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
  monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
  with pytest.raises(UserError, match='not in the cache and the hub cannot'):
    model.open_model('dinov2_vits14')


def test_pixels_that_the_file_does_not_tell():
  with pytest.raises(UserError, match=r'say --architecture .*\.dino'):
    model._spec('a.pth', 'vit_small_patch16_224')
  assert model._spec('a', 'dino_vits16').mean == (0.485, 0.456, 0.406)
