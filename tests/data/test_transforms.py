"""Decoding and views, against hand-made pixels."""

import io
import math
import pathlib
import re
import struct
import tracemalloc
import zlib
from zlib import crc32

import numpy as np
import pytest
import scipy.stats
from PIL import Image

from hier_jax.data import transforms
from hier_jax.errors import UserError
from tests.support import places


class Script:
  """A generator whose draws, as shares of their range, are written down."""

  def __init__(self, *shares, integers=(), permutation=()):
    self.shares, self.asked = list(shares), []
    self.integers_, self.permutation_ = list(integers), list(permutation)

  def random(self):
    return self.shares.pop(0)

  def uniform(self, low, high, size=None):
    shares = [self.shares.pop(0) for _ in range(size or 1)]
    values = low + (high - low) * np.array(shares)
    return values if size else values[0]

  def integers(self, high):
    self.asked.append(high)
    return self.integers_.pop(0)

  def permutation(self, n):
    assert n == 3
    return self.permutation_


def encode(image, form='PNG', **options):
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def noise(width, height):
  pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3))
  return Image.fromarray(pixels.astype(np.uint8))


def palette(**_):
  image = Image.new('P', (2, 2), 1)
  image.putpalette([0, 0, 0, 10, 20, 30])
  return image


@pytest.mark.parametrize(
  ('image', 'form', 'options', 'expected'),
  [
    (Image.new('RGB', (2, 2), (1, 2, 3)), 'PNG', {}, (1, 2, 3)),
    (Image.new('L', (2, 2), 100), 'PNG', {}, (100, 100, 100)),
    (Image.new('1', (2, 2), 1), 'PNG', {}, (255, 255, 255)),
    (palette(), 'PNG', {}, (10, 20, 30)),
    (palette(), 'PNG', {'transparency': 1}, (255, 255, 255)),
    (palette(), 'GIF', {}, (10, 20, 30)),
    (Image.new('LA', (2, 2), (50, 0)), 'PNG', {}, (255, 255, 255)),
    (Image.new('LA', (2, 2), (50, 255)), 'PNG', {}, (50, 50, 50)),
    # 255 * (1 - 128 / 255) + 0 * 128 / 255.
    (Image.new('RGBA', (2, 2), (0, 0, 255, 128)), 'PNG', {}, (127, 127, 255)),
    (
      Image.new('RGB', (2, 2), (1, 2, 3)),
      'PNG',
      {'transparency': (1, 2, 3)},
      (255, 255, 255),
    ),
    (Image.new('I;16', (2, 2), 0x8040), 'PNG', {}, (128, 128, 128)),
    (Image.new('CMYK', (2, 2), (0, 255, 255, 0)), 'TIFF', {}, (255, 0, 0)),
    (
      Image.new('CMYK', (2, 2), (0, 255, 255, 0)),
      'JPEG',
      {'quality': 100},
      (255, 0, 0),
    ),
    (
      Image.new('RGBA', (2, 2), (9, 9, 9, 0)),
      'WEBP',
      {'lossless': True},
      (255, 255, 255),
    ),
  ],
)
def test_decode_reads_every_colour_mode(image, form, options, expected):
  decoded = transforms.decode(encode(image, form, **options))
  assert decoded.mode == 'RGB'
  np.testing.assert_array_equal(
    np.asarray(decoded), np.tile(np.uint8(expected), (2, 2, 1))
  )


_SMIN, _SMAX, _PHOTOMETRIC = 340, 341, 262


def tiff(values, tags=()):
  return encode(Image.fromarray(values), 'TIFF', tiffinfo=dict(tags))


def twelve_bits():
  """A TIFF of 2 x 1 pixels, 0 and 4095, in twelve bits each."""
  data = bytes.fromhex('000fff')
  tags = [(256, 2), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8)]
  tags += [(277, 1), (278, 1), (279, len(data))]
  entries = b''.join(struct.pack('<HHII', t, 4, 1, v) for t, v in tags)
  end = 8 + len(data) + 1
  head = b'II*\0' + struct.pack('<I', end)
  return head + data + b'\0' + struct.pack('<H', 9) + entries + bytes(4)


