"""Frozen features of the images, made once and kept in a file."""

import contextlib
import dataclasses
import hashlib
import json
import pathlib
import tempfile
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import tqdm
from flax import traverse_util
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
  'TOKEN_SIZE',
  'Features',
  'extract',
  'known',
  'last_blocks',
  'read',
  'standardized',
]

BACKBONE = 'dinov2_vits14'
# Side of Emoji's images in pixels, of icons, which are simpler and four times
# as many, and of images whose tokens are kept, for blocks to be trained on.
SIZE = 112
ICON_SIZE = 84
TOKEN_SIZE = 56
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
# Before the name of a split, and of a parameter, in the file.
_TEST, _PARAMS = 'test_', 'params/'


@dataclasses.dataclass(frozen=True, eq=False)
class Features:
  """Features of all images, and what is known of images and classes.

  Attributes:
    x: float32 `[n, F]`.
    labels: int32 `[n]`, each image's class, in 0..C-1.
    subgroup: int32 `[C]`, each class's node of the hierarchy, increasing.
    test: split -> bool `[C]`, whether a class is a test class.
    about: where they come from: hashes and versions.
    tokens: float16 `[n, t, width]`, what enters the blocks that are trained;
      None where none are.
    blocks: parameters of these blocks by their names.
  """

  x: np.ndarray
  labels: np.ndarray
  subgroup: np.ndarray
  test: dict[str, np.ndarray]
  about: dict[str, str]
  tokens: np.ndarray | None = None
  blocks: dict[str, Any] = dataclasses.field(default_factory=dict)


def last_blocks(number: int) -> list[str]:
  """Names of the last blocks that features are made of, `number` of them."""
  last = max(int(place.removeprefix('block')) for place, _ in PARTS)
  return [f'block{i}' for i in range(last + 1 - number, last + 1)]


def standardized(
  part: np.ndarray | jax.Array,
) -> np.ndarray | jax.Array:
  """A part of the features `[n, width]`, each row with mean 0, variance 1."""
  mean, std = part.mean(1, keepdims=True), part.std(1, keepdims=True)
  return (part - mean) / std


def extract(
  weights: pathlib.Path,
  target: pathlib.Path,
  icons: pathlib.Path | None = None,
  batch: int = 32,
  blocks: int = 0,
):
  """Writes the features of the bundled Emoji images, or of icons.

  They are the class tokens after blocks 10 and 11 and the mean patch tokens
  after blocks 8 and 9 of 12, `[n, 1536]`, of images enlarged to 112 pixels,
  icons to 84. Where blocks are to be trained, images have 56 pixels, and the
  file holds the tokens that enter the first of them, and their parameters, too.

  Args:
    weights: file of the ViT-S/14, see `weights.convert`.
    target: the .npz file to write.
    icons: the folder that `python -m experiments.icons build` writes, for its
      images; None for Emoji's.
    batch: images at a time.
    blocks: how many of the last blocks are to be trained.

  Raises:
    UserError: a file that cannot be read or written.
  """
  target = paths.check_output(target, inputs=[weights], suffixes=['.npz'])
  size = SIZE if icons is None else ICON_SIZE
  if blocks:
    size = TOKEN_SIZE
  network = models.create_backbone(BACKBONE, image_size=size)
  variables = pretrained.load(weights, network).variables
  with _emoji() if icons is None else _icons(icons) as splits:
    arrays = known(splits)
    images = _pixels(next(iter(splits.values())), size)
  made = _computed(network, variables, images, batch, blocks)
  digest = hashlib.sha256()
  for array in made.values():
    digest.update(array.tobytes())
  about = {
    'weights_sha256': hashlib.sha256(weights.read_bytes()).hexdigest(),
    'images_sha256': hashlib.sha256(images.tobytes()).hexdigest(),
    'features_sha256': digest.hexdigest(),
    'jax': jax.__version__,
    'parts': json.dumps(PARTS),
    'pixels': str(size),
    'trained': json.dumps(last_blocks(blocks)),
  }
  trained = {k: variables['params'][k] for k in last_blocks(blocks)}
  for name, array in traverse_util.flatten_dict(trained, sep='/').items():
    arrays[f'{_PARAMS}{name}'] = np.asarray(array)
  with paths.replacing(target) as temporary, temporary.open('wb') as file:
    np.savez(file, **made, about=np.array(json.dumps(about)), **arrays)


