"""Images of one's own, a folder a class."""

import collections
import csv
import dataclasses
import itertools
import os
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import ClassVar

import tensorflow_datasets as tfds

from hier_jax.data.builders import base, contents, tables, walk
from hier_jax.errors import UserError, plain, shown

_TAXONOMY = 'taxonomy.csv'
# Not for levels: fields of records, and the level of the classes themselves.
_RESERVED = ('', 'image', 'path', 'index', 'label', 'class')
# Split -> what its folder may be called, in any case.
_SPLITS = {
  'train': ('train', 'training'),
  'val': ('val', 'valid', 'validation', 'dev'),
  'test': ('test', 'testing', 'eval', 'evaluation'),
}


class Folder(base.ImageBuilder):
  """A folder of folders of images; each folder's name is a class.

  Folders of splits, such as train/, val/ and test/, share no class. Without
  them the classes alternate in the order of their names, the first one for
  training.
  """

  VERSION = tfds.core.Version('1.1.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Expected DIR/CLASS/IMAGE, or DIR/train/CLASS/IMAGE, '
    'DIR/test/CLASS/IMAGE and perhaps DIR/val/CLASS/IMAGE; and perhaps '
    f'DIR/{_TAXONOMY}'
  )
  BUILDER_CONFIGS: ClassVar = []
  license = 'that of your images'

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
    source, walked = self.source, walk.Walk(self.source, self.within)
    layout, folders = _find_classes(source, walked)
    files = {
      split: {name: walked.images(folder) for name, folder in found.items()}
      for split, found in folders.items()
    }
    walked.check(self.MANUAL_DOWNLOAD_INSTRUCTIONS)
    classes = sorted(name for found in files.values() for name in found)
    if not all(files.values()):
      raise UserError(
        f'{source} holds {len(classes)} folders of images; expected a class '
        f'for each of {", ".join(files)}. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}'
      )
    numbers = {name: i for i, name in enumerate(classes)}
    splits = {
      split: [
        contents.Image(x.relative_to(source).as_posix(), x, numbers[name])
        for name, images in found.items()
        for x in images
      ]
      for split, found in files.items()
    }
    path, taxonomy = source / _TAXONOMY, {}
    if os.path.lexists(path):
      taxonomy = _read_taxonomy(self.listing(path), classes)
    made = contents.of_classes(
      splits, classes, taxonomy, levels=tuple(taxonomy), layout=layout
    )
    return dataclasses.replace(made, notes=walked.notes())


def _find_classes(
  source: pathlib.Path, walked: walk.Walk
) -> tuple[str, dict[str, dict[str, pathlib.Path]]]:
  """The layout, and the folder of each class of each split."""
  found = walked.folders(source, known=[_TAXONOMY])
  splits = _find_splits(source, found)
  if not splits:
    classes = list(found.items())
    return 'alternate classes', {
      'train': dict(classes[::2]),
      'test': dict(classes[1::2]),
    }
  folders = {split: walked.folders(path) for split, path in splits.items()}
  for one, other in itertools.combinations(folders, 2):
    if shared := sorted(folders[one].keys() & folders[other]):
      raise UserError(
        f'{source}: {len(shared)} classes are in both {splits[one].name}/ and '
        f'{splits[other].name}/: {tables.listed(shared)}; expected none, since '
        'retrieval is tested on classes never seen'
      )
  return ' and '.join(folders), folders


def _find_splits(
  source: pathlib.Path, folders: Mapping[str, pathlib.Path]
) -> dict[str, pathlib.Path]:
  """Split -> its folder; none where the folders are classes."""
  found = {
    split: [x for x in folders if x.casefold() in names]
    for split, names in _SPLITS.items()
  }
  if sum(map(bool, found.values())) < 2:
    return {}
  others = sorted(folders.keys() - itertools.chain(*found.values()))
  several = any(len(names) > 1 for names in found.values())
  if others or several or not (found['train'] and found['test']):
    raise UserError(
      f'{source} holds folders of splits, {tables.listed(list(folders))}; '
      'expected one for training (train) and one for testing (test), perhaps '
      'one for validation (val), and no other folders: rename or move some'
    )
  return {split: folders[names[0]] for split, names in found.items() if names}


def _read_taxonomy(
  path: pathlib.Path, classes: Sequence[str]
) -> dict[str, list[str]]:
  """Level -> each class's ancestor, '' where it lies higher."""
  try:
    with path.open(encoding='utf-8-sig', newline='') as file:
      header, *rows = [[x.strip() for x in row] for row in csv.reader(file)]
  except (OSError, ValueError, csv.Error) as error:
    raise UserError(
      f'{path} cannot be read as CSV: {plain(str(error))}'
    ) from error
  levels = header[1:]
  if not levels:
    raise UserError(
      f'{path} begins with {shown(header)}; expected the word class, then the '
      'names of the levels from coarse to fine'
    )
  counts = collections.Counter(levels)
  bad = [x for x in levels if x in _RESERVED or '/' in x or counts[x] > 1]
  if bad:
    raise UserError(
      f'{path} has {len(bad)} levels with names that are taken, doubled or '
      f'hold a /: {tables.listed(list(map(repr, bad)))}; rename them, not to '
      f'{", ".join(filter(None, _RESERVED))}'
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
