import contextlib
import io

import jax
import numpy as np
import pytest
from PIL import Image

from experiments.study import features
from hier_jax import models
from hier_jax.data import datasets
from hier_jax.errors import UserError
from hier_jax.models.weights import pretrained

# Class, subgroup, and whether it is a test class of split B, of each image.
LABEL = np.array([0, 0, 1, 2, 2])
SUBGROUP, TEST_B = np.array([0, 0, 1]), np.array([False, False, True])


def png(shade):
  file = io.BytesIO()
  Image.new('RGB', (4, 4), (shade,) * 3).save(file, 'PNG')
  return file.getvalue()


def split(rows, name):
  source = [{'image': png(40 * row), 'path': f'{row}.png'} for row in rows]
  labels = np.unique(LABEL[rows], return_inverse=True)[1].astype(np.int32)
  fields = {'index': rows, 'subgroup': SUBGROUP[LABEL[rows]]}
  numbers = np.unique(LABEL[rows])
  return datasets.Split(name, source, labels, fields, numbers=numbers)


@contextlib.contextmanager
def emoji():
  rows = np.arange(5)
  yield {
    'A': [split(rows[LABEL != 1], 'train'), split(rows[LABEL == 1], 'test')],
    'B': [split(rows[LABEL != 2], 'train'), split(rows[LABEL == 2], 'test')],
  }


def test_features_are_kept_with_what_is_known(tmp_path, monkeypatch):
  model = models.ViT(
    patch_size=56, width=8, depth=12, num_heads=2, image_size=112
  )
  images = np.zeros((1, 112, 112, 3), np.float32)
  variables = model.init(jax.random.key(0), images, train=False)
  monkeypatch.setattr(features, '_emoji', emoji)
  monkeypatch.setattr(models, 'create_backbone', lambda *_, **__: model)
  loaded = pretrained.Loaded(
    variables, *[()] * (len(pretrained.Loaded._fields) - 1)
  )
  monkeypatch.setattr(pretrained, 'load', lambda *_: loaded)
  weights = tmp_path / 'w.safetensors'
  weights.write_bytes(b'weights')
  path = tmp_path / 'features.npz'
  features.extract(weights, path, batch=2)
  found = features.read(path)
  np.testing.assert_array_equal(found.labels, LABEL)
  np.testing.assert_array_equal(found.subgroup, SUBGROUP)
  np.testing.assert_array_equal(found.test['A'], [False, True, False])
  np.testing.assert_array_equal(found.test['B'], TEST_B)
  assert found.x.shape == (5, 4 * 8) and found.about['pixels'] == '112'
  # The last image, by itself and of the shade that it was drawn in.
  spec = models.spec(features.BACKBONE)
  pixel = (160 / 255 - np.array(spec.mean)) / np.array(spec.std)
  image = np.broadcast_to(pixel, images.shape).astype(np.float32)
  _, tokens = model.apply(
    variables, image, train=False, return_intermediates=True
  )
  wanted = [
    tokens['block9'][0, 0],
    tokens['block10'][0, 0],
    tokens['block7'][0, 1:].mean(0),
    tokens['block8'][0, 1:].mean(0),
  ]
  np.testing.assert_allclose(found.x[4], np.concatenate(wanted), atol=1e-4)


def test_other_files_are_refused(tmp_path):
  path = tmp_path / 'features.npz'
  with pytest.raises(UserError, match='holds no features'):
    features.read(path)
  np.savez(path, x=np.zeros(3))
  with pytest.raises(UserError, match='holds no features'):
    features.read(path)
