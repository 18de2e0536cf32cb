"""The bundled Emoji data set: classes drawn by several designers each."""

import csv
import dataclasses
import functools
import pathlib
import zipfile
from typing import ClassVar

import tensorflow_datasets as tfds

from hier_jax.data.builders import base, contents, shards
from hier_jax.errors import UserError


@dataclasses.dataclass
class EmojiConfig(base.ImageConfig):
  """A class-disjoint split of Emoji, a column of classes.csv."""

  column: str = ''


class Emoji(base.ImageBuilder):
  """Emoji (classes) as drawn by up to 11 openly licensed designers (styles).

  Unicode's own tree, group -> subgroup -> emoji, is a human-made hierarchy to
  measure against; it is never trained on. Each class has one image a style.
  """

  VERSION = tfds.core.Version('1.1.0')
  BUILDER_CONFIGS: ClassVar = [
    EmojiConfig(
      name='class',
      column='split_class',
      description='The classes of each subgroup alternate (split A).',
    ),
    EmojiConfig(
      name='subgroup',
      column='split_subgroup',
      description='Train and test share no subgroup (split B).',
    ),
  ]
  homepage = 'https://www.unicode.org/emoji/charts/full-emoji-list.html'
  license = "each style's own, see emoji_assets/ATTRIBUTION.md"

  # images.zip (`<hex>/<style>.webp`), classes.csv and styles.csv, and how
  # many images they make: one lost in silence would be another benchmark.
  assets: ClassVar[pathlib.Path] = (
    pathlib.Path(__file__).parent / 'emoji_assets'
  )
  num_images: ClassVar[int] = 12_538

  def _contents(self) -> contents.Contents:
    names = {
      'label': [f'{row["emoji"]} {row["label"]}' for row in self._classes],
      'style': [row['style'] for row in self._styles],
      'subgroup': _distinct(self._classes, 'subgroup'),
      'group': _distinct(self._classes, 'group'),
    }
    splits: dict[str, list[shards.Record]] = {'train': [], 'test': []}
    for index, (label, style, entry) in enumerate(self._entries(self._archive)):
      row = self._classes[label]
      fields = {
        'index': index,
        'label': label,
        'style': style,
        'subgroup': names['subgroup'].index(row['subgroup']),
        'group': names['group'].index(row['group']),
      }
      splits[row[self.builder_config.column]].append(
        shards.Record(entry, self.assets / 'images.zip', fields)
      )
    return contents.Contents(splits, names, ('group', 'subgroup'), 'bundled')

  def _read(self, record: shards.Record) -> bytes:
    try:
      return self._archive.read(record.path)
    except zipfile.BadZipFile as error:
      what = f'{record.file}: {record.path}'
      raise _unreadable(what, error) from error

  def _entries(self, archive: zipfile.ZipFile) -> list[tuple[int, int, str]]:
    """Returns (class, style, entry) of every image in order, all checked."""
    labels = {row['hex']: i for i, row in enumerate(self._classes)}
    styles = {row['style']: i for i, row in enumerate(self._styles)}
    entries = []
    for entry in archive.namelist():
      code, _, style = entry.removesuffix('.webp').partition('/')
      if code not in labels or style not in styles:
        raise UserError(
          f'{archive.filename}: entry {entry!r} is not <hex>/<style>.webp '
          'with a hex of classes.csv and a style of styles.csv; restore '
          'the three files from the same release'
        )
      entries.append((labels[code], styles[style], entry))
    lost = sorted(set(labels.values()) - {label for label, _, _ in entries})
    if lost or len(entries) != self.num_images:
      example = f', none of {self._classes[lost[0]]["hex"]}' if lost else ''
      raise UserError(
        f'{archive.filename} holds {len(entries)} images{example}; expected '
        f'{self.num_images} and some of each class: restore the file'
      )
    return sorted(entries)

  @functools.cached_property
  def _archive(self) -> zipfile.ZipFile:
    path = self.assets / 'images.zip'
    try:
      return zipfile.ZipFile(path)
    except (OSError, zipfile.BadZipFile) as error:
      raise _unreadable(path, error) from error

  @functools.cached_property
  def _classes(self) -> list[dict[str, str]]:
    return _read_table(self.assets / 'classes.csv')

  @functools.cached_property
  def _styles(self) -> list[dict[str, str]]:
    return _read_table(self.assets / 'styles.csv')


def _read_table(path: pathlib.Path) -> list[dict[str, str]]:
  try:
    with path.open(encoding='utf-8', newline='') as file:
      return list(csv.DictReader(file))
  except OSError as error:
    raise _unreadable(path, error) from error


def _unreadable(what: object, error: Exception) -> UserError:
  return UserError(
    f'cannot read {what} ({error}); it comes with the package: install it again'
  )


def _distinct(rows: list[dict[str, str]], column: str) -> list[str]:
  return list(dict.fromkeys(row[column] for row in rows))
