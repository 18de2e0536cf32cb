"""Cars-196: photographs of 196 makes, models and years."""

import pathlib
import re
from typing import Any, ClassVar

import numpy as np
import scipy.io
import tensorflow_datasets as tfds

from hier_jax.data.builders import base, contents, tables
from hier_jax.errors import UserError, plain, shown

_FOLDER = 'stanford_cars'
_ARCHIVES = ('car_ims.tgz', 'car_devkit.tgz', 'cars_train.tgz', 'cars_test.tgz')
_TEST_ANNOS = 'cars_test_annos_withlabels.mat'
_LONG_MAKES = ('AM General', 'Aston Martin', 'Land Rover')
# Every pickup's name has its cab; the last word of a name that fits counts,
# as in 'Phantom Drophead Coupe Convertible'.
_BODIES = (
  *('Sedan', 'SUV', 'Coupe', 'Convertible', 'Hatchback', 'Wagon', 'Minivan'),
  *('Van', 'Cab', 'SuperCab'),
)


class Cars196(base.ImageBuilder):
  """Stanford Cars: the first 98 classes train, the other 98 test.

  Make and body type are read from the classes' names. They cross: the tree
  above the classes is that of the makes; body types are a field beside it.
  """

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'The original site is gone; mirrors of the images are at '
    'https://www.kaggle.com/datasets/jessicali9530/stanford-cars-dataset, and '
    f'of the devkit and {_TEST_ANNOS} at '
    'https://github.com/pytorch/vision/issues/7545'
  )
  homepage = 'https://ai.stanford.edu/~jkrause/cars/car_dataset.html'
  license = 'non-commercial research, as ImageNet'
  counts: ClassVar = {'train': (8_054, 98), 'test': (8_131, 98)}

  def _contents(self) -> contents.Contents:
    names = ('cars_annos.mat', f'{_FOLDER}/cars_annos.mat')
    if any((self.source / name).is_file() for name in names):
      layout, (classes, images) = 'car_ims', self._whole()
    else:
      layout, (classes, images) = 'devkit', self._by_devkit()
    wrong = sorted({x.label for x in images} - set(range(len(classes))))
    if wrong:
      raise UserError(
        f'the annotations name classes [{tables.listed(wrong)}], counted '
        f'from 0; the names are {len(classes)}: take both from the same release'
      )
    last = self.counts['train'][1]
    return contents.of_classes(
      {
        'train': [x for x in images if x.label < last],
        'test': [x for x in images if x.label >= last],
      },
      classes,
      {
        'make': [make(name) for name in classes],
        'body': [body(name) for name in classes],
      },
      levels=('make',),
      layout=layout,
    )

  def _whole(self) -> tuple[list[str], list[contents.Image]]:
    """The layout of one annotation file and one folder of images."""
    root = self._locate('cars_annos.mat', 'car_ims')
    annos = root / 'cars_annos.mat'
    images = [
      contents.Image(path, root / path, label - 1)
      for path, label in _annotations(self.listing(annos), 'relative_im_path')
    ]
    return _class_names(annos), images

  def _by_devkit(self) -> tuple[list[str], list[contents.Image]]:
    """The layout of a devkit and two folders of images."""
    root = self._locate('devkit/cars_meta.mat', 'cars_train', 'cars_test')
    images = []
    for folder, annos in (
      ('cars_train', root / 'devkit' / 'cars_train_annos.mat'),
      ('cars_test', self._test_annos(root)),
    ):
      below = root / folder
      # As one of the mirrors packs them.
      if (below / folder).is_dir():
        below /= folder
      images += [
        contents.Image(f'{folder}/{name}', below / name, label - 1)
        for name, label in _annotations(self.listing(annos), 'fname')
      ]
    meta = self.listing(root / 'devkit' / 'cars_meta.mat')
    return _class_names(meta), images

  def _test_annos(self, root: pathlib.Path) -> pathlib.Path:
    for path in (root / 'devkit' / _TEST_ANNOS, root / _TEST_ANNOS):
      if path.is_file():
        return path
    raise UserError(
      f'{root} lacks {_TEST_ANNOS}; cars_test_annos.mat alone has no classes, '
      'and half of the images of every class are in cars_test: put it into '
      f'devkit/. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}'
    )

  def _locate(self, *files: str) -> pathlib.Path:
    return tables.locate(
      self.source,
      files,
      folder=_FOLDER,
      archives=_ARCHIVES,
      instructions=(
        'The other layout that is known is cars_annos.mat beside car_ims/. '
        f'{self.MANUAL_DOWNLOAD_INSTRUCTIONS}'
      ),
    )


def make(name: str) -> str:
  """Returns the make in a class's name, 'Land Rover LR2 SUV 2012'."""
  for long in _LONG_MAKES:
    if name.startswith(f'{long} '):
      return long
  return name.split()[0]


def body(name: str) -> str:
  """Returns the body type in a class's name, 'other' where it has none."""
  words = [word for word in re.split(r'\s+', name) if word in _BODIES]
  found = words[-1] if words else 'other'
  return 'Pickup' if found.endswith('Cab') else found


def _load(path: pathlib.Path) -> dict[str, Any]:
  try:
    return scipy.io.loadmat(path, squeeze_me=True)
  # What its parser trips over in a file that is cut off is of any type.
  except Exception as error:
    raise UserError(
      f'{path} cannot be read as a MATLAB file ({plain(str(error))}); unpack '
      'it from the archive again'
    ) from error


def _annotations(path: pathlib.Path, field: str) -> list[tuple[str, int]]:
  """The name in `field` and the class, counted from 1, of each image."""
  rows = np.atleast_1d(_load(path).get('annotations', np.empty(0)))
  found = rows.dtype.names or ()
  for needed in (field, 'class'):
    if not rows.size or needed not in found:
      raise UserError(
        f'{path} holds no annotations with a field {needed!r} but '
        f'{shown(list(found))}; take it from the archive, or from a release '
        'with labels'
      )
  names, labels = rows[field].tolist(), rows['class'].tolist()
  if wrong := [label for label in labels if not _is_whole(label)]:
    raise UserError(
      f'{path} holds {len(wrong):,} classes that are no integers: '
      f'{tables.listed(wrong)}; unpack it from the archive again'
    )
  return list(zip(map(str, names), map(int, labels), strict=True))


def _is_whole(label: Any) -> bool:
  try:
    return int(label) == label
  # Cells may be text, arrays or structs.
  except (OverflowError, TypeError, ValueError):
    return False


def _class_names(path: pathlib.Path) -> list[str]:
  names = np.atleast_1d(_load(path).get('class_names', np.empty(0)))
  if not names.size:
    raise UserError(f'{path} holds no class_names; unpack it again')
  return [str(name) for name in names]
