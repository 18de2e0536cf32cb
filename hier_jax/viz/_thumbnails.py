"""Small pictures of all items, packed into a few large ones."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tqdm
from PIL import Image, ImageOps

from hier_jax.errors import UserError
from hier_jax.evaluation.collection import Collection

# Side of a thumbnail by the number of items up to which it is used.
_SIDES = ((96, 1_500), (64, 8_000), (48, 24_000), (32, 1 << 40))
# Thumbnails in a row of a picture, and rows.
_COLUMNS = 16
_QUALITY = 75
# Bytes of all pictures, of which base64 makes 4/3.
_LARGEST = 18_000_000


def atlas(
  image: Callable[[int], Image.Image],
  order: Sequence[int],
  *,
  progress: bool = False,
) -> dict[str, Any]:
  """Thumbnails in WebP pictures of 16 x 16.

  Args:
    image: returns the picture of an item.
    order: the items in the order in which they are packed.
    progress: whether to show a bar on stderr, after some seconds.

  Returns:
    `side` of a thumbnail, `columns` of a picture, and the `pages` in base64.
    The side is smaller the more items there are; all pages together stay within
    18 MB unless the thumbnails are of the smallest side.
  """
  sides = [side for side, most in _SIDES if len(order) <= most]
  bar = tqdm.tqdm(order, 'thumbnails', delay=3, disable=not progress)
  tiles = [tile(image(int(i)), sides[0]) for i in bar]
  for side in sides:
    pages = [
      _page(tiles[first : first + _COLUMNS**2], side)
      for first in range(0, len(tiles), _COLUMNS**2)
    ]
    if sum(map(len, pages)) <= _LARGEST:
      break
  encoded = [base64.b64encode(page).decode() for page in pages]
  return {'side': side, 'columns': _COLUMNS, 'pages': encoded}


def pixels(collection: Collection, item: int, side: int) -> np.ndarray | None:
  """A thumbnail `[side, side, 3]` uint8, None where no picture can be read."""
  if collection.image is None:
    return None
  try:
    return np.asarray(tile(collection.image(item), side))
  except UserError:
    return None


def tile(picture: Image.Image, side: int) -> Image.Image:
  """The middle of a picture, on white where it is transparent."""
  if picture.mode not in ('RGB', 'L'):
    picture = picture.convert('RGBA')
    ground = Image.new('RGBA', picture.size, 'white')
    picture = Image.alpha_composite(ground, picture)
  return ImageOps.fit(picture.convert('RGB'), (side, side))


def _page(tiles, side):
  rows = -(-len(tiles) // _COLUMNS)
  page = Image.new('RGB', (_COLUMNS * side, rows * side), 'white')
  for i, thumb in enumerate(tiles):
    thumb = thumb if thumb.width == side else thumb.resize((side, side))
    page.paste(thumb, (i % _COLUMNS * side, i // _COLUMNS * side))
  out = io.BytesIO()
  page.save(out, 'WEBP', quality=_QUALITY, method=4)
  return out.getvalue()
