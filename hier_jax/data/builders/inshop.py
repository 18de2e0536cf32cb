"""In-Shop Clothes Retrieval of DeepFashion."""

import collections
import pathlib
from collections.abc import Iterable, Sequence
from typing import ClassVar

import tensorflow_datasets as tfds

from hier_jax.data import transforms
from hier_jax.data.builders import base, contents, tables
from hier_jax.errors import UserError

_LIST = 'list_eval_partition.txt'
_COLUMNS = {'image_name': str, 'item_id': str, 'evaluation_status': str}
_SPLITS = ('train', 'query', 'gallery')
# In the release with low resolution both sides are this long.
_LOW = 256
_SAMPLE = 20


class Inshop(base.ImageBuilder):
  """In-Shop Clothes Retrieval: query images find their item in the gallery.

  Gender and category are folders of the images. An item that lies in several
  belongs to that of most of its images.
  """

  VERSION = tfds.core.Version('1.0.0')
  MANUAL_DOWNLOAD_INSTRUCTIONS = (
    'Eval/ and Img/ of the In-shop Clothes Retrieval Benchmark are at '
    'https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html'
  )
  homepage = (
    'https://mmlab.ie.cuhk.edu.hk/projects/DeepFashion/InShopRetrieval.html'
  )
  license = 'non-commercial research, by agreement'
  counts: ClassVar = {
    'train': (25_882, 3_997),
    'query': (14_218, 3_985),
    'gallery': (12_612, 3_985),
  }

  def _contents(self) -> contents.Contents:
    rows = tables.read_table(
      self._find_list(), _COLUMNS, header=True, counted=True
    )
    tables.unique((path for path, *_ in rows), _LIST)
    _check(rows)
    folder = self._find_images()
    kinds = _kinds(rows)
    numbers = {item: i for i, item in enumerate(sorted(kinds))}
    splits: dict[str, list[contents.Image]] = {split: [] for split in _SPLITS}
    for path, item, split in rows:
      # The list names img/ for the images of either release.
      file = folder / path.partition('/')[2]
      splits[split].append(contents.Image(path, file, numbers[item]))
    files = [image.file for images in splits.values() for image in images]
    sample = files[:: max(1, len(files) // _SAMPLE)]
    readable = [file for file in sample if self.within.has(file)]
    return contents.of_classes(
      splits,
      list(numbers),
      {
        'gender': [kinds[item][0] for item in numbers],
        # Both genders have shorts.
        'category': ['/'.join(kinds[item]) for item in numbers],
      },
      levels=('gender', 'category'),
      layout=f'{folder.name}, {_resolution(readable)}',
    )

  def _find_list(self) -> pathlib.Path:
    for below in ('Eval', 'Anno', '.'):
      if (path := self.source / below / _LIST).is_file():
        return self.listing(path)
    raise UserError(
      f'{self.source} lacks Eval/{_LIST}. {self.MANUAL_DOWNLOAD_INSTRUCTIONS}'
    )

  def _find_images(self) -> pathlib.Path:
    roots = (self.source / 'Img', self.source)
    folders = [r / n for r in roots for n in ('img', 'img_highres')]
    found = [folder for folder in folders if folder.is_dir()]
    if len(found) > 1:
      raise UserError(
        f'{self.source} holds the images of both releases: '
        f'{", ".join(map(str, found))}; they give different results: move one '
        'of them away'
      )
    if not found:
      # For the archives that may not be unpacked yet.
      tables.locate(
        self.source,
        ('Img/img',),
        folder='Img',
        archives=('img.zip', 'img_highres.zip'),
        instructions=self.MANUAL_DOWNLOAD_INSTRUCTIONS,
      )
    return found[0]


def _check(rows: Sequence[tuple[str, str, str]]) -> None:
  wrong = [path for path, _, split in rows if split not in _SPLITS]
  wrong += [path for path, *_ in rows if len(path.split('/')) < 4]
  if wrong:
    raise UserError(
      f'{_LIST} holds {len(wrong):,} lines that are not img/GENDER/CATEGORY/'
      f'ITEM/IMAGE, ITEM and one of {", ".join(_SPLITS)}: '
      f'{tables.listed(wrong)}; unpack it from the archive again'
    )
  items = {s: {item for _, item, x in rows if x == s} for s in _SPLITS}
  lone = sorted(items['query'] ^ items['gallery'])
  shared = sorted(items['train'] & (items['query'] | items['gallery']))
  if lone or shared:
    raise UserError(
      f'{_LIST}: {len(lone)} items are in one of query and gallery only '
      f'({tables.listed(lone)}) and {len(shared)} are in train and test '
      f'({tables.listed(shared)}); expected none: unpack it from the archive '
      'again'
    )


def _kinds(rows: Iterable[tuple[str, str, str]]) -> dict[str, tuple[str, str]]:
  """Item -> gender and category of most of its images."""
  found: dict[str, collections.Counter[tuple[str, str]]] = {}
  for path, item, _ in rows:
    _, gender, category, *_ = path.split('/')
    found.setdefault(item, collections.Counter())[gender, category] += 1
  return {item: count.most_common(1)[0][0] for item, count in found.items()}


def _resolution(files: Sequence[pathlib.Path]) -> str:
  """Which release images are of."""
  sides = []
  for file in files:
    try:
      with transforms.opened(file) as image:
        sides.append(max(image.size))
    # All images are checked later.
    except UserError:
      continue
  return (
    'low resolution' if max(sides, default=0) <= _LOW else 'high resolution'
  )
