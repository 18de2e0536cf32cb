"""Models to export, and what the code on an export's card computes."""

import re
import subprocess
import sys

import jax
import numpy as np
from PIL import Image

from hier_jax import models
from hier_jax.data.transforms import EvalView
from hier_jax.inference.model import Model
from hier_jax.training.distributed import mapping
from hier_jax.training.step import train_step

BATCHES = 1, 3, 8


def drawn(backbone, *, size=16, seed=0, **options):
  """A model of drawn weights, none of them as it starts."""
  module = models.create(
    backbone, image_size=size, embedding_dim=8, **{'c': 0.1} | options
  )
  rng = np.random.default_rng(seed)
  # Nothing is compiled for it.
  shapes = jax.eval_shape(module.init, jax.random.key(0), images(1, size))
  variables = jax.tree_util.tree_map_with_path(
    lambda path, leaf: _weights(rng, path[-1].key, leaf.shape), shapes
  )
  about = {
    'title': f'{backbone}, drawn',
    'backbone': backbone,
    'resize': size + 2,
    'mean': module.mean,
    'std': module.std,
  }
  embed = mapping.map_embed(train_step.make_embed(module))
  return Model(
    backbone,
    lambda rows: embed(variables, rows),
    EvalView(size, size + 2),
    module.head.c,
    None,
    about,
    'd' * 32,
    module=module,
    variables=variables,
  )


def _weights(rng, name, shape):
  noise = rng.normal(size=shape).astype(np.float32)
  if name in ('scale', 'var'):
    return np.exp(noise / 10)
  if name == 'kernel':
    return noise / np.sqrt(np.prod(shape[:-1], dtype=np.float32))
  return noise / 10


def images(count, size, seed=0):
  """Random images `[count, size, size, 3]`."""
  rng = np.random.default_rng(seed)
  return rng.integers(0, 256, (count, size, size, 3), np.uint8)


def expected(model, rows):
  """The model's own embeddings of images, however many devices there are."""
  devices = jax.local_device_count()
  padded = np.concatenate([rows] * devices)
  return np.asarray(model.embed(padded))[: len(rows)]


def code(folder):
  """The Python of an export's card."""
  text = (folder / 'README.md').read_text()
  return re.search(r'^```python\n(.*?)^```', text, re.S | re.M)[1]


def run_card(folder, batches, *, without=()):
  """Runs the card's code in a process of its own, as its reader would.

  Args:
    folder: of the export.
    batches: images `[b, H, W, 3]`, several arrays.
    without: names of packages that cannot be imported.

  Returns:
    The embeddings of each of the batches; path -> the view of a photo; and what
    the code prints.
  """
  photo(folder / 'photo.jpg')
  # Where it depends on the Pillow which side is resized first.
  photo(folder / 'tall.png', 100, 33)
  np.savez(folder / 'in.npz', *batches)
  program = (
    f'import sys\nfor name in {list(without)}: sys.modules[name] = None\n'
    f'{code(folder)}\n'
    "given = np.load('in.npz')\n"
    'made = [np.asarray(embed(given[name])) for name in given.files]\n'
    "views = {path: view(path) for path in ('photo.jpg', 'tall.png')}\n"
    "np.savez('out.npz', *made, **views)\n"
  )
  done = subprocess.run(
    [sys.executable, '-c', program],
    cwd=folder,
    capture_output=True,
    text=True,
  )
  assert not done.returncode, done.stderr
  with np.load(folder / 'out.npz') as out:
    made = [out[f'arr_{i}'] for i in range(len(batches))]
    views = {path: out[path] for path in ('photo.jpg', 'tall.png')}
    return made, views, done.stdout


def photo(path, height=30, width=40):
  """Writes a photo."""
  whole = images(1, max(height, width))[0]
  Image.fromarray(whole[:height, :width]).save(path)
  return path


def largest_error(model, folder, **options):
  """Of the card's code, over `BATCHES`; its view must be the model's own."""
  batches = [images(b, model.view.size, seed=b) for b in BATCHES]
  made, views, printed = run_card(folder, batches, **options)
  for path, view in views.items():
    image = Image.open(folder / path).convert('RGB')
    np.testing.assert_array_equal(view, model.view(image), err_msg=path)
  assert printed.startswith('(1, '), printed
  return max(
    np.abs(rows - expected(model, batch)).max()
    for rows, batch in zip(made, batches, strict=True)
  )
