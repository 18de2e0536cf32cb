"""Pixels as embeddings, by hand and on the Emoji images."""

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation import pixel_embedding, retrieval_metrics
from tests.support import places

SHARED = places.SHARED


def test_pixel_embedding_by_hand():
  # Three pixels on two cells: the middle one is shared in halves.
  row = np.uint8([[0, 0, 0], [90, 0, 0], [255, 0, 0]])
  image = np.stack([row, row])
  cells = np.array([[[30, 0, 0], [200, 0, 0]]] * 2) / 255
  np.testing.assert_allclose(
    pixel_embedding(image[None], grid=2)[0],
    (cells - cells.mean()).reshape(-1),
    rtol=1e-6,
  )


def test_pixel_embedding_where_sizes_divide():
  rng = np.random.default_rng(6)
  images = rng.integers(0, 256, (5, 12, 8, 3), np.uint8)
  cells = images.reshape(5, 4, 3, 4, 2, 3).mean((2, 4)).reshape(5, -1) / 255
  result = pixel_embedding(images, grid=4)
  assert result.dtype == np.float32
  np.testing.assert_allclose(
    result, cells - cells.mean(1, keepdims=True), rtol=0, atol=1e-7
  )


def test_pixel_embedding_of_a_blank_image_is_zero():
  blank = np.full((1, 21, 37, 3), 77, np.uint8)
  np.testing.assert_array_equal(pixel_embedding(blank), 0)


@pytest.mark.parametrize(
  ('images', 'message'),
  [
    (np.zeros((2, 8, 8, 3), np.uint8), '`grid` is 16 for images of 8 x 8'),
    (np.zeros((2, 32, 32, 3)), 'float64'),
    (np.zeros((2, 32, 32), np.uint8), r'\(2, 32, 32\)'),
  ],
)
def test_pixel_embedding_bad_input(images, message):
  with pytest.raises(UserError, match=message):
    pixel_embedding(images)


@pytest.mark.skipif(
  not (SHARED / 'data' / 'emoji_ml.npz').exists(),
  reason='emoji_ml.npz is not beside the checkout (../shared/data)',
)
def test_pixel_baseline_of_emoji():
  data = np.load(SHARED / 'data' / 'emoji_ml.npz')
  y = data['class_id']
  test = data['split_class_A'][y] == 1
  metrics = retrieval_metrics(pixel_embedding(data['images'][test]), y[test])
  # A float64 full sort gives .43152 and .159804; two near-equal scores may
  # swap in float32, which moves R@1 by 1.6e-4.
  assert metrics['num_queries'] == 6250
  assert metrics['recall@1'] == pytest.approx(0.43152, abs=4e-4)
  assert metrics['map@r'] == pytest.approx(0.159804, abs=1e-4)
