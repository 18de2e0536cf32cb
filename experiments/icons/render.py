"""SVG documents to small images: drawn on white, cropped to the ink, scaled."""

from __future__ import annotations

import io
import types

import numpy as np
from PIL import Image

from hier_jax.errors import UserError

__all__ = ['check', 'draw', 'png', 'signature']

# Pixels a side that are drawn, twice what is kept, so that edges blend.
_DRAWN = 128
# A pixel whose channels are all at least this bright is no ink.
_WHITE = 245
# Of the ink's longer side, on each side.
_MARGIN = 0.06
# Side of a signature.
_COARSE = 16


def draw(svg: str, size: int) -> np.ndarray | None:
  """Draws an icon, its ink in the middle of a white square.

  The room that a designer leaves around a drawing is taken off: it would tell
  the sets apart.

  Args:
    svg: the SVG document; `currentColor` is black.
    size: pixels a side.

  Returns:
    uint8 `[size, size]` where all is grey, else `[size, size, 3]`; None where
    nothing is drawn.

  Raises:
    UserError: as `check`.
  """
  resvg_py = check()
  try:
    data = resvg_py.svg_to_bytes(
      svg_string=svg,
      width=_DRAWN,
      height=_DRAWN,
      background='#ffffff',
      skip_system_fonts=True,
    )
  # What the library raises for a document that it cannot read.
  except ValueError:
    return None
  image = Image.open(io.BytesIO(data), formats=['PNG']).convert('RGB')
  pixels = np.asarray(image)
  ink = (pixels < _WHITE).any(2)
  if not ink.any():
    return None
  square = Image.fromarray(_centered(pixels, ink))
  found = np.asarray(square.resize((size, size), Image.Resampling.BOX))
  grey = (found == found[..., :1]).all()
  return found[..., 0] if grey else found


def check() -> types.ModuleType:
  """The package that draws.

  Raises:
    UserError: it is missing.
  """
  try:
    import resvg_py
  except ImportError as error:
    raise UserError(
      "drawing icons needs the package resvg_py: pip install 'hier_jax[icons]'"
    ) from error
  return resvg_py


def png(image: np.ndarray) -> bytes:
  """An image as a PNG file."""
  file = io.BytesIO()
  Image.fromarray(image).save(file, 'PNG')
  return file.getvalue()


def signature(image: np.ndarray) -> np.ndarray:
  """What two drawings are compared by, float32 `[256]` of length 1.

  The brightness in 16 x 16 cells less its mean: its inner product with that of
  another drawing is their correlation.

  Args:
    image: uint8 `[size, size]` or `[size, size, 3]`.
  """
  small = Image.fromarray(image).convert('L')
  cells = small.resize((_COARSE, _COARSE), Image.Resampling.BOX)
  values = np.asarray(cells, np.float32).ravel()
  values -= values.mean()
  return values / max(float(np.linalg.norm(values)), 1e-6)


def _centered(pixels: np.ndarray, ink: np.ndarray) -> np.ndarray:
  """The ink in the middle of a white square, uint8 `[side, side, 3]`."""
  rows, columns = (np.flatnonzero(ink.any(axis)) for axis in (1, 0))
  cut = pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
  height, width = cut.shape[:2]
  side = int(np.ceil(max(height, width) * (1 + 2 * _MARGIN)))
  square = np.full((side, side, 3), 255, np.uint8)
  top, left = (side - height) // 2, (side - width) // 2
  square[top : top + height, left : left + width] = cut
  return square
