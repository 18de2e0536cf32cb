"""From encoded bytes to uint8 views of a fixed size, with Pillow alone."""

import contextlib
import dataclasses
import io
import math
import pathlib
from collections.abc import Iterator

import numpy as np
from PIL import ExifTags, Image

from hier_jax.data import threads
from hier_jax.errors import UserError, plain

# Pillow's own list of fifty takes as long to try as a small drawing takes to
# decode, and runs interpreters such as EPS's on files of any origin.
FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')
# Of an image, by default.
MAX_MEGAPIXELS = 64.0
# That threads decode at once, at up to 32 bytes each.
_PIXELS = threads.Budget(128 * 10**6)
_WHITE = (255, 255, 255)
_TAG = ExifTags.Base


@contextlib.contextmanager
def opened(
  file: bytes | pathlib.Path,
  name: str = 'image',
  max_megapixels: float = MAX_MEGAPIXELS,
) -> Iterator[Image.Image]:
  """An image with only its header read.

  Args:
    file: the encoded image, or where it lies.
    name: what messages call it.
    max_megapixels: what it may have.

  Raises:
    UserError: when it is none, or larger; and for what the block raises.
  """
  limit = 1e6 * max_megapixels
  # Pillow has one limit for the whole process, of 89 megapixels.
  if Image.MAX_IMAGE_PIXELS is not None:
    Image.MAX_IMAGE_PIXELS = max(  # type: ignore[assignment]
      Image.MAX_IMAGE_PIXELS, limit
    )
  source = io.BytesIO(file) if isinstance(file, bytes) else file
  try:
    with Image.open(source, formats=FORMATS) as image:
      width, height = _extent(image)
      if not width * height <= limit:
        raise ValueError(
          f'it has {width:,} x {height:,} pixels, more than max_megapixels, '
          f'{max_megapixels:g}, allows'
        )
      yield image
  # Decoders raise what their format's parser trips over, of any type.
  except Exception as error:
    raise UserError(
      f'{name} is not a readable image ({plain(str(error))}); expected one of '
      f'{", ".join(FORMATS)}: replace or remove it'
    ) from error


def _extent(image: Image.Image) -> tuple[int, int]:
  """Width and height of the most that is held while it is decoded."""
  tags = getattr(image, 'tag_v2', {})  # of a TIFF, whose tiles may be larger
  tile = tags.get(_TAG.TileWidth, 0), tags.get(_TAG.TileLength, 0)
  return max(image.size, tile, key=math.prod)


def decode(
  data: bytes,
  name: str = 'image',
  max_megapixels: float = MAX_MEGAPIXELS,
) -> Image.Image:
  """Decodes an image of any color mode to RGB.

  Transparency is laid on white. More than 8 bits are scaled to 8 by the range
  of the format, or the one that a TIFF states (SMinSampleValue,
  SMaxSampleValue). EXIF orientation is ignored, as in torchvision's loader,
  with which most published results were made.

  Args:
    data: the encoded image.
    name: what messages call it.
    max_megapixels: what it may have; larger ones are not decoded.

  Raises:
    UserError: when it is larger, cannot be decoded, or holds floats, signed or
      32 bit integers without a stated range.
  """
  with (
    opened(data, name, max_megapixels) as image,
    _PIXELS.taken(math.prod(_extent(image))),
  ):
    image.load()
    return _to_rgb(image)


def _to_rgb(image: Image.Image) -> Image.Image:
  if image.mode == 'RGB' and not image.has_transparency_data:
    return image
  if image.mode in ('I', 'F') or image.mode.startswith('I;16'):
    image = _eight_bits(image)
  if image.has_transparency_data:
    image = image.convert('RGBA')
    ground = Image.new('RGBA', image.size, _WHITE)
    image = Image.alpha_composite(ground, image)
  return image.convert('RGB')


def _eight_bits(image: Image.Image) -> Image.Image:
  # Pillow's own conversion clips at 255 and leaves all but black white.
  black, white = _range(image)
  samples = np.asarray(image, np.float64)
  if lost := samples.size - np.isfinite(samples).sum():
    raise ValueError(f'{lost} of {samples.size} samples are not finite')
  share = np.clip((samples - black) / (white - black), 0, 1)
  # Of 16 bit PNG, the one sample that is transparent.
  share[samples == image.info.get('transparency')] = 1
  return Image.fromarray(np.rint(255 * share).astype(np.uint8))


