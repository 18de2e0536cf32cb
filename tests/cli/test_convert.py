"""`hier-jax convert`: from one layout to another."""

import chex
import jax
import jax.numpy as jnp

from hier_jax import models
from hier_jax.models.weights import pretrained
from tests.support.command_line import run


def test_convert_there_and_back(tmp_path, capsys):
  ours, timm, back = (tmp_path / f'{x}.safetensors' for x in 'abc')
  model = models.create_backbone('vit_test_patch4', image_size=8)
  images = jnp.zeros((1, 8, 8, 3))
  variables = model.init(jax.random.key(0), images, train=False)
  pretrained.save(ours, variables, architecture='vit_test_patch4')
  assert run('convert', ours, timm, '--timm') == 0
  assert 'vit_test_patch4: ' in capsys.readouterr().out
  assert run('convert', timm, back) == 0
  assert 'layout timm' in capsys.readouterr().out
  found = pretrained.load(back, model).variables
  chex.assert_trees_all_equal(found, variables)
