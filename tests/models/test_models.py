"""What the room of models shows."""

import inspect
import subprocess
import sys

import pytest

from hier_jax import models
from hier_jax.models.weights import pretrained


def test_dir_shows_what_is_meant():
  public = [name for name in dir(models) if not name.startswith('_')]
  assert sorted(public) == sorted(models.__all__)
  assert models.pretrained is pretrained
  with pytest.raises(AttributeError, match='no attribute'):
    _ = models.nonsense


def test_weights_come_when_named():
  code = (
    'import sys; from hier_jax import models;'
    'assert "hier_jax.models.weights.pretrained" not in sys.modules;'
    'from hier_jax.models import pretrained; pretrained.load'
  )
  subprocess.run([sys.executable, '-c', code], check=True)


def test_an_embedder_takes_the_options_of_its_backbone():
  of = lambda f: set(inspect.signature(f).parameters) - {'name', 'backbone'}
  assert of(models.create_backbone) <= of(models.create)
  model = models.create('vit_test_patch4', image_size=8, depth=1, pool='mean')
  assert isinstance(model, models.Embedder)
  assert (model.backbone.depth, model.backbone.pool) == (1, 'mean')
