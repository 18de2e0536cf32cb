"""CUB-200-2011: birds of 200 species."""

import csv
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from hier_jax.data.builders import base, contents, tables
from hier_jax.errors import UserError

_BIRDS = pathlib.Path(__file__).parent / 'cub200_birds.csv'
_LISTS = {'classes.txt': str, 'images.txt': str, 'image_class_labels.txt': int}


class Cub200(base.ImageBuilder):
  """Caltech-UCSD Birds-200-2011: the first 100 species train, the others test.

  Orders and families follow the American Ornithological Society, from a table
  of the classes' names.
  """

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'CUB_200_2011.tgz is at https://data.caltech.edu/records/65de6-vp158'
  )
  homepage = 'https://www.vision.caltech.edu/datasets/cub_200_2011/'
  license = 'non-commercial research; the photographs belong to their owners'
  counts: ClassVar = {'train': (5_864, 100), 'test': (5_924, 100)}

  def _contents(self) -> contents.Contents:
    root = tables.locate(
      self.source,
      (*_LISTS, 'images'),
      folder='CUB_200_2011',
      archives=('CUB_200_2011.tgz',),
      instructions=self.MANUAL_DOWNLOAD_INSTRUCTIONS,
    )
    classes, paths, labels = (
      _read_list(self.listing(root / name), make)
      for name, make in _LISTS.items()
    )
    _check(classes, paths, labels)
    last = self.counts['train'][1]
    splits: dict[str, list[contents.Image]] = {'train': [], 'test': []}
    for number, path in sorted(paths.items()):
      label = labels[number]
      split = 'train' if label <= last else 'test'
      file = root / 'images' / path
      splits[split].append(contents.Image(path, file, label - 1))
    names = [classes[k].partition('.')[2] for k in sorted(classes)]
    return contents.of_classes(
      splits,
      names,
      _taxonomy(names),
      levels=('order', 'family'),
      layout='CUB_200_2011',
    )


def _read_list(
  path: pathlib.Path, make: Callable[[str], Any]
) -> dict[int, Any]:
  rows = tables.read_table(path, {'id': int, 'value': make})
  tables.unique((key for key, _ in rows), str(path))
  return dict(rows)


def _check(
  classes: Mapping[int, str],
  paths: Mapping[int, str],
  labels: Mapping[int, int],
) -> None:
  """Raises UserError unless the three lists speak of the same things."""
  if sorted(classes) != list(range(1, len(classes) + 1)):
    raise UserError(
      f'classes.txt numbers its {len(classes)} classes otherwise than from 1 '
      'up; unpack it from the archive again'
    )
  # A path's folder and the class's name are one fact told twice: a list of
  # another order would pass for another, easier or harder, split.
  wrong = [
    f'{paths.get(k, "none")} of class {classes.get(labels.get(k, 0), "none")}'
    for k in sorted(paths.keys() | labels.keys())
    if k not in paths or classes.get(labels.get(k, 0)) != paths[k].split('/')[0]
  ]
  if wrong:
    raise UserError(
      f'images.txt, image_class_labels.txt and classes.txt disagree on '
      f'{len(wrong):,} images: {tables.listed(wrong)}; expected the folder of '
      'a path to be its class: unpack all three from the archive again'
    )


def _taxonomy(names: list[str]) -> dict[str, list[str]]:
  with _BIRDS.open(encoding='utf-8', newline='') as file:
    birds = {row['class']: row for row in csv.DictReader(file)}
  unknown = [name for name in names if name not in birds]
  if unknown:
    raise UserError(
      f'classes.txt holds {len(unknown)} classes that are not of '
      f'CUB-200-2011: {tables.listed(unknown)}; prepare other images with '
      'the data set folder/NAME'
    )
  return {
    level: [birds[name][level] for name in names]
    for level in ('order', 'family')
  }
