"""Frozen features of the Emoji images, made once and kept in a file."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import tempfile
from collections.abc import Iterator

import jax
import numpy as np
import tqdm
from PIL import Image

from hier_jax import json_files, models, npz_files, paths
from hier_jax.data import datasets, transforms
from hier_jax.errors import UserError
from hier_jax.models.weights import pretrained

__all__ = ['BACKBONE', 'PARTS', 'SIZE', 'Features', 'extract', 'read']

BACKBONE = 'dinov2_vits14'
# Side of the images in pixels.
SIZE = 112
# What the features are made of: an intermediate result, and which tokens of it.
# Blocks are counted from 0 here, and from 1 in PLAN.md and RESULTS.md.
PARTS = (
  ('block9', 'class'),
  ('block10', 'class'),
  ('block7', 'patches'),
  ('block8', 'patches'),
)
# Split of the plan -> data set.
SPLITS = {'A': 'emoji', 'B': 'emoji/subgroup'}


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
  """Features of all images, and what is known of images and classes.

  Attributes:
    x: float32 `[n, F]`.
    labels: int32 `[n]`, each image's class, in 0..C-1.
    subgroup: int32 `[C]`, each class's node of the hierarchy.
    test: split -> bool `[C]`, whether a class is a test class.
    about: where they come from: hashes and versions.
  """

  x: np.ndarray
  labels: np.ndarray
  subgroup: np.ndarray
  test: dict[str, np.ndarray]
  about: dict[str, str]


def extract(weights: pathlib.Path, target: pathlib.Path, batch: int = 32):
  """Writes the features of the bundled Emoji images.

  They are the class tokens after blocks 10 and 11 and the mean patch tokens
  after blocks 8 and 9 of 12, `[n, 1536]`, of images enlarged to 112 pixels.

  Args:
    weights: file of the ViT-S/14, see `weights.convert`.
    target: the .npz file to write.
    batch: images at a time.

  Raises:
    UserError: a file that cannot be read or written.
  """
  target = paths.check_output(target, inputs=[weights], suffixes=['.npz'])
  loaded = models.create_backbone(BACKBONE, image_size=SIZE)
  variables = pretrained.load(weights, loaded).variables
  spec = models.spec(BACKBONE)
  mean, std = np.float32(spec.mean), np.float32(spec.std)
  features = jax.jit(lambda pixels: _features(loaded, variables, pixels))
  with _emoji() as splits:
    known = _known(splits)
    images = _pixels(splits['A'])
    x = np.empty((len(known['labels']), len(PARTS) * loaded.width), np.float32)
    for start in tqdm.trange(0, len(x), batch, desc='images', disable=None):
      taken = images[start : start + batch]
      full = np.resize(taken, (batch, *images.shape[1:]))
      found = features((np.float32(full) / 255 - mean) / std)
      x[start : start + batch] = np.asarray(found)[: len(taken)]
  about = {
    'weights_sha256': hashlib.sha256(weights.read_bytes()).hexdigest(),
    'images_sha256': hashlib.sha256(images.tobytes()).hexdigest(),
    'features_sha256': hashlib.sha256(x.tobytes()).hexdigest(),
    'jax': jax.__version__,
    'parts': json.dumps(PARTS),
    'pixels': str(SIZE),
  }
  with paths.replacing(target) as temporary, temporary.open('wb') as file:
    np.savez(file, x=x, about=np.array(json.dumps(about)), **known)


def read(path: pathlib.Path) -> Features:
  """Reads what `extract` wrote.

  Raises:
    UserError: the file is missing or is none of `extract`'s.
  """
  try:
    with np.load(path) as archive:
      names = 'x', 'labels', 'subgroup', 'test_A', 'test_B', 'about'
      held = {name: npz_files.read_array(archive, name) for name in names}
    about = json_files.parse(str(held['about']))
  except (OSError, ValueError, KeyError) as error:
    raise UserError(
      f'{path} holds no features ({error}); make it with `python -m '
      'experiments.study features --weights FILE`'
    ) from error
  test = {split: held[f'test_{split}'] for split in SPLITS}
  return Features(held['x'], held['labels'], held['subgroup'], test, about)


def _features(model, variables, pixels):
  """The parts of the intermediate results `[b, F]`."""
  _, tokens = model.apply(
    variables, pixels, train=False, return_intermediates=True
  )
  parts = [model.split_tokens(tokens[place])[kind] for place, kind in PARTS]
  return jax.numpy.concatenate([part.mean(1) for part in parts], axis=1)


@contextlib.contextmanager
def _emoji() -> Iterator[dict[str, list[datasets.Split]]]:
  """The train and test splits of splits A and B, prepared in a folder."""
  with tempfile.TemporaryDirectory(prefix='hier_jax_study_') as folder:
    found = {k: datasets.load(v, data_dir=folder) for k, v in SPLITS.items()}
    yield {k: [v['train'], v['test']] for k, v in found.items()}


def _pixels(splits: list[datasets.Split]) -> np.ndarray:
  """All images in the data set's order, uint8 `[n, SIZE, SIZE, 3]`."""
  n = sum(len(split) for split in splits)
  images = np.empty((n, SIZE, SIZE, 3), np.uint8)
  for split in splits:
    for row, place in enumerate(split.fields['index'].tolist()):
      record = split.source[row]
      image = transforms.decode(record['image'], str(record['path']))
      image = image.resize((SIZE, SIZE), Image.Resampling.BICUBIC)
      images[place] = np.asarray(image)
  return images


def _known(splits: dict[str, list[datasets.Split]]) -> dict[str, np.ndarray]:
  """Labels, subgroups and the classes' splits."""
  of_image, known = {}, {}
  for name, parts in splits.items():
    place = np.concatenate([part.fields['index'] for part in parts])
    for field, values in {
      'labels': [part.numbers[part.labels] for part in parts],
      'subgroup': [part.fields['subgroup'] for part in parts],
      f'test_{name}': [np.full(len(p), i) for i, p in enumerate(parts)],
    }.items():
      of_image[field] = np.empty(len(place), np.int32)
      of_image[field][place] = np.concatenate(values)
  known['labels'] = of_image.pop('labels')
  first = np.unique(known['labels'], return_index=True)[1]
  known |= {name: values[first] for name, values in of_image.items()}
  return known | {k: v.astype(bool) for k, v in known.items() if 'test' in k}