_SAMPLES = np.array([[0, 257, 0x8040, 65535]])
_EIGHT = [0, 1, 128, 255]  # 0x8040 / 65535 * 255 = 127.75


@pytest.mark.parametrize(
  ('data', 'expected'),
  [
    (tiff(_SAMPLES.astype('<u2')), _EIGHT),
    (encode(Image.fromarray(_SAMPLES.astype('<u2')), 'PNG'), _EIGHT),
    (b'P5 4 1 65535\n' + _SAMPLES.astype('>u2').tobytes(), _EIGHT),
    # 1023 is the largest: 512 / 1023 * 255 = 127.6.
    (b'P2 3 1 1023\n0 512 1023', [0, 128, 255]),
    (twelve_bits(), [0, 255]),
    (
      encode(Image.fromarray(_SAMPLES.astype('<u2')), 'PNG', transparency=257),
      [0, 255, 128, 255],
    ),
    # White is zero.
    (tiff(_SAMPLES.astype('<u2'), tags={_PHOTOMETRIC: 0}), [255, 254, 127, 0]),
    # What the file says of its range.
    (
      tiff(np.float32([[-1, 0, 0.5, 1, 9]]), tags={_SMIN: 0.0, _SMAX: 1.0}),
      [0, 0, 128, 255, 255],
    ),
    (
      tiff(np.int32([[-500, 0, 500, 1500]]), tags={_SMIN: -500, _SMAX: 1500}),
      [0, 64, 128, 255],
    ),
    (tiff(np.uint16([[0, 4095]]), tags={_SMIN: 0, _SMAX: 4095}), [0, 255]),
  ],
  ids=[
    *('16 bits', 'PNG', 'PGM', '10 bits', '12 bits', 'transparent'),
    *('inverted', 'floats', 'signed', '12 of 16 bits'),
  ],
)
def test_many_bits_are_scaled_by_their_range(data, expected):
  decoded = transforms.decode(data)
  np.testing.assert_array_equal(decoded, np.stack([[expected]] * 3, -1))


def big_endian():
  # As Pillow writes no such file, the bytes of a little-endian one turned.
  tags = [(256, 3, 2), (257, 3, 1), (258, 3, 16), (259, 3, 1), (262, 3, 1)]
  tags += [(273, 4, 8), (277, 3, 1), (278, 3, 1), (279, 4, 4)]
  entries = b''.join(
    struct.pack('>HHIHH', t, k, 1, v, 0)
    if k == 3
    else struct.pack('>HHII', t, k, 1, v)
    for t, k, v in tags
  )
  head = b'MM\0*' + struct.pack('>I', 12) + struct.pack('>HH', 0x8040, 65535)
  return head + struct.pack('>H', 9) + entries + bytes(4)


def test_big_endian_samples():
  data = big_endian()
  assert Image.open(io.BytesIO(data)).mode == 'I;16B'
  assert np.asarray(transforms.decode(data))[0, :, 0].tolist() == [128, 255]


@pytest.mark.parametrize(
  ('values', 'tags', 'message'),
  [
    (np.float32([[0, 1]]), {}, 'mode F without a stated range'),
    (np.int32([[0, 70000]]), {}, 'mode I without a stated range'),
    (np.float32([[0, 1]]), {_SMIN: 1.0, _SMAX: 1.0}, 'a range from 1 to 1'),
    (
      np.float32([[0, np.nan]]),
      {_SMIN: 0.0, _SMAX: 1.0},
      '1 of 2 samples are not finite',
    ),
  ],
)
def test_samples_without_a_range_are_refused(values, tags, message):
  with pytest.raises(
    UserError, match=f'a/b is not a readable image.*{message}'
  ):
    transforms.decode(tiff(values, tags=tags), 'a/b')


def test_decode_ignores_exif_orientation():
  exif = Image.Exif()
  exif[0x0112] = 6
  data = encode(Image.new('RGB', (4, 2)), 'JPEG', exif=exif)
  assert transforms.decode(data).size == (4, 2)