def _computed(
  network: nn.Module,
  variables: Mapping[str, Any],
  images: np.ndarray,
  batch: int,
  blocks: int,
) -> dict[str, np.ndarray]:
  """'x' and, where blocks are to be trained, 'tokens' of uint8 images."""
  spec = models.spec(BACKBONE)
  mean, std = np.float32(spec.mean), np.float32(spec.std)
  outputs = jax.jit(lambda pixels: _outputs(network, variables, pixels, blocks))
  made: dict[str, np.ndarray] = {}
  for start in tqdm.trange(0, len(images), batch, desc='images', disable=None):
    taken = images[start : start + batch]
    full = np.resize(taken, (batch, *images.shape[1:]))
    for name, found in outputs((np.float32(full) / 255 - mean) / std).items():
      if name not in made:
        made[name] = np.empty((len(images), *found.shape[1:]), found.dtype)
      made[name][start : start + batch] = np.asarray(found)[: len(taken)]
  return made


def read(path: pathlib.Path, blocks: int = 0) -> Features:
  """Reads what `extract` wrote.

  Args:
    path: the .npz file.
    blocks: how many blocks are to be trained on its tokens; with 0 it needs
      none.

  Raises:
    UserError: the file is missing or is none of `extract`'s.
  """
  try:
    with np.load(path) as archive:
      tests = [name for name in archive.files if name.startswith(_TEST)]
      params = [name for name in archive.files if name.startswith(_PARAMS)]
      names = ['x', 'labels', 'subgroup', 'about', *tests, *params]
      names += ['tokens'] if blocks else []
      held = {name: npz_files.read_array(archive, name) for name in names}
    about = json_files.parse(str(held['about']))
    test = {name.removeprefix(_TEST): held[name] for name in tests}
    trained = {name.removeprefix(_PARAMS): held[name] for name in params}
    found = Features(
      held['x'],
      held['labels'],
      held['subgroup'],
      test,
      about,
      held.get('tokens'),
      traverse_util.unflatten_dict(trained, sep='/'),
    )
    _check(found)
    if blocks:
      _check_tokens(found, blocks)
  except (EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
    kind = 'tokens' if blocks else 'features'
    raise UserError(
      f'{path} holds no {kind} ({error}); make it with `python -m '
      f'experiments.study {kind} --weights FILE`'
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
  for name in 'images_sha256', 'features_sha256', 'weights_sha256':
    if not isinstance(found.about, dict) or name not in found.about:
      raise ValueError(f'about lacks {name}')


def _check_tokens(found: Features, blocks: int):
  """Checks that tokens fit the features, and the blocks that are trained.

  Raises:
    ValueError: they do not.
  """
  names, tokens = last_blocks(blocks), found.tokens
  if sorted(found.blocks) != sorted(names):
    raise ValueError(
      f'it has parameters of {list(found.blocks)}, expected those of {names}'
    )
  width = found.x.shape[1] // len(PARTS)
  if tokens.ndim != 3 or tokens.shape[::2] != (len(found.x), width):
    raise ValueError(f'tokens have shape {tokens.shape}, x {found.x.shape}')
  if not np.isfinite(tokens).all():
    raise ValueError('tokens hold NaN or Inf')


def _outputs(model, variables, pixels, blocks):
  """'x', the parts of the intermediate results `[b, F]`, and 'tokens'."""
  _, tokens = model.apply(
    variables, pixels, train=False, return_intermediates=True
  )
  parts = [model.split_tokens(tokens[place])[kind] for place, kind in PARTS]
  found = {'x': jnp.concatenate([part.mean(1) for part in parts], axis=1)}
  if blocks:
    entering = last_blocks(blocks + 1)[0]
    found['tokens'] = tokens[entering].astype(jnp.float16)
  return found


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
