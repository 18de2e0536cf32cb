"""Files of our own, opened again."""

import numpy as np
import pytest

from hier_jax import models
from hier_jax.errors import UserError
from hier_jax.inference import export
from hier_jax.inference import model as model_lib
from hier_jax.models.weights import pretrained
from tests.support import exported


def test_a_run_is_the_same_bit_by_bit(trained, tmp_path):
  model = model_lib.open_model(trained[0])
  made = export.write(model, tmp_path / 'a', format='safetensors')
  assert made.max_error == 0
  path = made.folder / 'model.safetensors'
  again = model_lib.open_model(path)
  assert (again.digest, again.c, again.view) == (
    model.digest,
    model.c,
    model.view,
  )
  np.testing.assert_array_equal(again.proxies, model.proxies)
  images = exported.images(8, 8)
  np.testing.assert_array_equal(again.embed(images), model.embed(images))
  assert again.about['title'] == model.about['title'] and again.data is None
  with pytest.raises(UserError, match='an exported run, which has an image'):
    model_lib.open_model(path, image_size=16)
  # The backbone is a file of pretrained weights too.
  backbone = models.create_backbone('vit_test_patch4', image_size=8)
  loaded = pretrained.load(path, backbone)
  np.testing.assert_array_equal(
    loaded.variables['params']['cls_token'],
    model.variables['params']['backbone']['cls_token'],
  )
  # And what is exported of it is the same once more.
  twice = export.write(again, tmp_path / 'b', format='safetensors')
  third = model_lib.open_model(twice.folder / path.name)
  assert third.digest == model.digest


def test_the_card_of_a_backbone(tmp_path):
  path = tmp_path / 'resnet.safetensors'
  drawn = exported.drawn('resnet_test')
  pretrained.save(
    path,
    {kind: tree['backbone'] for kind, tree in drawn.variables.items()},
    architecture='resnet_test',
  )
  model = model_lib.open_model(path, image_size=16)
  made = export.write(model, tmp_path / 'a', format='safetensors')
  assert made.max_error == 0
  card = (made.folder / 'README.md').read_text()
  assert '--image_size 16' in card and 'image_size=16)' in card
  assert 'features of a backbone' in card and 'cosine' in card