@pytest.mark.parametrize(
  'data', [b'', b'not an image', encode(noise(32, 32))[:300]]
)
def test_decode_names_what_it_cannot_read(data):
  with pytest.raises(UserError, match='a/b is not a readable image'):
    transforms.decode(data, 'a/b')


SCALE, RATIO = (0.2, 1.0), (3 / 4, 4 / 3)


def test_crop_of_the_first_try():
  # Share .2 + .375 * .8 = .5 of 100 x 60, ratio 1: sides sqrt(3000) = 54.8.
  rng = Script(0.375, 0.5, integers=[5, 45])
  box = transforms.crop_box(100, 60, SCALE, RATIO, rng)
  assert box == (45, 5, 100, 60)
  assert rng.asked == [6, 46]


def test_crop_ratio_is_width_over_height():
  # Share .48, ratio 4/3: sqrt(2880 * 4/3) = 61.97, sqrt(2880 * 3/4) = 46.48.
  rng = Script(0.35, 1.0, integers=[0, 0])
  box = transforms.crop_box(100, 60, SCALE, RATIO, rng)
  assert box == (0, 0, 62, 46)


def test_crop_tries_again_where_it_does_not_fit():
  # The whole area at ratio 1 is 77 high: too much. Then as above.
  rng = Script(1.0, 0.5, 0.375, 0.5, integers=[1, 2])
  box = transforms.crop_box(100, 60, SCALE, RATIO, rng)
  assert box == (2, 1, 57, 56)


@pytest.mark.parametrize(
  ('size', 'box'),
  [
    ((10, 1000), (0, 493, 10, 506)),  # 10 / (3/4) = 13.3 high
    ((1000, 10), (493, 0, 506, 10)),
  ],
)
def test_crop_falls_back_to_the_centre_after_ten_tries(size, box):
  rng = Script(*[1.0, 0.5] * 10)
  assert transforms.crop_box(*size, SCALE, RATIO, rng) == box
  assert not rng.shares


def test_crop_falls_back_to_everything_where_the_ratio_is_allowed():
  rng = Script(*[1.0, 0.5] * 10)
  box = transforms.crop_box(100, 90, (2.0, 2.0), RATIO, rng)
  assert box == (0, 0, 100, 90)


def test_train_view_resizes_the_crop_alone():
  image = noise(100, 60)
  view = transforms.TrainView(16, flip=0.0)
  seen = view(image, Script(0.375, 0.5, 0.9, integers=[5, 45]))
  expected = image.crop((45, 5, 100, 60)).resize(
    (16, 16), Image.Resampling.BICUBIC
  )
  np.testing.assert_array_equal(seen, np.asarray(expected))
  assert seen.dtype == np.uint8


def plain(size, **options):
  options = {'scale': None, 'flip': 0.0, **options}
  return transforms.TrainView(size, **options)


def test_view_of_an_image_of_its_size_is_the_image():
  image = noise(8, 8)
  np.testing.assert_array_equal(plain(8)(image, Script(0.5)), np.asarray(image))
  np.testing.assert_array_equal(
    transforms.EvalView(8)(image), np.asarray(image)
  )


def test_flip_follows_its_probability():
  image = noise(8, 8)
  pixels = np.asarray(image)
  view = plain(8, flip=0.5)
  np.testing.assert_array_equal(view(image, Script(0.4)), pixels[:, ::-1])
  np.testing.assert_array_equal(view(image, Script(0.6)), pixels)


# Shares of .5 are the middle of +-range: no rotation, zoom, aspect, shift.
def test_affine_rotates_about_the_centre():
  image = noise(8, 8)
  view = plain(8, affine=transforms.Affine(degrees=90))
  seen = view(image, Script(1.0, 0.5, 0.5, 0.5, 0.5, 0.9))
  turned = np.rot90(np.asarray(image), -1)
  # cos(90 deg) is 6e-17, and Pillow truncates what it interpolates.
  assert np.abs(np.int16(seen) - turned).max() <= 1


