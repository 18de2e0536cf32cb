"""Views made by JAX, against those that Pillow makes."""

import jax
import numpy as np
import pytest
from PIL import Image

from hier_jax.data import transforms
from hier_jax.training.step import device_views

SIDE, SIZE = 90, 56


def crops():
  """Noise, a smooth picture and edges, of many shapes, with their flips."""
  rng = np.random.default_rng(0)
  shapes = [(90, 90), (56, 56), (1, 1), (90, 1), (1, 90), (57, 55)]
  shapes += rng.integers(2, SIDE + 1, (42, 2)).tolist()
  made = []
  for i, (height, width) in enumerate(shapes):
    array = rng.integers(0, 256, (height, width, 3)).astype(np.uint8)
    if i % 3 == 1:
      small = Image.fromarray(array[: height // 8 + 1, : width // 8 + 1])
      array = np.asarray(small.resize((width, height)))
    if i % 3 == 2:
      array = np.where(array > 127, 255, 0).astype(np.uint8)
    made.append(array)
  return made, rng.random(len(made)) < 0.5


def padded(made, filling=0):
  image = np.full((len(made), SIDE, SIDE, 3), filling, np.uint8)
  for place, crop in zip(image, made, strict=True):
    place[: crop.shape[0], : crop.shape[1]] = crop
  extent = np.array([crop.shape[:2] for crop in made], np.int32)
  return image, extent


@pytest.fixture(scope='module')
def views():
  return jax.jit(lambda *batch: device_views.views(*batch, size=SIZE))


def test_views_are_those_of_pillow(views):
  made, flip = crops()
  seen = np.asarray(views(*padded(made), flip))
  assert seen.shape == (len(made), SIZE, SIZE, 3) and seen.dtype == np.uint8
  view = transforms.TrainView(SIZE, scale=None, flip=0.0)
  expected = np.stack(
    [view(Image.fromarray(a), np.random.default_rng(0)) for a in made]
  )
  expected[flip] = expected[flip, :, ::-1]
  difference = np.abs(seen.astype(int) - expected)
  # Sums differ by float32's rounding, of at most n = 8 products of numbers up
  # to 255 in windows up to 2 * 90 / 56 wide on each side, and by Pillow's
  # fixed point of 22 bits: less than 255 * 8 * (2^-23 + 2^-23) = 5e-4 gray
  # levels, so that one sum in a thousand is rounded otherwise at most. Such a
  # pixel of the first pass reaches 8 of the second, by less than a level.
  assert difference.max() <= 2
  assert np.mean(difference > 0) < 9e-3


def test_what_lies_beside_a_crop_is_not_seen(views):
  made, flip = crops()
  np.testing.assert_array_equal(
    views(*padded(made), flip), views(*padded(made, filling=255), flip)
  )


def test_a_crop_of_the_views_size_is_the_view(views):
  array = np.random.default_rng(1).integers(0, 256, (SIZE, SIZE, 3))
  made = [array.astype(np.uint8)] * 48
  flip = np.arange(48) % 2 == 1
  seen = views(*padded(made), flip)
  np.testing.assert_array_equal(seen[0], array)
  np.testing.assert_array_equal(seen[1], array[:, ::-1])


def test_one_color_stays(views):
  made = [np.full((7 + i, 80 - i, 3), 5 * i, np.uint8) for i in range(48)]
  seen = np.asarray(views(*padded(made), np.zeros(48, bool)))
  for i, view in enumerate(seen):
    np.testing.assert_array_equal(view, 5 * i)
