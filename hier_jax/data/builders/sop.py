"""Stanford Online Products."""

import pathlib
from typing import Any, ClassVar

import tensorflow_datasets as tfds

from hier_jax.data.builders import base, contents, tables
from hier_jax.errors import UserError

_COLUMNS = {
  'image_id': int,
  'class_id': int,
  'super_class_id': int,
  'path': str,
}


class Sop(base.ImageBuilder):
  """Stanford Online Products: classes are single products of 12 kinds."""

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Stanford_Online_Products.zip is at '
    'https://cvgl.stanford.edu/projects/lifted_struct/'
  )
  homepage = 'https://cvgl.stanford.edu/projects/lifted_struct/'
  license = "none stated; sellers' photographs, used for research"
  counts: ClassVar = {'train': (59_551, 11_318), 'test': (60_502, 11_316)}

  def _contents(self) -> contents.Contents:
    names = {'train': 'Ebay_train.txt', 'test': 'Ebay_test.txt'}
    root = tables.locate(
      self.source,
      tuple(names.values()),
      folder='Stanford_Online_Products',
      archives=('Stanford_Online_Products.zip',),
      instructions=self.MANUAL_DOWNLOAD_INSTRUCTIONS,
    )
    lists = {
      split: tables.read_table(self.listing(root / name), _COLUMNS, header=True)
      for split, name in names.items()
    }
    rows = [row for part in lists.values() for row in part]
    tables.unique((path for *_, path in rows), ' and '.join(names.values()))
    kinds = _kinds(rows, root)
    numbers = {class_id: i for i, class_id in enumerate(sorted(kinds))}
    splits = {
      split: [
        contents.Image(path, root / path, numbers[class_id])
        for _, class_id, _, path in part
      ]
      for split, part in lists.items()
    }
    _check_disjoint(splits, root)
    return contents.of_classes(
      splits,
      [f'{kinds[class_id]} {class_id}' for class_id in numbers],
      {'super_class': [kinds[class_id] for class_id in numbers]},
      levels=('super_class',),
      layout='Stanford_Online_Products',
    )


def _kinds(rows: list[tuple[Any, ...]], root: pathlib.Path) -> dict[int, str]:
  """Class -> its kind of product, which is the folder of its images."""
  found: dict[int, set[tuple[int, str]]] = {}
  for _, class_id, super_id, path in rows:
    kind = path.split('/')[0].removesuffix('_final')
    found.setdefault(class_id, set()).add((super_id, kind))
  pairs = set().union(*found.values())
  several = [str(k) for k, v in found.items() if len(v) > 1]
  if several or not (
    len(pairs) == len({i for i, _ in pairs}) == len({k for _, k in pairs})
  ):
    raise UserError(
      f'{root}: super_class_id and the folders of the paths disagree '
      f'({len(several)} classes with several: {tables.listed(several)}); '
      'expected one kind a class: unpack both lists again'
    )
  return {class_id: kind for class_id, ((_, kind),) in found.items()}


def _check_disjoint(
  splits: dict[str, list[contents.Image]], root: pathlib.Path
) -> None:
  train, test = ({x.label for x in splits[k]} for k in ('train', 'test'))
  if train & test:
    raise UserError(
      f'{root}: {len(train & test)} classes are in both lists; expected none: '
      'unpack both again'
    )
