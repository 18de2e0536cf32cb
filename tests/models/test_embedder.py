"""Pixels to embeddings: the pixels' statistics, and the parts' options."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import models
from hier_jax.errors import UserError

IMAGES = np.random.default_rng(0).integers(0, 256, (2, 8, 8, 3), np.uint8)


def test_pixels_are_normalized_as_the_backbone_expects():
  model = models.create('vit_test_patch4', image_size=8)
  assert model.mean == model.std == (0.5, 0.5, 0.5)
  assert models.create('dino_vits16', image_size=32).mean[2] == 0.406
  model = models.create(
    'vit_test_patch4', image_size=8, mean=(1, 0.5, 0), std=(1, 2, 4)
  )
  got, variables = jax.jit(model.init_with_output)(jax.random.key(0), IMAGES)
  scaled = (IMAGES / 255 - [1, 0.5, 0]) / [1, 2, 4]
  params = variables['params']

  @jax.jit
  def by_parts(params, scaled):
    features = model.backbone.apply(
      {'params': params['backbone']}, scaled, train=False
    )
    return model.head.apply({'params': params['head']}, features)

  want = by_parts(params, np.float32(scaled))
  np.testing.assert_allclose(got, want, atol=1e-5)


def test_options_reach_backbone_and_head():
  model = models.create(
    'vit_test_patch4',
    image_size=8,
    embedding_dim=16,
    clip_radius=None,
    last_norm=False,
    radial_scale=1.5,
    pool='token_mean',
  )
  assert model.backbone.pool == 'token_mean'
  head = model.head
  assert (head.clip_radius, head.last_norm) == (None, False)
  assert head.radial_scale == 1.5
  init = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
  # Class token and mean of the patches, one after the other.
  assert init['params']['head']['linear']['kernel'].shape == (64, 16)


@pytest.mark.parametrize(
  'settings',
  [{'mean': (0.5, 0.5)}, {'std': (1.0,)}, {'std': (1.0, 0.0, 1.0)}],
)
def test_pixel_statistics_that_cannot_be(settings):
  (wrong,) = settings.values()
  with pytest.raises(UserError, match='must be three numbers') as error:
    models.create('vit_test_patch4', image_size=8, **settings)
  assert str(wrong) in str(error.value)


@pytest.mark.parametrize('name', ['vit_test_patch4', 'resnet_test'])
def test_channels_that_come_first_are_named(name):
  key = jax.random.key(0)
  backbone = models.create_backbone(name, image_size=16)
  with pytest.raises(ValueError, match=r'\(2, 3, 16, 16\), expected floats'):
    backbone.init(key, jnp.zeros((2, 3, 16, 16)), train=False)
  embedder = models.create(name, image_size=16, embedding_dim=4)
  with pytest.raises(ValueError, match=r'\(2, 3, 16, 16\), expected uint8'):
    embedder.init(key, jnp.zeros((2, 3, 16, 16), jnp.uint8))
