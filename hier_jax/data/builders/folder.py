"""Images of one's own, a folder a class."""

import csv
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import ClassVar

import tensorflow_datasets as tfds

from hier_jax.data.builders import base, contents, tables
from hier_jax.errors import UserError

_SUFFIXES = ('.jpg', '.jpeg', '.png', '.webp', '.gif', '.bmp', '.tif', '.tiff')
_TAXONOMY = 'taxonomy.csv'
_SPLITS = ('train', 'test')


class Folder(base.ImageBuilder):
  """A folder of folders of images; each folder's name is a class.

  With the folders train/ and test/ these are the splits, which share no
  class. Without them the classes alternate in the order of their names, the
  first one for training.
  """

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Expected DIR/CLASS/IMAGE, or DIR/train/CLASS/IMAGE and '
    f'DIR/test/CLASS/IMAGE, and perhaps DIR/{_TAXONOMY}'
  )
  BUILDER_CONFIGS: ClassVar = []
  licence = 'that of your images'

  @classmethod
  def config(cls, name: str) -> base.ImageConfig:
    """Returns the config of a data set that the user named so."""
    if not re.fullmatch(r'[A-Za-z0-9_-]+', name):
      raise UserError(
        f'folder/{name} is no name for a data set; expected folder/NAME, the '
        'name made of letters, digits, - and _'
      )
    return base.ImageConfig(name=name)

  def _contents(self) -> contents.Contents:
    source = self.source
    layout, folders = _find_classes(source)
    classes = sorted(name for found in folders.values() for name in found)
    if not all(folders.values()):
      raise UserError(
        f'{source} holds {len(classes)} folders of images; expected a class '
        'for training and another for testing. '
        f'{self.MANUAL_DOWNLOAD_INSTRUCTIONS}'
      )
    files = _find_images(
      [folder for found in folders.values() for folder in found.values()]
    )
    numbers = {name: i for i, name in enumerate(classes)}
    splits = {
      split: [
        contents.Image(x.relative_to(source).as_posix(), x, numbers[name])
        for name, folder in found.items()
        for x in files[folder]
      ]
      for split, found in folders.items()
    }
    taxonomy = _read_taxonomy(source / _TAXONOMY, classes)
    return contents.of_classes(
      splits, classes, taxonomy, levels=tuple(taxonomy), layout=layout
    )


def _find_classes(
  source: pathlib.Path,
) -> tuple[str, dict[str, dict[str, pathlib.Path]]]:
  """The layout, and the folder of each class of each split."""
  if not all((source / split).is_dir() for split in _SPLITS):
    found = list(_subfolders(source).items())
    return 'alternate classes', {
      split: dict(found[i::2]) for i, split in enumerate(_SPLITS)
    }
  folders = {split: _subfolders(source / split) for split in _SPLITS}
  shared = sorted(set.intersection(*map(set, folders.values())))
  if shared:
    raise UserError(
      f'{source}: {len(shared)} classes are in both train/ and test/: '
      f'{tables.listed(shared)}; expected none, since retrieval is tested on '
      'classes never seen'
    )
  return 'train and test', folders


def _subfolders(folder: pathlib.Path) -> dict[str, pathlib.Path]:
  found = sorted(x for x in folder.iterdir() if x.is_dir())
  return {x.name: x for x in found if not x.name.startswith('.')}


def _find_images(
  folders: Iterable[pathlib.Path],
) -> dict[pathlib.Path, list[pathlib.Path]]:
  """The images in each folder, at any depth."""
  images: dict[pathlib.Path, list[pathlib.Path]] = {}
  others: list[str] = []
  for folder in folders:
    files = sorted(
      x
      for x in folder.rglob('*')
      if x.is_file() and '/.' not in f'/{x.relative_to(folder).as_posix()}'
    )
    images[folder] = [x for x in files if x.suffix.lower() in _SUFFIXES]
    others += [str(x) for x in files if x.suffix.lower() not in _SUFFIXES]
  empty = [str(folder) for folder, found in images.items() if not found]
  if empty or others:
    raise UserError(
      f'{len(empty)} folders are without images: {tables.listed(empty)}; '
      f'{len(others)} files are none: {tables.listed(others)}; expected files '
      f'ending in {" ".join(_SUFFIXES)} alone: convert or remove the others'
    )
  return images


def _read_taxonomy(
  path: pathlib.Path, classes: Sequence[str]
) -> dict[str, list[str]]:
  """Level -> each class's ancestor, '' where it lies higher."""
  if not path.exists():
    return {}
  try:
    with path.open(encoding='utf-8-sig', newline='') as file:
      header, *rows = [[x.strip() for x in row] for row in csv.reader(file)]
  except (OSError, ValueError, csv.Error) as error:
    raise UserError(f'{path} cannot be read as CSV: {error}') from error
  levels = header[1:]
  reserved = {'', 'image', 'path', 'index', 'label'}
  if not levels or len({*levels} - reserved) != len(levels):
    raise UserError(
      f'{path} begins with {header}; expected the word class, then the names '
      f'of the levels from coarse to fine, none of {sorted(reserved)}'
    )
  rows = [row for row in rows if any(row)]
  bad = [','.join(x) for x in rows if len(x) != len(header) or not _fits(x)]
  if bad:
    raise UserError(
      f'{path} holds {len(bad)} rows of another length than its header or with '
      f'a gap before a name: {tables.listed(bad)}; expected empty cells at the '
      'end only'
    )
  tables.unique((row[0] for row in rows), str(path))
  ancestors = {row[0]: row[1:] for row in rows}
  lacking = [name for name in classes if name not in ancestors]
  unknown = sorted(ancestors.keys() - set(classes))
  if lacking or unknown:
    raise UserError(
      f'{path} lacks {len(lacking)} classes: {tables.listed(lacking)}; and '
      f'holds {len(unknown)} that have no folder: {tables.listed(unknown)}; '
      'expected a row for each class and none besides'
    )
  return {
    level: [ancestors[name][i] for name in classes]
    for i, level in enumerate(levels)
  }


def _fits(row: Sequence[str]) -> bool:
  """Whether the names of a row are without a gap."""
  text = [bool(cell) for cell in row]
  return text[0] and text == sorted(text, reverse=True)
