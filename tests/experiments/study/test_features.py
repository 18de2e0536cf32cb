import contextlib
import io
import json

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
# What a file says of where its features come from.
ABOUT = json.dumps(
  {f'{name}_sha256': name[0] for name in ('images', 'features', 'weights')}
)


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


def network(monkeypatch, size):
  """Puts a small network of constants in the backbone's place."""
  model = models.ViT(
    patch_size=size // 2, width=8, depth=12, num_heads=2, image_size=size
  )
  images = np.zeros((1, size, size, 3), np.float32)
  shapes = jax.eval_shape(
    lambda: model.init(jax.random.key(0), images, train=False)
  )
  variables = jax.tree.map(lambda x: np.full(x.shape, 0.1, x.dtype), shapes)
  loaded = pretrained.Loaded(
    variables, *[()] * (len(pretrained.Loaded._fields) - 1)
  )
  monkeypatch.setattr(models, 'create_backbone', lambda *_, **__: model)
  monkeypatch.setattr(pretrained, 'load', lambda *_: loaded)


def test_icons_are_a_split_of_their_own(tmp_path, monkeypatch):
  network(monkeypatch, features.ICON_SIZE)
  weights = tmp_path / 'w.safetensors'
  weights.write_bytes(b'weights')
  rows = ['class,group,subgroup']
  for side, name, subgroup, number in (
    ('train', 'apple', 'z', 2),
    ('train', 'cat', 'a', 1),
    ('train', 'pear', 'z', 1),
    ('test', 'dog', 'b', 3),
  ):
    place = tmp_path / 'icons' / side / name
    place.mkdir(parents=True)
    for i in range(number):
      (place / f'{i}.png').write_bytes(png(30 * i))
    rows.append(f'{name},all,{subgroup}')
  (tmp_path / 'icons/taxonomy.csv').write_text('\n'.join(rows))
  path = tmp_path / 'icons.npz'
  features.extract(weights, path, tmp_path / 'icons', batch=7)
  found = features.read(path)
  assert list(found.test) == ['icons'] and found.about['pixels'] == '84'
  assert found.x.shape == (7, 4 * 8)
  # Classes by subgroup, so that folds take some of each.
  assert (np.diff(found.subgroup) >= 0).all()
  assert np.unique(found.subgroup, return_counts=True)[1].max() == 2
  assert np.sort(np.bincount(found.labels)).tolist() == [1, 1, 2, 3]
  tested = found.test['icons']
  assert np.bincount(found.labels)[tested].tolist() == [3]


def test_tokens_are_kept_with_the_blocks_that_they_enter(tmp_path, monkeypatch):
  network(monkeypatch, features.TOKEN_SIZE)
  monkeypatch.setattr(features, '_emoji', emoji)
  weights = tmp_path / 'w.safetensors'
  weights.write_bytes(b'weights')
  path = tmp_path / 'tokens.npz'
  features.extract(weights, path, batch=2, blocks=2)
  found = features.read(path, 2)
  assert (found.tokens.shape, found.tokens.dtype) == ((5, 5, 8), np.float16)
  assert found.about['pixels'] == '56' and list(found.test) == ['A', 'B']
  assert list(found.blocks) == ['block9', 'block10']
  kernel = found.blocks['block10']['attn']['qkv']['kernel']
  np.testing.assert_array_equal(kernel, np.full((8, 24), np.float32(0.1)))
  # A head alone needs no tokens, and other blocks need others.
  assert features.read(path).tokens is None
  with pytest.raises(UserError, match=r'block9.*study tokens --weights'):
    features.read(path, 1)


def test_features_are_no_tokens(tmp_path):
  whole = {
    'x': np.zeros((2, 8)),
    'labels': [0, 1],
    'subgroup': [0, 0],
    'test_B': [True, False],
    'about': ABOUT,
    'params/block10/norm1/scale': np.ones(2),
    'tokens': np.zeros((2, 3, 2), np.float16),
  }
  path = tmp_path / 'a.npz'
  np.savez(path, **whole)
  assert features.read(path, 1).blocks['block10']['norm1']['scale'].sum() == 2
  for changed, why in (
    ({'tokens': np.zeros((2, 3, 4))}, r'tokens have shape \(2, 3, 4\)'),
    ({'tokens': np.full((2, 3, 2), np.inf)}, 'tokens hold NaN or Inf'),
    ({'tokens': None}, 'tokens'),
  ):
    kept = {k: v for k, v in (whole | changed).items() if v is not None}
    np.savez(path, **kept)
    with pytest.raises(UserError, match=why):
      features.read(path, 1)


def test_other_files_are_refused(tmp_path):
  path = tmp_path / 'features.npz'
  with pytest.raises(UserError, match='holds no features'):
    features.read(path)
  for data in b'', b'PK\x03\x04' + bytes(90):
    path.write_bytes(data)
    with pytest.raises(UserError, match='holds no features'):
      features.read(path)
  np.savez(path, x=np.zeros(3))
  with pytest.raises(UserError, match='holds no features'):
    features.read(path)


@pytest.mark.parametrize(
  ('changed', 'why'),
  [
    ({'x': np.full((4, 8), np.nan)}, 'x holds NaN'),
    ({'x': np.zeros((3, 8))}, 'of 4 labels'),
    ({'x': np.zeros((4, 7))}, 'x has shape'),
    ({'labels': [0, 0, 0, 0]}, 'labels are not of all 2 classes'),
    ({'test_B': [True]}, 'test_B is no bool of 2 classes'),
    ({'about': np.array('[]')}, 'about lacks images_sha256'),
    ({'about': np.array('{')}, 'holds no features'),
  ],
)
def test_features_that_do_not_fit_are_refused(tmp_path, changed, why):
  whole = {
    'x': np.zeros((4, 8)),
    'labels': [0, 0, 1, 1],
    'subgroup': [0, 0],
    'test_B': [True, False],
    'about': np.array(ABOUT),
  }
  np.savez(tmp_path / 'a.npz', **whole)
  assert features.read(tmp_path / 'a.npz').x.shape == (4, 8)
  np.savez(tmp_path / 'b.npz', **(whole | changed))
  with pytest.raises(UserError, match=why):
    features.read(tmp_path / 'b.npz')
