"""Decoded images of a split, decoded on request or kept in a file.

The file holds the pixels of all images one after the other and is mapped into
memory; a table beside it holds their sizes. Images are the same either way: a
cache changes how long a batch takes, never what is in it.
"""

import hashlib
import os
import pathlib
import shutil

import numpy as np
import PIL
import tqdm
from PIL import Image

from hier_jax import paths
from hier_jax.data import threads, transforms
from hier_jax.data.datasets import Split
from hier_jax.errors import UserError

# Of the free disk and of the memory, for 'auto': beyond it, pages that
# another program needs, or other images, would be driven out.
_SHARE = 0.5
# Records that stand for all in size.
_SAMPLE = 64
_FORMAT = 2


class Decoded:
  """Images of a split, decoded anew each time.

  Args:
    split: the images.
    short_side: what the short side of larger images is shrunk to, or None.
  """

  def __init__(self, split: Split, short_side: int | None = None) -> None:
    self._split, self._short_side = split, short_side

  def __len__(self) -> int:
    """Returns the number of images n."""
    return len(self._split)

  def image(self, row: int) -> Image.Image:
    """Returns an image as RGB; raises `UserError` where it is broken."""
    row = int(row)
    image = transforms.decode(
      self._split.source[row]['image'],
      f'image {row} of {self._split.name}',
      self._split.max_megapixels,
    )
    if self._short_side is None:
      return image
    return transforms.shrink(image, self._short_side)

  def array(self, row: int) -> np.ndarray:
    """Returns the same as uint8 [height, width, 3]."""
    return np.asarray(self.image(row))


class Cached:
  """Images out of a file; as `Decoded`.

  Args:
    pixels: uint8 [sum of 3 height width].
    shapes: int [n, 2], height and width of each image.
  """

  def __init__(self, pixels: np.ndarray, shapes: np.ndarray) -> None:
    self._pixels, self._shapes = pixels, shapes
    self._stops = 3 * np.cumsum(np.prod(shapes, 1, dtype=np.int64))

  def __len__(self) -> int:
    """Returns the number of images n."""
    return len(self._shapes)

  def image(self, row: int) -> Image.Image:
    """Returns an image as RGB."""
    return Image.fromarray(self.array(row))

  def array(self, row: int) -> np.ndarray:
    """Returns the same as uint8 [height, width, 3], not to be written to."""
    height, width = self._shapes[row]
    stop = self._stops[row]
    pixels = self._pixels[stop - 3 * height * width : stop]
    return pixels.reshape(height, width, 3)


Images = Decoded | Cached


def open_images(
  split: Split,
  *,
  cache: str = 'off',
  short_side: int | None = None,
  num_threads: int = 0,
) -> Images:
  """Returns a split's images, from a cache that is made if necessary.

  A cache is found again by the split's name and a hash of its labels, of its
  images, of `short_side` and of Pillow's version; others are left alone.
  Processes that make it at the same time each write a file; the last one stays.

  Args:
    split: the images.
    cache: the folder where it lies; 'off' for none; 'auto' for `folder()`, if
      half the memory and half the disk that is free there hold the images.
    short_side: what the short side of larger images is shrunk to, or None.
    num_threads: threads that decode; 0 decodes in the caller's.

  Raises:
    UserError: when the cache is remote or cannot be written, and for a broken
      image.
  """
  decoded = Decoded(split, short_side)
  if cache == 'off':
    return decoded
  where = folder() if cache == 'auto' else paths.as_local(cache, 'the cache')
  stem = f'{split.name.translate(_PLAIN)}-{_fingerprint(split, short_side)}'
  pixels, table = where / f'{stem}.raw', where / f'{stem}.npy'
  try:
    if not _is_whole(pixels, table):
      # Compiled programs lie in the same folder, and must be nobody else's.
      where.mkdir(mode=0o700, parents=True, exist_ok=True)
      if cache == 'auto' and not _fits(decoded, where):
        return decoded
      _write(decoded, pixels, table, num_threads)
    mapped = np.memmap(pixels, np.uint8, 'r')
    return Cached(np.asarray(mapped), np.load(table))
  except OSError as error:
    raise UserError(
      f'cannot cache the images of {split.name} in {where} ({error}): choose '
      "another folder or set the cache to 'off'"
    ) from error


def folder() -> pathlib.Path:
  """Returns where 'auto' keeps its files: `$XDG_CACHE_HOME/hier_jax`."""
  home = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return pathlib.Path(home) / 'hier_jax'


_PLAIN = str.maketrans('/:', '__')


def _sample(n: int) -> np.ndarray:
  """Returns rows spread over all n."""
  return np.unique(np.linspace(0, n - 1, min(n, _SAMPLE)).astype(int))


def _fingerprint(split: Split, short_side: int | None) -> str:
  """Returns a hash of what decides the pixels."""
  about = (_FORMAT, PIL.__version__, short_side, len(split), split.digest)
  found = hashlib.sha256(repr(about).encode())
  found.update(split.labels.astype(np.int64).tobytes())
  if not split.digest:
    for row in range(len(split)):
      found.update(hashlib.sha256(split.source[row]['image']).digest())
  return found.hexdigest()[:16]


def _is_whole(pixels: pathlib.Path, table: pathlib.Path) -> bool:
  try:
    size = 3 * np.prod(np.load(table), 1, dtype=np.int64).sum()
    return pixels.stat().st_size == size
  # Not there, or empty or cut after a power failure.
  except (OSError, EOFError, ValueError):
    return False


def _fits(images: Decoded, where: pathlib.Path) -> bool:
  """Whether the images take no more than `_SHARE` of disk and memory."""
  rows = _sample(len(images))
  size = len(images) * np.mean([images.array(row).size for row in rows])
  memory = os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE')
  return bool(size <= _SHARE * min(memory, shutil.disk_usage(where).free))


def _write(
  images: Decoded, pixels: pathlib.Path, table: pathlib.Path, num_threads: int
) -> None:
  shapes = np.zeros((len(images), 2), np.int32)
  with paths.replacing(pixels) as temporary, temporary.open('wb') as file:
    rows = tqdm.trange(len(images), desc='caching images', disable=None)
    made = threads.in_order(images.array, rows, num_threads)
    for row, array in enumerate(made):
      shapes[row] = array.shape[:2]
      file.write(array.tobytes())
  # The table comes last: with it the cache is there.
  with paths.replacing(table) as temporary, temporary.open('wb') as file:
    np.save(file, shapes)
