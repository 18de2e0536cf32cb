"""Prepared data sets of strangers: nothing that they name is imported."""

import json
import sys

import numpy as np
import pytest
from PIL import Image

from hier_jax.data import datasets, prepare
from hier_jax.errors import UserError


@pytest.fixture
def prepared(tmp_path):
  """A data directory with a small set, and the set's own folder."""
  for label in 'abcd':
    folder = tmp_path / 'images' / label
    folder.mkdir(parents=True)
    for i in range(2):
      pixels = np.full((4, 4, 3), i, np.uint8)
      Image.fromarray(pixels).save(folder / f'{i}.png')
  data_dir = tmp_path / 'data'
  place = prepare.prepare('folder/mine', tmp_path / 'images', data_dir=data_dir)
  return data_dir, place


@pytest.mark.parametrize(
  'forge',
  [
    lambda features: features | {'pythonClassName': 'payload.Features'},
    lambda features: features | {'python_class_name': 'payload.Features'},
    lambda features: {'type': 'payload.Features', 'content': {}},
    lambda features: features | {'type': 'payload.Features', 'content': {}},
    lambda features: (
      features
      | {
        'featuresDict': {
          'features': features['featuresDict']['features']
          | {'image': {'pythonClassName': 'payload.Image', 'image': {}}}
        }
      }
    ),
  ],
)
def test_a_module_that_it_names_is_not_imported(
  prepared, forge, tmp_path, monkeypatch
):
  data_dir, place = prepared
  path = place / 'features.json'
  path.write_text(json.dumps(forge(json.loads(path.read_text()))))
  (tmp_path / 'payload.py').write_text('raise SystemExit("ran")')
  monkeypatch.chdir(tmp_path)
  monkeypatch.syspath_prepend(tmp_path)
  with pytest.raises(UserError, match=r'not imported|cannot be read'):
    datasets.load('folder/mine', data_dir=data_dir)
  assert 'payload' not in sys.modules


@pytest.mark.parametrize('name', ['features.json', 'dataset_info.json'])
@pytest.mark.parametrize('content', ['', '[]', 'null', '{', '{}', '{"a": 1}'])
def test_damaged_metadata_is_the_users_to_mend(prepared, name, content):
  data_dir, place = prepared
  (place / name).write_text(content)
  with pytest.raises(UserError, match=r'folder.mine.*prepare'):
    datasets.load('folder/mine', data_dir=data_dir)
