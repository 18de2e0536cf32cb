"""SVG documents to small images: drawn large, cropped to the ink, scaled."""

import io

import numpy as np
import resvg_py
from PIL import Image

from hier_jax.errors import UserError

__all__ = ['webp']

_DRAWN = 256  # pixels a side, several times what is kept, so that edges blend
_WHITE = 245  # a pixel with all channels at least this bright isn't ink
_MARGIN = 0.03  # of the ink's longer side, on each side


def _draw(svg: str) -> np.ndarray:
  """Returns the document on white, uint8 [_DRAWN, _DRAWN, 3]."""
  png = resvg_py.svg_to_bytes(
    svg_string=svg,
    width=_DRAWN,
    height=_DRAWN,
    background='#ffffff',
    skip_system_fonts=True,
  )
  return np.asarray(Image.open(io.BytesIO(png), formats=['PNG']).convert('RGB'))


def _crop_to_ink(drawing: np.ndarray) -> np.ndarray:
  """Returns the ink in the middle of a white square with a small margin."""
  ink = (drawing < _WHITE).any(2)
  rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
  cut = drawing[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  height, width = cut.shape[:2]
  side = int(np.ceil(max(height, width) * (1 + 2 * _MARGIN)))
  square = np.full((side, side, 3), 255, np.uint8)
  top, left = (side - height) // 2, (side - width) // 2
  square[top : top + height, left : left + width] = cut
  return square


def webp(name: str, svg: str, *, size: int) -> bytes:
  """Returns the drawing as a lossless RGB WebP file of [size, size] pixels.

  Whatever room a designer left around a drawing is gone: it would tell the
  styles apart, and sizes are not what the classes mean.

  Args:
    name: what the drawing is called in an error.
    svg: the SVG document.
    size: pixels a side.

  Raises:
    UserError: nothing is drawn.
  """
  drawing = _draw(svg)
  if drawing.min() >= _WHITE:
    raise UserError(
      f'{name} is blank; expected some ink. List it in drop.csv or give the '
      'right icon in names.csv.'
    )
  square = Image.fromarray(_crop_to_ink(drawing))
  file = io.BytesIO()
  square.resize((size, size), Image.Resampling.BOX).save(
    file, 'WEBP', lossless=True, quality=100, method=6
  )
  return file.getvalue()
