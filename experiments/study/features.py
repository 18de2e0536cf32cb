"""Frozen features of the images, made once and kept in a file."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence

import jax
import numpy as np
import tqdm
from PIL import Image

from hier_jax import json_files, models, npz_files, paths
from hier_jax.data import datasets, prepare, transforms
from hier_jax.errors import UserError
from hier_jax.models.weights import pretrained

__all__ = [
  'BACKBONE',
  'ICONS',
  'ICON_SIZE',
  'PARTS',
  'SIZE',
  'SPLITS',
  'Features',
  'extract',
  'known',
  'read',
]

BACKBONE = 'dinov2_vits14'
# Side of Emoji's images in pixels, and of icons, which are simpler and four
# times as many.
SIZE = 112
ICON_SIZE = 84
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
# The split of the folder of images that experiments.icons builds.
ICONS = 'icons'
# Before the name of a split, in the file.
_TEST = 'test_'


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
  """Features of all images, and what is known of images and classes.

  Attributes:
    x: float32 `[n, F]`.
    labels: int32 `[n]`, each image's class, in 0..C-1.
    subgroup: int32 `[C]`, each class's node of the hierarchy, increasing.
    test: split -> bool `[C]`, whether a class is a test class.
    about: where they come from: hashes and versions.
  """

  x: np.ndarray
  labels: np.ndarray
  subgroup: np.ndarray
  test: dict[str, np.ndarray]
  about: dict[str, str]


def extract(
  weights: pathlib.Path,
  target: pathlib.Path,
  icons: pathlib.Path | None = None,
  batch: int = 32,
):
  """Writes the features of the bundled Emoji images, or of icons.

  They are the class tokens after blocks 10 and 11 and the mean patch tokens
  after blocks 8 and 9 of 12, `[n, 1536]`, of images enlarged to 112 pixels,
  icons to 84.

  Args:
    weights: file of the ViT-S/14, see `weights.convert`.
    target: the .npz file to write.
    icons: the folder that `python -m experiments.icons build` writes, for its
      images; None for Emoji's.
    batch: images at a time.

  Raises:
    UserError: a file that cannot be read or written.
  """
  target = paths.check_output(target, inputs=[weights], suffixes=['.npz'])
  size = SIZE if icons is None else ICON_SIZE
  loaded = models.create_backbone(BACKBONE, image_size=size)
  variables = pretrained.load(weights, loaded).variables
  spec = models.spec(BACKBONE)
  mean, std = np.float32(spec.mean), np.float32(spec.std)
  features = jax.jit(lambda pixels: _features(loaded, variables, pixels))
  with _emoji() if icons is None else _icons(icons) as splits:
    of_all = known(splits)
    images = _pixels(next(iter(splits.values())), size)
    x = np.empty((len(of_all['labels']), len(PARTS) * loaded.width), np.float32)
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
    'pixels': str(size),
  }
  with paths.replacing(target) as temporary, temporary.open('wb') as file:
    np.savez(file, x=x, about=np.array(json.dumps(about)), **of_all)


def read(path: pathlib.Path) -> Features:
  """Reads what `extract` wrote.

  Raises:
    UserError: the file is missing or is none of `extract`'s.
  """
  try:
    with np.load(path) as archive:
      tests = [name for name in archive.files if name.startswith(_TEST)]
      names = 'x', 'labels', 'subgroup', 'about', *tests
      held = {name: npz_files.read_array(archive, name) for name in names}
    about = json_files.parse(str(held['about']))
    test = {name.removeprefix(_TEST): held[name] for name in tests}
    found = Features(held['x'], held['labels'], held['subgroup'], test, about)
    _check(found)
  except (EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
    raise UserError(
      f'{path} holds no features ({error}); make it with `python -m '
      'experiments.study features --weights FILE`'
    ) from error
  return found


def _check(found: Features):
  """Checks that arrays fit each other.

  Raises:
    ValueError: they do not.
  """
  n, classes = len(found.labels), len(found.subgroup)
  if found.x.ndim != 2 or len(found.x) != n or found.x.shape[1] % len(PARTS):
    raise ValueError(f'x has shape {found.x.shape}, of {n} labels')
  if not np.isfinite(found.x).all():
    raise ValueError('x holds NaN or Inf')
  if not np.array_equal(np.unique(found.labels), np.arange(classes)):
    raise ValueError(f'labels are not of all {classes} classes')
  for name, test in found.test.items():
    if test.shape != (classes,) or test.dtype != bool:
      raise ValueError(f'test_{name} is no bool of {classes} classes')
  for name in 'features_sha256', 'weights_sha256':
    if not isinstance(found.about, dict) or name not in found.about:
      raise ValueError(f'about lacks {name}')


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


@contextlib.contextmanager
def _icons(source: pathlib.Path) -> Iterator[dict[str, list[datasets.Split]]]:
  """The train and test splits of a folder of icons, prepared in a folder."""
  name = f'folder/{ICONS}'
  with tempfile.TemporaryDirectory(prefix='hier_jax_study_') as folder:
    prepare.prepare(name, source, data_dir=folder)
    found = datasets.load(name, data_dir=folder)
    yield {ICONS: [found['train'], found['test']]}


def _pixels(splits: list[datasets.Split], size: int) -> np.ndarray:
  """All images in the data set's order, uint8 `[n, size, size, 3]`."""
  n = sum(len(split) for split in splits)
  images = np.empty((n, size, size, 3), np.uint8)
  for split in splits:
    for row, place in enumerate(split.fields['index'].tolist()):
      record = split.source[row]
      image = transforms.decode(record['image'], str(record['path']))
      image = image.resize((size, size), Image.Resampling.BICUBIC)
      images[place] = np.asarray(image)
  return images


def known(
  splits: Mapping[str, Sequence[datasets.Split]],
) -> dict[str, np.ndarray]:
  """What is known of the images and classes of a data set.

  Args:
    splits: split of the plan -> its parts, the train classes first; the field
      'index' is an image's place in the data set.

  Returns:
    'labels' int32 `[n]`; 'subgroup' int32 `[C]`; 'test_A' and so on, bool
    `[C]`, whether a class is a test class.
  """
  of_image, found = {}, {}
  for name, parts in splits.items():
    place = np.concatenate([part.fields['index'] for part in parts])
    for field, values in {
      'labels': [part.numbers[part.labels] for part in parts],
      'subgroup': [part.fields['subgroup'] for part in parts],
      f'{_TEST}{name}': [np.full(len(p), i) for i, p in enumerate(parts)],
    }.items():
      of_image[field] = np.empty(len(place), np.int32)
      of_image[field][place] = np.concatenate(values)
  found['labels'] = _by_subgroup(of_image.pop('labels'), of_image['subgroup'])
  first = np.unique(found['labels'], return_index=True)[1]
  found |= {name: values[first] for name, values in of_image.items()}
  return found | {k: v.astype(bool) for k, v in found.items() if 'test' in k}


def _by_subgroup(labels: np.ndarray, subgroup: np.ndarray) -> np.ndarray:
  """Numbers classes by their subgroups, as Emoji's are, for even folds.

  Args:
    labels: int `[n]`, each image's class.
    subgroup: int `[n]`, the node of the hierarchy of each image.
  """
  classes, first, codes = np.unique(
    labels, return_index=True, return_inverse=True
  )
  number = np.empty(len(classes), np.int32)
  number[np.argsort(subgroup[first], kind='stable')] = np.arange(len(classes))
  return number[codes]
