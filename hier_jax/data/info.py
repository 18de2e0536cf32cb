"""What a prepared data set holds, in numbers and in pictures."""

import collections
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tqdm
from PIL import Image, ImageDraw, ImageOps, PngImagePlugin

from hier_jax import paths
from hier_jax.data import builders, datasets, transforms
from hier_jax.errors import UserError, listed, plain, shown

__all__ = ['as_text', 'check_sheet', 'contact_sheet', 'describe']

# What the metadata holds to tell data sets apart.
_HASHES = ('digest', 'stamp', 'content')
# What the file of a contact sheet says of itself.
# Key of the stored metadata -> key of the facts, where they differ.
_KEYS = {'licence': 'license'}
_TITLE = 'hier_jax contact sheet'
_ROWS = 6
_COLUMNS = 8
_THUMB = 96
_MARGIN = 4
_LABEL = 180
_LABEL_CHARACTERS = 28


def describe(
  name: str,
  *,
  data_dir: str | os.PathLike[str] | None = None,
  max_megapixels: float = transforms.MAX_MEGAPIXELS,
) -> dict[str, Any]:
  """Returns facts about a prepared data set, all of them from its records.

  Args:
    name: the data set, see `datasets.load`.
    data_dir: where prepared data sets lie; TFDS's own place by default.
    max_megapixels: what an image may have.

  Returns:
    'name', 'place', 'layout', 'levels', 'license', 'homepage', 'short_side',
    'notes' on what was left out and, under 'splits', of each split: 'images',
    'classes', 'bytes', 'images_per_class', 'width' and 'height' as (smallest,
    median, largest), 'modes' and 'formats' as counts, 'animated', how many
    have several frames, and 'single', the names of the classes with one image.

  Raises:
    UserError: as `datasets.load`.
  """
  splits = datasets.load(name, data_dir=data_dir, max_megapixels=max_megapixels)
  about = datasets.open_prepared(name, data_dir).info.metadata['about']
  return {
    'name': name,
    'place': str(builders.place(name, data_dir)),
    # Older ones have no notes.
    'notes': [],
    **{_KEYS.get(k, k): v for k, v in about.items() if k not in _HASHES},
    'splits': {k: _describe_split(split) for k, split in splits.items()},
  }


def as_text(facts: Mapping[str, Any]) -> str:
  """Returns the facts of `describe` as lines for people."""
  short_side = facts['short_side']
  stored = 'as published' if short_side is None else f'short side {short_side}'
  lines = [
    f'{facts["name"]} in {facts["place"]}',
    f'  layout    {plain(facts["layout"])}',
    f'  images    {stored}',
    f'  taxonomy  {" > ".join(map(plain, [*facts["levels"], "class"]))}',
    f'  license   {plain(facts["license"])}',
    f'  homepage  {plain(facts["homepage"] or "none")}',
    # Long where they name several files.
    *(
      f'  note      {note if note.isprintable() else shown(note)}'
      for note in facts['notes']
    ),
  ]
  for split, found in facts['splits'].items():
    lines += [
      f'{split}: {found["images"]:,} images of {found["classes"]:,} classes, '
      f'{found["bytes"] / 1e6:,.1f} MB',
      f'  images a class  {_range(found["images_per_class"])}',
      f'  width           {_range(found["width"])}',
      f'  height          {_range(found["height"])}',
      f'  color modes     {_counts(found["modes"])}',
      f'  formats         {_counts(found["formats"])}',
    ]
    if found['animated']:
      lines.append(
        f'  several frames  {found["animated"]:,} images (the first is used)'
      )
    # A query meets the gallery, and may be the only one of its class.
    if found['single'] and split not in ('query', 'gallery'):
      lines.append(f'  one image       {_singles(found["single"], split)}')
  return '\n'.join(lines)


def check_sheet(path: str | os.PathLike[str]) -> pathlib.Path:
  """Checks that a contact sheet can be written, and over none but another.

  Raises:
    UserError: as `paths.check_output`, or another image is there.
  """
  path = paths.check_output(path, suffixes=['.png'])
  if path.exists():
    try:
      with Image.open(path, formats=['PNG']) as image:
        ours = image.info.get('Title') == _TITLE
    except (OSError, ValueError):
      ours = False
    if not ours:
      raise UserError(
        f'{path} is there and no contact sheet: choose another place'
      )
  return path


