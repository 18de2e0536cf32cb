"""Embeddings made without a network: the baseline that training has to beat."""

from __future__ import annotations

import numpy as np
from jaxtyping import Float32, UInt8
from numpy.typing import ArrayLike

from hier_jax.errors import UserError


def pixel_embedding(
  images: UInt8[ArrayLike, 'n H W 3'], grid: int = 16
) -> Float32[np.ndarray, 'n d']:
  """Raw pixels, averaged over the cells of a grid, as embeddings.

  Cell edges that fall inside a pixel share it by area. Each row is centered on
  its own mean, so that cosine similarity becomes correlation; a blank gray
  image gives exactly zero.

  Args:
    images: `[n, H, W, 3]` uint8, H and W at least `grid`.
    grid: number of cells along each side of the grid.

  Returns:
    `[n, grid * grid * 3]` float32; before centring the scale is [0, 1].

  Raises:
    UserError: another shape or dtype, images smaller than the grid.

  Example:
    >>> import numpy as np
    >>> from hier_jax import evaluation
    >>> gray = np.full((2, 32, 32, 3), 128, np.uint8)
    >>> rows = evaluation.pixel_embedding(gray, grid=4)
    >>> rows.shape, bool((rows == 0).all())
    ((2, 48), True)
  """
  images = np.asarray(images)
  if images.ndim != 4 or images.shape[-1] != 3 or images.dtype != np.uint8:
    raise UserError(
      f'`images` is {images.dtype} {images.shape}; expected uint8 [n, H, W, 3]'
    )
  height, width = images.shape[1:3]
  if not 1 <= grid <= min(height, width):
    raise UserError(
      f'`grid` is {grid} for images of {height} x {width}; expected 1 to '
      f'{min(height, width)}'
    )
  rows, columns = _overlap(height, grid), _overlap(width, grid)
  out = np.empty((len(images), grid * grid * 3), np.float32)
  # One image at a time: a float64 copy of a data set could fill the memory.
  for i, image in enumerate(images):
    by_row = (rows @ image.reshape(height, -1)).reshape(grid, width, 3)
    cells = (columns @ by_row).reshape(-1)
    centered = cells * cells.size - cells.sum()
    out[i] = centered / (cells.size * 255 * height * width)
  return out


def _overlap(size: int, grid: int) -> np.ndarray:
  """Length that each cell shares with each pixel, in 1 / grid of a pixel.

  `[grid, size]` float64 of whole numbers; a row sums to `size`. Whole numbers
  keep the sums exact up to the one division.
  """
  cell = np.arange(grid)[:, None] * size
  pixel = np.arange(size)[None, :] * grid
  end = np.minimum(cell + size, pixel + grid)
  return np.maximum(end - np.maximum(cell, pixel), 0).astype(np.float64)