def test_affine_shifts_and_fills():
  image = noise(8, 8)
  view = plain(8, affine=transforms.Affine(translate=0.25), fill=(1, 2, 3))
  seen = view(image, Script(0.5, 0.5, 0.5, 1.0, 0.5, 0.9))
  np.testing.assert_array_equal(seen[:, 2:], np.asarray(image)[:, :6])
  np.testing.assert_array_equal(seen[:, :2], np.tile([1, 2, 3], (8, 2, 1)))


@pytest.mark.parametrize(
  ('affine', 'shares', 'expected'),
  [
    (dict(log_scale=math.log(2)), [0.5, 1.0, 0.5], (0.5, 0, 2, 0, 0.5, 2)),
    (dict(log_aspect=math.log(4)), [0.5, 0.5, 1.0], (0.5, 0, 2, 0, 2, -4)),
  ],
)
def test_affine_zooms_and_stretches(affine, shares, expected):
  got = transforms.Affine(**affine).coefficients(8, Script(*shares, 0.5, 0.5))
  np.testing.assert_allclose(got, expected, atol=1e-12)


def test_grayscale_follows_its_probability():
  image = Image.new('RGB', (2, 2), (255, 0, 0))
  view = plain(2, grayscale=0.5)
  # ITU-R 601 weighs red by .299.
  np.testing.assert_array_equal(view(image, Script(0.9, 0.4)), 76)
  np.testing.assert_array_equal(
    view(image, Script(0.9, 0.6)), np.asarray(image)
  )


def test_channels_are_permuted():
  image = Image.new('RGB', (2, 2), (1, 2, 3))
  rng = Script(0.9, 0.4, permutation=[2, 0, 1])
  seen = plain(2, channel_shuffle=0.5)(image, rng)
  assert seen[0, 0].tolist() == [3, 1, 2]


def test_brightness_scales_ink_and_leaves_the_ground():
  pixels = np.uint8([[[155, 155, 155], [0, 0, 0], [255, 255, 255]]] * 3)
  seen = plain(3, brightness=0.5)(
    Image.fromarray(pixels), Script(0.9, 1.0, 0.0, 0.5)
  )
  # Gains 1.5, .5 and 1 on the difference from white.
  expected = [[105, 205, 155], [0, 128, 0], [255, 255, 255]]
  np.testing.assert_array_equal(seen[0], expected)


def test_random_views_are_those_of_their_generator():
  image = noise(40, 30)
  view = transforms.TrainView(
    16,
    affine=transforms.Affine(15, 0.25, 0.2, 0.1),
    grayscale=0.25,
    channel_shuffle=0.25,
    brightness=0.2,
  )
  first, again, other = (
    view(image, np.random.default_rng(seed)) for seed in (0, 0, 1)
  )
  assert first.shape == (16, 16, 3) and first.dtype == np.uint8
  np.testing.assert_array_equal(first, again)
  assert not np.array_equal(first, other)


@pytest.mark.parametrize(
  ('size', 'rows', 'columns'),
  [
    # Margins of 1.5 and 2.5 round to even.
    ((7, 4), slice(0, 4), slice(2, 6)),
    ((9, 4), slice(0, 4), slice(2, 6)),
    ((4, 7), slice(2, 6), slice(0, 4)),
  ],
)
def test_eval_view_cuts_the_centre(size, rows, columns):
  image = noise(*size)
  np.testing.assert_array_equal(
    transforms.EvalView(4)(image), np.asarray(image)[rows, columns]
  )


def test_eval_view_resizes_the_short_side_and_rounds_the_long_one_down():
  image = noise(50, 30)
  # 50 * 16 / 30 = 26.67.
  resized = np.asarray(image.resize((26, 16), Image.Resampling.BICUBIC))
  np.testing.assert_array_equal(
    transforms.EvalView(12, resize=16)(image), resized[2:14, 7:19]
  )


def test_eval_view_refuses_a_crop_larger_than_the_image():
  with pytest.raises(UserError, match='resize 200 is smaller than size 224'):
    transforms.EvalView(224, resize=200)


DATA = places.FIXTURES


