"""Folders of small images, and a model that needs no training."""

import dataclasses

import numpy as np
from PIL import Image

from hier_jax.data.transforms import EvalView
from hier_jax.inference.model import Model

COLORS = {'red': (200, 20, 20), 'green': (20, 200, 20), 'blue': (20, 20, 200)}


def write(path, color=(0, 0, 0)):
  """An image of one color."""
  path.parent.mkdir(parents=True, exist_ok=True)
  Image.new('RGB', (10, 8), tuple(color)).save(path)
  return path


def classes(folder, per_class=2):
  """Folders of colors, no two images the same."""
  for name, color in COLORS.items():
    for i in range(per_class):
      shade = [min(x + 5 * i, 255) for x in color]
      write(folder / name / f'{i}.png', shade)
  return folder


def mean_color(c=None, **changes):
  """A `Model` whose embeddings are the images' mean colors."""

  def embed(images):
    assert images.shape[1:] == (8, 8, 3) and images.dtype == np.uint8
    calls.append(len(images))
    return images.mean((1, 2), dtype=np.float32) / 512

  calls = []
  about = {'model': 'mean', 'title': 'mean color', 'digest': 'm' * 32}
  made = Model('mean', embed, EvalView(8), c, None, about, about['digest'])
  made = dataclasses.replace(made, **changes)
  return made, calls