def _range(image: Image.Image) -> tuple[float, float]:
  """The samples that are black and white; raises ValueError if unknown."""
  tags = getattr(image, 'tag_v2', None)  # of a TIFF
  if tags is None and image.mode != 'F':
    # PNG, and PPM, which Pillow scales to 16 bits.
    return 0, 0xFFFF
  tags = tags or {}
  if _TAG.SMinSampleValue in tags and _TAG.SMaxSampleValue in tags:
    (black,), (white,) = (
      tags[tag] for tag in (_TAG.SMinSampleValue, _TAG.SMaxSampleValue)
    )
  elif image.mode.startswith('I;16'):
    black, white = 0, 2 ** tags[_TAG.BitsPerSample][0] - 1
  else:
    raise ValueError(
      f'mode {image.mode} without a stated range of samples: state it as TIFF '
      'SMinSampleValue and SMaxSampleValue, or scale to 8 or 16 bits'
    )
  if not black < white:
    raise ValueError(f'its samples have a range from {black:g} to {white:g}')
  inverted = tags.get(_TAG.PhotometricInterpretation) == 0
  return (white, black) if inverted else (black, white)


@dataclasses.dataclass(frozen=True)
class Affine:
  """Ranges of a random affine map about the image's center.

  Attributes:
    degrees: largest rotation, uniform in +-degrees.
    log_scale: natural log of the zoom, uniform in +-log_scale.
    log_aspect: log of width over height, uniform in +-log_aspect, area kept.
    translate: shift along each axis as a share of the size, +-translate.
  """

  degrees: float = 0.0
  log_scale: float = 0.0
  log_aspect: float = 0.0
  translate: float = 0.0

  def coefficients(
    self, size: int, rng: np.random.Generator
  ) -> tuple[float, ...]:
    """Returns (a, b, c, d, e, f): output (x, y) shows input (ax+by+c, ..)."""
    turn, zoom, aspect, right, down = rng.uniform(-1, 1, 5)
    angle = math.radians(self.degrees * turn)
    zoom = self.log_scale * zoom
    aspect = self.log_aspect * aspect / 2
    across, along = math.exp(-zoom - aspect), math.exp(-zoom + aspect)
    a, b = across * math.cos(angle), across * math.sin(angle)
    d, e = -along * math.sin(angle), along * math.cos(angle)
    x = size * (0.5 + self.translate * right)
    y = size * (0.5 + self.translate * down)
    return a, b, size / 2 - a * x - b * y, d, e, size / 2 - d * x - e * y


@dataclasses.dataclass(frozen=True)
class TrainView:
  """A random training view; call it as `view(image, rng)`.

  Attributes:
    size: height and width of the result.
    scale: share of the area that the crop keeps; None takes the whole image.
    ratio: width over height of the crop.
    flip: probability of a horizontal flip.
    affine: random affine map after the crop, or None.
    grayscale: probability of dropping the colors.
    channel_shuffle: probability of permuting the channels.
    brightness: each channel's difference from `fill` is multiplied by its own
      gain, uniform in 1 +- brightness, so the background of a drawing is
      unchanged.
    fill: color of the background, also where the affine map uncovers it; white
      for drawings.
  """

  size: int
  scale: tuple[float, float] | None = (0.2, 1.0)
  ratio: tuple[float, float] = (3 / 4, 4 / 3)
  flip: float = 0.5
  affine: Affine | None = None
  grayscale: float = 0.0
  channel_shuffle: float = 0.0
  brightness: float = 0.0
  fill: tuple[int, int, int] = _WHITE

  def __call__(
    self, image: Image.Image, rng: np.random.Generator
  ) -> np.ndarray:
    """Returns a view of an RGB image, uint8 [size, size, 3]."""
    image = image.crop(self.box(*image.size, rng))
    image = _resize(image, (self.size, self.size))
    if self.affine is not None:
      image = image.transform(
        image.size,
        Image.Transform.AFFINE,
        self.affine.coefficients(self.size, rng),
        Image.Resampling.BICUBIC,
        fillcolor=self.fill,
      )
    if rng.random() < self.flip:
      image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return self._recolor(image, rng)

  def box(
    self, width: int, height: int, rng: np.random.Generator
  ) -> tuple[int, int, int, int]:
    """Draws (left, top, right, bottom) of the crop, in pixels."""
    if self.scale is None:
      return 0, 0, width, height
    return crop_box(width, height, self.scale, self.ratio, rng)

  def _recolor(
    self, image: Image.Image, rng: np.random.Generator
  ) -> np.ndarray:
    if self.grayscale and rng.random() < self.grayscale:
      image = image.convert('L').convert('RGB')
    view = np.asarray(image)
    if self.channel_shuffle and rng.random() < self.channel_shuffle:
      view = view[..., rng.permutation(3)]
    if self.brightness:
      gain = np.float32(1 + self.brightness * rng.uniform(-1, 1, 3))
      ground = np.array(self.fill, np.float32)
      view = ground + gain * (view - ground)
      view = np.clip(np.rint(view), 0, 255).astype(np.uint8)
    return view