@pytest.fixture(scope='module')
def torchvision_views():
  """What torchvision made; see experiments/parity/make_transforms.py."""
  return np.load(DATA / 'transforms_views.npz')


@pytest.mark.parametrize('i', range(6))
def test_views_are_those_of_torchvision(torchvision_views, i):
  made = torchvision_views
  image = Image.fromarray(made[f'image_{i}'])
  expected = made[f'eval_{i}']
  view = transforms.EvalView(len(expected), resize=int(made['resize']))
  np.testing.assert_array_equal(view(image), expected)
  view = plain(made[f'crops_{i}'].shape[1])
  for box, crop in zip(made[f'boxes_{i}'], made[f'crops_{i}'], strict=True):
    part = image.crop(tuple(box.tolist()))
    np.testing.assert_array_equal(view(part, Script(0.5)), crop)
  view = plain(view.size, flip=1.0)
  np.testing.assert_array_equal(view(part, Script(0.5)), made[f'flip_{i}'])


@pytest.mark.parametrize('name', ['wide', 'narrow'])
def test_crops_are_distributed_as_those_of_torchvision(name):
  made = np.load(DATA / 'transforms_draws.npz')
  theirs = made[name].astype(int)
  size, scale = made[f'{name}_size'].tolist(), tuple(made[f'{name}_scale'])
  rng = np.random.default_rng(0)
  boxes = [transforms.crop_box(*size, scale, RATIO, rng) for _ in theirs]
  left, top, right, bottom = np.array(boxes).T
  ours = np.stack([top, left, bottom - top, right - left], 1)
  columns = [*range(4), 'area', 'ratio']
  of = {
    'area': lambda b: b[:, 2] * b[:, 3],
    'ratio': lambda b: b[:, 3] / b[:, 2],
  }
  for column in columns:
    get = of.get(column, lambda b, column=column: b[:, column])
    # Of twelve tests on fixed draws; a wrong scale, ratio or corner gives 0.
    assert scipy.stats.ks_2samp(get(ours), get(theirs)).pvalue > 1e-3, column


def test_crops_that_always_fit_have_uniform_area_and_log_ratio():
  # Up to .5 of a square at 4/3 is .82 of its side.
  n, rng = 5000, np.random.default_rng(0)
  boxes = [
    transforms.crop_box(n, n, (0.2, 0.5), RATIO, rng) for _ in range(2000)
  ]
  left, top, right, bottom = np.array(boxes).T
  width, height = right - left, bottom - top
  uniform = {
    'area': (width * height / n**2 - 0.2) / 0.3,
    'ratio': (np.log(width / height) / math.log(4 / 3) + 1) / 2,
    'left': left / (n - width),
    'top': top / (n - height),
  }
  for name, values in uniform.items():
    assert scipy.stats.kstest(values, 'uniform').pvalue > 1e-3, name


def test_width_is_resized_first_whatever_the_version_of_pillow():
  image = noise(20, 90)
  across = image.resize((16, 90), Image.Resampling.BICUBIC)
  expected = across.resize((16, 16), Image.Resampling.BICUBIC)
  np.testing.assert_array_equal(
    plain(16)(image, Script(0.5)), np.asarray(expected)
  )


def on_device(short_side=20, **options):
  return transforms.DeviceView(transforms.TrainView(16, **options), short_side)


def test_device_view_cuts_the_crop_of_the_train_view():
  image = noise(30, 20)
  for seed in range(20):
    view = on_device()
    crop, flip = view(np.asarray(image), np.random.default_rng(seed))
    made = plain(16, flip=float(flip))(Image.fromarray(crop), Script(0.5))
    expected = view.view(image, np.random.default_rng(seed))
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize('size', [(20, 20), (20, 33), (47, 20), (900, 19)])
@pytest.mark.parametrize('ratio', [RATIO, (0.4, 1.0), (1.0, 1.7)])
def test_device_view_has_room_for_every_crop(size, ratio):
  view, rng = on_device(ratio=ratio), np.random.default_rng(0)
  image = np.zeros((size[1], size[0], 3), np.uint8)
  largest = max(max(view(image, rng)[0].shape) for _ in range(500))
  assert largest <= view.size