def contact_sheet(
  name: str,
  path: str | os.PathLike[str],
  *,
  data_dir: str | os.PathLike[str] | None = None,
  max_megapixels: float = transforms.MAX_MEGAPIXELS,
) -> None:
  """Writes a PNG with images of a few classes of each split, a row a class.

  Args:
    name: the data set, see `datasets.load`.
    path: the file to write, a .png.
    data_dir: where prepared data sets lie; TFDS's own place by default.
    max_megapixels: what an image may have.

  Raises:
    UserError: as `datasets.load`, and as `paths.check_output`.
  """
  path = check_sheet(path)
  splits = datasets.load(name, data_dir=data_dir, max_megapixels=max_megapixels)
  rows = [
    (split, label)
    for split in splits.values()
    for label in _spread(split.num_classes, _ROWS)
  ]
  cell = _THUMB + _MARGIN
  size = _LABEL + _COLUMNS * cell, _MARGIN + len(rows) * cell
  sheet = Image.new('RGB', size, 'white')
  draw = ImageDraw.Draw(sheet)
  for row, (split, label) in enumerate(rows):
    top = _MARGIN + row * cell
    title = f'{split.name}\n{split.names["label"][label]}'
    # The font that Pillow brings knows no emoji.
    lines = title.encode('latin-1', 'replace').decode('latin-1').splitlines()
    short = '\n'.join(line[:_LABEL_CHARACTERS] for line in lines)
    draw.text((_MARGIN, top), short, fill='black')
    members = np.flatnonzero(split.labels == label)
    for column, i in enumerate(_spread(len(members), _COLUMNS)):
      record = split.source[int(members[i])]
      image = transforms.decode(
        record['image'], record['path'], split.max_megapixels
      )
      image = ImageOps.contain(image, (_THUMB, _THUMB))
      sheet.paste(image, (_LABEL + column * cell, top))
  with paths.replacing(path) as temporary:
    about = PngImagePlugin.PngInfo()
    about.add_text('Title', _TITLE)
    sheet.save(temporary, 'PNG', pnginfo=about)


def _describe_split(split: datasets.Split) -> dict[str, Any]:
  sizes = np.empty((len(split), 2), np.int64)
  modes: collections.Counter[str] = collections.Counter()
  formats: collections.Counter[str] = collections.Counter()
  num_bytes = animated = 0
  for i in tqdm.trange(len(split), desc=split.name, disable=None):
    data = split.source[i]['image']
    # Only the header is read: all were decoded when they were prepared.
    name = f'image {i} of {split.name}'
    with transforms.opened(data, name, split.max_megapixels) as image:
      sizes[i] = image.size
      modes[image.mode] += 1
      formats[str(image.format)] += 1
      animated += getattr(image, 'is_animated', False)
    num_bytes += len(data)
  counts = np.bincount(split.labels)
  return {
    'images': len(split),
    'classes': split.num_classes,
    'bytes': num_bytes,
    'images_per_class': _spans(counts),
    'single': [
      split.names['label'][k] for k in np.flatnonzero(counts == 1).tolist()
    ],
    'width': _spans(sizes[:, 0]),
    'height': _spans(sizes[:, 1]),
    'modes': dict(modes.most_common()),
    'formats': dict(formats.most_common()),
    'animated': animated,
  }


def _spans(values: np.ndarray) -> tuple[int, float, int]:
  return int(values.min()), float(np.median(values)), int(values.max())


def _range(span: tuple[int, float, int]) -> str:
  low, median, high = span
  return f'{low:,} to {high:,}, median {median:,g}'


def _counts(counts: Mapping[str, int]) -> str:
  return ', '.join(f'{key} {count:,}' for key, count in counts.items())


def _singles(names: Sequence[str], split: str) -> str:
  meaning = 'other views of it are its positives'
  if split != 'train':
    meaning = 'it is no query, but others may retrieve it'
  return f'{len(names):,} classes: {listed(names)} ({meaning})'


def _spread(n: int, k: int) -> list[int]:
  """At most k of 0 .. n - 1, evenly."""
  k = min(n, k)
  return [i * n // k for i in range(k)]
