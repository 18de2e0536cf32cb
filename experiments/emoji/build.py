"""Builds the bundled Emoji data set from its openly licensed sources.

README.md beside this file has the commands that fetch the sources.
"""

import argparse
import collections
import concurrent.futures
import csv
import functools
import json
import pathlib
import sys

import archive
import classes
import names
import render
from sets import Font, IconSet
from tqdm import tqdm

from hier_jax.errors import UserError

_HERE = pathlib.Path(__file__).parent
_NOTO_MONO = '400Regular/NotoEmoji_400Regular.ttf'
_MIN_DRAWINGS = 4  # a class; with fewer there is little to retrieve

# style -> Emoji.hex -> SVG document.
Drawings = dict[str, dict[str, str]]


def _read_table(name: str) -> list[dict[str, str]]:
  with (_HERE / name).open(encoding='utf-8', newline='') as f:
    return list(csv.DictReader(f))


def installed_versions(npm: pathlib.Path) -> dict[str, str]:
  """Returns the versions of the npm packages.

  Raises:
    UserError: a package is missing or isn't the version that is pinned.
  """
  pins = json.loads((_HERE / 'package.json').read_text('utf-8'))['dependencies']
  for package, pin in pins.items():
    manifest = npm / package / 'package.json'
    found = None
    if manifest.exists():
      found = json.loads(manifest.read_text('utf-8'))['version']
    if found != pin:
      raise UserError(
        f'{npm} has {package} {found}; expected {pin}. Install what '
        'package.json pins, see experiments/emoji/README.md.'
      )
  return pins


def _open(
  style: dict[str, str], npm: pathlib.Path, symbola: pathlib.Path
) -> Font | IconSet:
  if style['style'] == 'symbola':
    return Font(symbola)
  folder = npm / style['package']
  font = folder / _NOTO_MONO
  return Font(font) if font.exists() else IconSet(folder)


def collect(
  sources: dict[str, Font | IconSet], emoji: list[classes.Emoji]
) -> Drawings:
  """Finds every style's drawings of `emoji`, those of drop.csv left out."""
  sets = [s for s in sources.values() if isinstance(s, IconSet)]
  known = names.table(emoji, sets)
  by_hand = names.read_by_hand(_HERE / 'names.csv')
  dropped = {(row['style'], row['hex']) for row in _read_table('drop.csv')}
  drawings: Drawings = {}
  for style, source in sources.items():
    if isinstance(source, Font):
      found = {e.hex: e.plain for e in emoji if e.plain in source}
    else:
      found = names.align(source, known, by_hand[style])
    drawings[style] = {
      e.hex: source.svg(found[e.hex])
      for e in emoji
      if e.hex in found and (style, e.hex) not in dropped
    }
  return drawings


def build(
  npm: pathlib.Path, symbola: pathlib.Path, out: pathlib.Path, size: int
):
  """Writes images.zip, classes.csv, styles.csv and ATTRIBUTION.md to `out`.

  Args:
    npm: the `node_modules` folder.
    symbola: the font file.
    out: the folder, made if there is none; its `licenses/` is left as it is.
    size: of the images, in pixels.

  Raises:
    UserError: a source is missing or isn't what is pinned.
  """
  if not symbola.is_file():
    raise UserError(
      f"--symbola={symbola} is no file; expected the font of Debian's "
      'fonts-symbola, see experiments/emoji/README.md.'
    )
  versions = installed_versions(npm)
  styles = _read_table('styles.csv')
  for style in styles:
    style['version'] = style['version'] or versions[style['package']]
  emoji = classes.read(npm)
  sources = {s['style']: _open(s, npm, symbola) for s in styles}
  drawings = collect(sources, emoji)
  counts = collections.Counter(h for found in drawings.values() for h in found)
  drawn = classes.in_class_order(
    [e for e in emoji if counts[e.hex] >= _MIN_DRAWINGS]
  )
  rows = classes.without_sizes(drawn)
  files = {
    f'{e.hex}/{style}.webp': found[e.hex]
    for e in rows
    for style, found in drawings.items()
    if e.hex in found
  }
  out.mkdir(parents=True, exist_ok=True)
  with concurrent.futures.ProcessPoolExecutor() as pool:
    webp = functools.partial(render.webp, size=size)
    images = tqdm(
      pool.map(webp, files, files.values(), chunksize=32), total=len(files)
    )
    archive.write_images(out / 'images.zip', zip(files, images, strict=True))
  archive.write_classes(
    out / 'classes.csv', rows, classes.split_subgroup(drawn)
  )
  archive.write_styles(out / 'styles.csv', styles)
  archive.write_attribution(
    out / 'ATTRIBUTION.md', styles, size, versions['emojibase-data']
  )
  print(f'{out}: {len(files)} images of {len(rows)} classes')


def main():
  """Reads the command line."""
  parser = argparse.ArgumentParser(description=__doc__)
  path = {'type': pathlib.Path, 'required': True}
  parser.add_argument('--npm', **path, help='node_modules of package.json')
  parser.add_argument('--symbola', **path, help='Symbola_hint.ttf')
  parser.add_argument('--out', **path, help='where the archive goes')
  parser.add_argument('--size', type=int, default=40, help='pixels a side')
  args = parser.parse_args()
  try:
    build(args.npm, args.symbola, args.out, args.size)
  except UserError as error:
    sys.exit(f'error: {error}')


if __name__ == '__main__':
  main()