@pytest.mark.parametrize(
  'options', [{'scale': None}, {'grayscale': 0.1}, {'brightness': 0.1}]
)
def test_device_view_refuses_what_devices_do_not_do(options):
  with pytest.raises(UserError, match='a view is a crop and a flip'):
    on_device(**options)


def test_shrink_keeps_what_is_small():
  image = noise(50, 30)
  assert transforms.shrink(image, 30) is image
  assert transforms.shrink(image, 16).size == (26, 16)


def bomb(width, height):
  """A PNG of one colour, 1 bit a pixel; as many pixels as one likes."""

  def chunk(kind, data):
    body = kind + data
    return struct.pack('>I', len(data)) + body + struct.pack('>I', crc32(body))

  header = struct.pack('>IIBBBBB', width, height, 1, 0, 0, 0, 0)
  packed = zlib.compressobj(9)
  row = bytes(1 + -(-width // 8))
  data = b''.join(packed.compress(row) for _ in range(height))
  return (
    b'\x89PNG\r\n\x1a\n'
    + chunk(b'IHDR', header)
    + chunk(b'IDAT', data + packed.flush())
    + chunk(b'IEND', b'')
  )


@pytest.mark.filterwarnings('ignore::PIL.Image.DecompressionBombWarning')
def test_too_many_pixels_are_counted_before_they_are_decoded():
  data = bomb(13_000, 13_000)
  assert len(data) < 30_000
  tracemalloc.start()
  with pytest.raises(UserError, match=r'13,000 x 13,000 pixels, .*_mega.*, 64'):
    transforms.decode(data)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 1e6
  assert transforms.decode(bomb(100, 10), max_megapixels=1e-3).size == (100, 10)


@pytest.mark.parametrize('form', transforms.FORMATS)
def test_the_limit_is_that_of_every_format(form):
  data = encode(noise(40, 30), form)
  assert transforms.decode(data, max_megapixels=1200e-6).size == (40, 30)
  for limit in (1199e-6, -1, math.nan):
    with pytest.raises(UserError, match=r'x.y is not .* 40 x 30 pixels'):
      transforms.decode(data, 'x.y', limit)


def test_a_higher_limit_than_that_of_pillow(monkeypatch):
  monkeypatch.setattr(Image, 'MAX_IMAGE_PIXELS', 100)
  data = encode(noise(40, 30))
  with pytest.raises(UserError, match='1200 pixels'):
    transforms.decode(data, max_megapixels=1e-6)
  assert transforms.decode(data).size == (40, 30)


def test_tiles_that_are_larger_than_their_image_count():
  tile = zlib.compress(bytes(1600 * 1600))
  tags = [
    *((256, 16), (257, 16), (258, 8), (259, 8), (262, 1), (277, 1)),
    *((322, 1600), (323, 1600), (324, 8), (325, len(tile))),
  ]
  data = struct.pack('<2sHI', b'II', 42, 8 + len(tile)) + tile
  data += struct.pack('<H', len(tags))
  data += b''.join(struct.pack('<HHII', tag, 4, 1, x) for tag, x in tags)
  data += bytes(4)
  assert transforms.decode(data).size == (16, 16)
  with pytest.raises(UserError, match='1,600 x 1,600 pixels'):
    transforms.decode(data, max_megapixels=1)


def test_formats_of_others_are_not_tried():
  # Pillow runs an interpreter on these.
  data = b'%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n'
  with pytest.raises(UserError), transforms.opened(data):
    pass


def test_every_image_is_opened_with_a_list_of_formats():
  root = pathlib.Path(transforms.__file__).parents[2]
  paths = [
    p for d in ('hier_jax', 'experiments') for p in root.glob(f'{d}/**/*.py')
  ]
  calls = [
    (path.name, re.findall(r'Image\.open\((?:[^()]|\([^()]*\))*\)', text))
    for path in paths
    if 'Image.open' in (text := path.read_text())
  ]
  assert 'transforms.py' in dict(calls)
  for name, found in calls:
    assert found and all('formats=' in call for call in found), name
