import io

import numpy as np
import pytest
from PIL import Image

from experiments.icons import render


def image(seed=0, size=64):
  return np.random.default_rng(seed).integers(0, 256, (size, size), np.uint8)


def test_signature_is_the_correlation_of_coarse_drawings():
  one, other = image(0), image(1)
  cells = [x.reshape(16, 4, 16, 4).mean((1, 3)) for x in (one, other)]
  wanted = np.corrcoef(cells[0].ravel(), cells[1].ravel())[0, 1]
  found = render.signature(one) @ render.signature(other)
  # Cells are rounded to whole shades.
  np.testing.assert_allclose(found, wanted, atol=0.02)
  np.testing.assert_allclose(
    np.linalg.norm(render.signature(one)), 1, rtol=1e-5
  )
  grey = np.repeat(one[..., None], 3, 2)
  np.testing.assert_allclose(
    render.signature(grey), render.signature(one), atol=1e-6
  )


def test_one_shade_resembles_nothing():
  flat = render.signature(np.full((64, 64), 7, np.uint8))
  assert np.isfinite(flat).all() and abs(flat @ render.signature(image())) < 0.1


def test_png_keeps_the_pixels():
  for given in (image(), np.stack([image(1)] * 3, 2)):
    opened = Image.open(io.BytesIO(render.png(given)))
    np.testing.assert_array_equal(np.asarray(opened), given)


def document(body, box='0 0 24 24'):
  return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="{box}">{body}</svg>'


RECT = '<rect x="2" y="2" width="4" height="4" fill="{}"/>'


def test_ink_is_centered_and_of_one_size():
  pytest.importorskip('resvg_py')
  small = render.draw(document(RECT.format('currentColor')), 64)
  large = render.draw(document(RECT.format('#000'), '0 0 8 8'), 64)
  assert small.shape == (64, 64) and small.dtype == np.uint8
  assert small[32, 32] == 0 and small[0].min() == 255
  # Of the square, a margin of 6 % of the ink on each side is white.
  for drawing in (small, large):
    assert abs((drawing < 128).mean() - 1 / 1.12**2) < 0.1


def test_colors_stay_and_blank_documents_are_none():
  pytest.importorskip('resvg_py')
  assert render.draw(document(RECT.format('#f00')), 64).shape == (64, 64, 3)
  assert render.draw(document(RECT.format('#fff')), 64) is None
  assert render.draw('<svg', 64) is None
