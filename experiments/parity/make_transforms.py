"""Writes what torchvision makes of images: `tests/fixtures/transforms_*.npz`.

torchvision over Pillow 12, the last that resizes all images horizontally
first, as it was when the field's results were made. In an environment of its
own: `pip install torch torchvision 'pillow<13'`.
"""

import pathlib

import numpy as np
import PIL
import torch
import torchvision
from PIL import Image
from torchvision import transforms
from torchvision.transforms import functional

_DATA = pathlib.Path(__file__).parents[2] / 'tests' / 'fixtures'
_BICUBIC = transforms.InterpolationMode.BICUBIC
_SIZES = [(40, 30), (30, 40), (33, 33), (15, 47), (47, 15), (24, 25)]
_CROPS_AN_IMAGE, _CROP = 3, 20
_RESIZE, _CENTER = 26, 23
# Width, height, and the share of the area that a crop keeps.
_DRAWN = {'wide': (100, 75, (0.08, 1.0)), 'narrow': (40, 90, (0.2, 1.0))}
_DRAWS = 3000


def _picture(width, height, rng):
  """Gradients, edges and noise."""
  y, x = np.mgrid[:height, :width]
  wave = np.sin(x / 3)[..., None] * np.cos(y[..., None] / np.array([2, 5, 9]))
  edge = np.where((x + y)[..., None] % 17 < 8, 60, -60)
  noise = rng.normal(0, 20, (height, width, 3))
  pixels = 128 + 70 * wave + edge + noise
  return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _views():
  rng = np.random.default_rng(0)
  torch.manual_seed(0)
  evaluate = transforms.Compose(
    [transforms.Resize(_RESIZE, _BICUBIC), transforms.CenterCrop(_CENTER)]
  )
  made = {'resize': _RESIZE}
  for i, size in enumerate(_SIZES):
    image = _picture(*size, rng)
    made[f'image_{i}'] = np.asarray(image)
    made[f'eval_{i}'] = np.asarray(evaluate(image))
    boxes, crops = [], []
    for _ in range(_CROPS_AN_IMAGE):
      top, left, height, width = transforms.RandomResizedCrop.get_params(
        image, (0.2, 1.0), (3 / 4, 4 / 3)
      )
      crop = functional.resized_crop(
        image, top, left, height, width, [_CROP, _CROP], _BICUBIC
      )
      boxes.append((left, top, left + width, top + height))
      crops.append(np.asarray(crop))
    made[f'boxes_{i}'], made[f'crops_{i}'] = np.int16(boxes), np.stack(crops)
    made[f'flip_{i}'] = np.asarray(functional.hflip(crop))
  return made


def _draws():
  torch.manual_seed(1)
  made = {}
  for name, (width, height, scale) in _DRAWN.items():
    image = Image.new('RGB', (width, height))
    found = [
      transforms.RandomResizedCrop.get_params(image, scale, (3 / 4, 4 / 3))
      for _ in range(_DRAWS)
    ]
    made[f'{name}_size'] = np.int16([width, height])
    made[f'{name}_scale'] = np.array(scale)
    made[name] = np.uint8(found)  # top, left, height, width
  return made


def main():
  """Writes both files."""
  versions = f'torchvision {torchvision.__version__}, Pillow {PIL.__version__}'
  if int(PIL.__version__.split('.')[0]) >= 13:
    raise SystemExit(f'{versions}: expected Pillow before 13')
  np.savez_compressed(_DATA / 'transforms_views.npz', **_views())
  np.savez_compressed(_DATA / 'transforms_draws.npz', **_draws())
  print(versions)


if __name__ == '__main__':
  main()
