"""Writes the archive: images.zip, its two tables and the attribution."""

import csv
import pathlib
import zipfile
from collections.abc import Iterable, Mapping

import classes

__all__ = ['write_attribution', 'write_classes', 'write_images', 'write_styles']

_STYLE_COLUMNS = ('style', 'author', 'package', 'version', 'licence', 'url')

_ATTRIBUTION = """\
# Emoji: who drew these images

A collection of {count} styles, each by its own author and under its own
licence. The images of a style are adaptations of its author's work and stay
under that style's licence (those of `openmoji` and `emojione-v1` under
CC BY-SA 4.0, which asks the same of whatever is made of them); the rest of
this repository is not part of them. No author endorses this collection. The
works come without warranty, as each licence says in full: see `licenses/`.

**What was changed, in every style:** each drawing was rasterised on white,
cropped to its ink, centred in a square and scaled to {size} x {size} pixels,
stored as lossless WebP. A font's outlines were filled with black. A few
drawings were left out.

Images are named `<code points>/<style>.webp` in `images.zip`.
{styles}
## Labels and hierarchy

`classes.csv` takes its names, groups, subgroups and versions from
`emojibase-data` {emojibase} (Copyright (c) 2017-2019 Miles Johnson, MIT,
https://emojibase.dev/), which has them from Unicode's CLDR and emoji data
(Copyright (c) Unicode, Inc., Unicode License v3, Unicode-3.0). The splits are
this project's.
"""

_STYLE = """
## {style}

- Author: {author}
- Licence: {licence}, `licenses/{licence}.txt`
- Source: {url}, by way of the package {package} {version}
"""


def write_images(path: pathlib.Path, images: Iterable[tuple[str, bytes]]):
  """Writes (name, WebP file) pairs to a ZIP file, the same bytes each time.

  Names are sorted, times are ZIP's first day, and nothing is deflated: the
  images are compressed already.
  """
  with zipfile.ZipFile(path, 'w', zipfile.ZIP_STORED) as archive:
    for name, data in sorted(images):
      entry = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
      entry.create_system = 3  # Unix, wherever this runs
      entry.external_attr = 0o100644 << 16
      archive.writestr(entry, data)


def _write_table(path: pathlib.Path, columns, rows: Iterable[Mapping]):
  with path.open('w', encoding='utf-8', newline='') as f:
    table = csv.DictWriter(
      f, columns, extrasaction='ignore', lineterminator='\n'
    )
    table.writeheader()
    table.writerows(rows)


def write_classes(
  path: pathlib.Path,
  rows: list[classes.Emoji],
  subgroup_side: Mapping[str, str],
):
  """Writes classes.csv: a row a class, the row's number its class_id.

  Args:
    path: the file.
    rows: the classes in their order.
    subgroup_side: what `classes.split_subgroup` returns.
  """
  sides = classes.split_class(rows)
  table = [
    {
      'hex': e.hex,
      'emoji': e.emoji,
      'label': e.label,
      'group': e.group,
      'subgroup': e.subgroup,
      'emoji_version': e.version,
      'split_class': side,
      'split_subgroup': subgroup_side[e.subgroup],
    }
    for e, side in zip(rows, sides, strict=True)
  ]
  _write_table(path, list(table[0]), table)


def write_styles(path: pathlib.Path, styles: list[dict[str, str]]):
  """Writes styles.csv: a row a style, the row's number its style_id."""
  _write_table(path, _STYLE_COLUMNS, styles)


def write_attribution(
  path: pathlib.Path, styles: list[dict[str, str]], size: int, emojibase: str
):
  """Writes ATTRIBUTION.md.

  Args:
    path: the file.
    styles: what `write_styles` takes, each with a `note` that may be empty.
    size: of the images, in pixels.
    emojibase: the version of emojibase-data.
  """
  sections = [
    _STYLE.format(**s) + (f'- Note: {s["note"]}\n' if s['note'] else '')
    for s in styles
  ]
  path.write_text(
    _ATTRIBUTION.format(
      count=len(styles),
      size=size,
      styles=''.join(sections),
      emojibase=emojibase,
    ),
    'utf-8',
  )