@dataclasses.dataclass(frozen=True)
class DeviceView:
  """The crop that `augment.views` resizes and flips on the device.

  From the same generator it draws the same values as `view`. Call it as
  `device_view(image, rng)` with an array.

  Attributes:
    view: the training view, of crop and flip alone.
    short_side: no image's short side is longer; see `shrink`.

  Raises:
    UserError: when the view does something else, or does not crop.
  """

  view: TrainView
  short_side: int

  def __post_init__(self) -> None:
    view = self.view
    plain = TrainView(view.size, view.scale, view.ratio, view.flip)
    plain = dataclasses.replace(plain, fill=view.fill)
    if view.scale is None or view != plain:
      raise UserError(
        f'{view}: on the device a view is a crop and a flip; leave the rest '
        'out, or make views on the host'
      )

  @property
  def size(self) -> int:
    """The side of a square that holds every crop, in pixels."""
    low, high = self.view.ratio
    # Sides are rounded, so that a short one is within a half of its own.
    return math.floor((self.short_side + 0.5) * max(high, 1 / low) + 0.5)

  def __call__(
    self, image: np.ndarray, rng: np.random.Generator
  ) -> tuple[np.ndarray, bool]:
    """Returns the crop, uint8 [h, w, 3], and whether to flip it."""
    height, width, _ = image.shape
    left, top, right, bottom = self.view.box(width, height, rng)
    return image[top:bottom, left:right], rng.random() < self.view.flip


@dataclasses.dataclass(frozen=True)
class EvalView:
  """The evaluation view; call it as `view(image)`.

  Attributes:
    size: height and width of the result, cut out of the center.
    resize: what the short side is resized to first; `size` by default.

  Raises:
    UserError: when `resize` is smaller than `size`.
  """

  size: int
  resize: int | None = None

  def __post_init__(self) -> None:
    if self.resize is not None and self.resize < self.size:
      raise UserError(
        f'resize {self.resize} is smaller than size {self.size}: a crop of '
        'that size needs a short side at least as long'
      )

  def __call__(self, image: Image.Image) -> np.ndarray:
    """Returns the view of an RGB image, uint8 [size, size, 3]."""
    image = _resize_short_side(image, self.resize or self.size)
    # Margins are rounded to even, as torchvision does: another rounding
    # shifts the crop by a pixel.
    left, top = (round((side - self.size) / 2) for side in image.size)
    view = np.asarray(image)
    return view[top : top + self.size, left : left + self.size]


def shrink(image: Image.Image, short_side: int) -> Image.Image:
  """Shrinks a larger image to this short side; returns others unchanged."""
  if min(image.size) <= short_side:
    return image
  return _resize_short_side(image, short_side)


def crop_box(
  width: int,
  height: int,
  scale: tuple[float, float],
  ratio: tuple[float, float],
  rng: np.random.Generator,
) -> tuple[int, int, int, int]:
  """Draws the crop of torchvision's RandomResizedCrop.

  Ten tries at an area share uniform in `scale` and an aspect ratio uniform
  in log `ratio`; failing those, the largest central crop of allowed ratio.

  Returns:
    (left, top, right, bottom) in pixels.
  """
  for _ in range(10):
    area = width * height * rng.uniform(*scale)
    aspect = math.exp(rng.uniform(math.log(ratio[0]), math.log(ratio[1])))
    w = round(math.sqrt(area * aspect))
    h = round(math.sqrt(area / aspect))
    if 0 < w <= width and 0 < h <= height:
      top = int(rng.integers(height - h + 1))
      left = int(rng.integers(width - w + 1))
      return left, top, left + w, top + h
  w, h = width, height
  if width / height < ratio[0]:
    h = round(width / ratio[0])
  elif width / height > ratio[1]:
    w = round(height * ratio[1])
  left, top = (width - w) // 2, (height - h) // 2
  return left, top, left + w, top + h


def _resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
  # One axis at a time, the width first, as Pillow did for all images before
  # version 13: the order shows in pixels, since each pass rounds and clips.
  for step in ((size[0], image.height), size):
    if image.size != step:
      image = image.resize(step, Image.Resampling.BICUBIC)
  return image


def _resize_short_side(image: Image.Image, short_side: int) -> Image.Image:
  """The long side is rounded down, as torchvision does."""
  short = min(image.size)
  width, height = (short_side * side // short for side in image.size)
  return _resize(image, (width, height))
