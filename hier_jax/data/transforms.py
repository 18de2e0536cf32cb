"""From encoded bytes to uint8 views of a fixed size, with Pillow alone."""

import dataclasses
import io
import math

import numpy as np
from PIL import Image

from hier_jax.errors import UserError

# Pillow's own list of fifty takes as long to try as a small drawing takes to
# decode, and runs interpreters such as EPS's on files of any origin.
_FORMATS = ('JPEG', 'PNG', 'WEBP', 'GIF', 'BMP', 'TIFF', 'PPM')
_WHITE = (255, 255, 255)


def decode(data: bytes, name: str = 'image') -> Image.Image:
  """Decodes an image of any colour mode to RGB.

  Transparency is laid on white, 16 bits are scaled to 8. An EXIF orientation
  is ignored, as torchvision's loader does, with which the published figures
  of the field were made.

  Args:
    data: the encoded image.
    name: what messages call it.

  Raises:
    UserError: when it cannot be decoded.
  """
  try:
    with Image.open(io.BytesIO(data), formats=_FORMATS) as image:
      image.load()
    return _to_rgb(image)
  # Decoders raise what their format's parser trips over, of any type.
  except Exception as error:
    raise UserError(
      f'{name} is not a readable image ({error}); expected one of '
      f'{", ".join(_FORMATS)}: replace or remove it'
    ) from error


def _to_rgb(image: Image.Image) -> Image.Image:
  if image.mode == 'RGB' and not image.has_transparency_data:
    return image
  if image.mode == 'I' or image.mode.startswith('I;16'):
    # Pillow's own conversion clips at 255 and leaves all but black white.
    values = np.clip(np.asarray(image, np.int64) >> 8, 0, 255)
    image = Image.fromarray(values.astype(np.uint8))
  if image.has_transparency_data:
    image = image.convert('RGBA')
    ground = Image.new('RGBA', image.size, _WHITE)
    image = Image.alpha_composite(ground, image)
  return image.convert('RGB')


@dataclasses.dataclass(frozen=True)
class Affine:
  """Ranges of a random affine map about the image's centre.

  Attributes:
    degrees: rotation, uniform in +-degrees.
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
    grayscale: probability of dropping the colours.
    channel_shuffle: probability of permuting the channels.
    brightness: each channel's difference from `fill` is multiplied by its
      own gain, uniform in 1 +- brightness: the ground of a drawing stays.
    fill: the ground's colour, which shows where the affine map uncovers it;
      white for drawings.
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
    if self.scale is not None:
      box = crop_box(*image.size, self.scale, self.ratio, rng)
      image = image.crop(box)
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
    return self._recolour(image, rng)

  def _recolour(
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
class EvalView:
  """The evaluation view; call it as `view(image)`.

  Attributes:
    size: height and width of the result, cut out of the centre.
    resize: what the short side is resized to first; `size` by default.

  Raises:
    UserError: when `resize` is smaller than `size`.
  """

  size: int
  resize: int | None = None

  def __post_init__(self):
    if self.resize is not None and self.resize < self.size:
      raise UserError(
        f'resize {self.resize} is smaller than size {self.size}: a crop of '
        'that size needs a short side at least as long'
      )

  def __call__(self, image: Image.Image) -> np.ndarray:
    """Returns the view of an RGB image, uint8 [size, size, 3]."""
    short, resize = min(image.size), self.resize or self.size
    # The long side is rounded down and the margin to even, as torchvision
    # does: another rounding shifts the crop by a pixel.
    width, height = (resize * side // short for side in image.size)
    view = np.asarray(_resize(image, (width, height)))
    left = round((width - self.size) / 2)
    top = round((height - self.size) / 2)
    return view[top : top + self.size, left : left + self.size]


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
  if image.size == size:
    return image
  return image.resize(size, Image.Resampling.BICUBIC)
