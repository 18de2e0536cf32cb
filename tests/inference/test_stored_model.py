"""Files of a whole model: what is damaged is said."""

import json

import pytest
import safetensors.numpy

from hier_jax.errors import UserError
from hier_jax.inference import model, stored_model
from hier_jax.models.weights import files


@pytest.fixture(scope='module')
def parts(trained, tmp_path_factory):
  """The arrays of a file, and what its metadata say of the model."""
  path = tmp_path_factory.mktemp('stored') / 'a.safetensors'
  made = model.open_model(trained[0])
  stored_model.write(
    path,
    stored_model.Stored(
      made.settings, made.variables, made.view, made.proxies, 'a'
    ),
  )
  return safetensors.numpy.load_file(path), files.metadata(path)


def test_other_files_are_none(tmp_path):
  assert stored_model.read(tmp_path / 'none.safetensors') is None
  assert stored_model.read(tmp_path) is None


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (lambda told: 'no JSON', 'damaged'),
    (lambda told: '[]', 'damaged'),
    (lambda told: json.dumps({'settings': {}}), 'damaged'),
    (lambda told: '[' * 100_000, 'damaged'),
    (lambda told: told.replace('vit_test', 'vit_none'), 'no backbone'),
    (lambda told: told.replace('"last_norm"', '"other"'), "'other'"),
    (
      lambda told: told.replace('"embedding_dim": 16', '"embedding_dim": 17'),
      'its arrays are not those of its model',
    ),
  ],
)
def test_damage_is_said(parts, tmp_path, change, message):
  arrays, metadata = parts
  path = tmp_path / 'bad.safetensors'
  told = {**metadata, 'embedder': change(metadata['embedder'])}
  safetensors.numpy.save_file(arrays, path, told)
  with pytest.raises(UserError, match=message) as error:
    model.open_model(path)
  assert str(path) in str(error.value)


def test_an_array_that_lacks(parts, tmp_path):
  arrays, metadata = parts
  path = tmp_path / 'bad.safetensors'
  name = 'params/head/linear/bias'
  rest = {k: a for k, a in arrays.items() if k != name}
  safetensors.numpy.save_file(rest, path, metadata)
  with pytest.raises(UserError, match=name):
    model.open_model(path)
