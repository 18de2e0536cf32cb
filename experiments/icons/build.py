"""Builds the data set: a folder that `hier-jax data prepare` takes."""

from __future__ import annotations

import collections
import csv
import dataclasses
import json
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import tqdm

from experiments.icons import duplicates, render, sets, tree
from experiments.icons.names import Names, base_names, words
from experiments.icons.sets import Icon, IconSet
from experiments.icons.wordnet import WordNet
from hier_jax import paths
from hier_jax.errors import UserError

__all__ = ['MOST', 'Drawing', 'Picked', 'collect', 'draw', 'pick', 'write']

SIZE = 64
# Images of a class at least, and authors who drew them; and at most.
LEAST_IMAGES = 5
LEAST_AUTHORS = 3
MOST = 300

SENSES = pathlib.Path(__file__).parent / 'senses.csv'
Draw = Callable[[str, int], np.ndarray | None]


@dataclasses.dataclass(frozen=True)
class Drawing:
  """An icon whose name means a noun.

  Attributes:
    icons: its set.
    icon: the icon.
    synset: offset of the noun.
  """

  icons: IconSet
  icon: Icon
  synset: str

  @property
  def file(self) -> str:
    """Its name as a file; no two icons share one."""
    return f'{self.icons.prefix}.{self.icon.name}.png'


@dataclasses.dataclass(frozen=True)
class Picked:
  """What the data set holds.

  Attributes:
    drawings: class -> its drawings with their images.
    levels: class -> its group and subgroup.
    sides: subgroup -> 'train' or 'test'.
  """

  drawings: Mapping[str, Sequence[tuple[Drawing, np.ndarray]]]
  levels: Mapping[str, tuple[str, str]]
  sides: Mapping[str, str]


def senses(path: pathlib.Path = SENSES) -> dict[str, str]:
  """Word -> the name of its synset, or '' for none, of senses.csv."""
  with path.open(encoding='utf-8', newline='') as file:
    return {row['word']: row['synset'] for row in csv.DictReader(file)}


def collect(
  icon_sets: Mapping[str, IconSet],
  wordnet: WordNet,
  by_hand: Mapping[str, str],
) -> tuple[list[Drawing], collections.Counter]:
  """The drawings whose names mean nouns, and why others are left out.

  Args:
    icon_sets: prefix -> set, all of them.
    wordnet: the nouns.
    by_hand: what `senses` returns.

  Returns:
    The drawings by set and in each set's order, and reason -> icons.
  """
  known = Names(wordnet, by_hand, sets.brands(icon_sets))
  drawings, reasons = [], collections.Counter()
  for icons in icon_sets.values():
    if why := sets.why_left_out(icons):
      reasons[why] += len(icons.names)
      continue
    base = base_names(icons.names, icons.prefixes, icons.suffixes)
    found = list(icons.icons())
    reasons['withdrawn, a logo, moving or not drawn by shapes alone'] += len(
      icons.names
    ) - len(found)
    for icon in found:
      concept = known.concept(words(base[icon.name]))
      if concept.synset:
        drawings.append(Drawing(icons, icon, concept.synset))
      else:
        reasons[concept.why] += 1
  return drawings, reasons


def draw(
  drawings: Sequence[Drawing], drawn: Draw = render.draw
) -> list[np.ndarray | None]:
  """The image of each drawing, None where nothing is seen.

  Args:
    drawings: what `collect` returns.
    drawn: from an SVG document and a size to an image.
  """
  shown = tqdm.tqdm(drawings, desc='drawings', unit='', disable=None)
  return [drawn(drawing.icon.svg, SIZE) for drawing in shown]


def pick(
  drawings: Sequence[Drawing],
  images: Sequence[np.ndarray | None],
  wordnet: WordNet,
  reasons: collections.Counter,
) -> Picked:
  """Removes what is drawn twice and small classes, and makes the hierarchy.

  Args:
    drawings: what `collect` returns.
    images: what `draw` returns.
    wordnet: the nouns.
    reasons: counts why drawings are left out, and is added to.

  Raises:
    UserError: no class is left.
  """
  seen = [i for i, image in enumerate(images) if image is not None]
  reasons['nothing is drawn'] += len(images) - len(seen)
  found = [(drawings[i], images[i]) for i in seen]
  kept = _unlike(found)
  reasons['the same drawing as another'] += len(found) - len(kept)
  classes = collections.defaultdict(list)
  for drawing, image in kept:
    classes[wordnet.name(drawing.synset)].append((drawing, image))
  large = {k: v for k, v in sorted(classes.items()) if _is_large(v)}
  number = sum(map(len, large.values()))
  reasons['in a class with too few images or authors'] += len(kept) - number
  large = {k: _spread(v)[:MOST] for k, v in large.items()}
  reasons['beyond the most of a class'] += number - sum(
    map(len, large.values())
  )
  if not large:
    raise UserError(
      f'none of {len(classes)} classes has {LEAST_IMAGES} images of'
      f' {LEAST_AUTHORS} authors: the packages hold too little'
    )
  above = {
    name: [wordnet.name(o) for o in wordnet.path(wordnet.offset(name))]
    for name in large
  }
  levels = tree.levels(above)
  return Picked(large, levels, tree.sides(levels))


def write(picked: Picked, out: pathlib.Path, about: Mapping[str, object]):
  """Writes the folder, which has its name only once it is whole.

  Args:
    picked: what `pick` returns.
    out: the folder, not there yet or empty.
    about: what about.json says besides the counts.

  Raises:
    UserError: it cannot be written.
  """
  with paths.making_folder(out) as folder:
    for name, drawings in picked.drawings.items():
      side = picked.sides[picked.levels[name][1]]
      place = folder / side / name
      place.mkdir(parents=True)
      for drawing, image in drawings:
        (place / drawing.file).write_bytes(render.png(image))
    _table(
      folder / 'taxonomy.csv',
      ('class', 'group', 'subgroup'),
      ((name, *levels) for name, levels in picked.levels.items()),
    )
    _table(folder / 'licenses.csv', LICENSE_COLUMNS, _licenses(picked))
    text = json.dumps({**about, 'counts': counts(picked)}, indent=2)
    (folder / 'about.json').write_text(f'{text}\n', 'utf-8')


def counts(picked: Picked) -> dict[str, dict[str, int]]:
  """Side -> images, classes, subgroups and groups."""
  found = {}
  for side in ('train', 'test'):
    levels = {
      name: of for name, of in picked.levels.items()
      if picked.sides[of[1]] == side
    }  # fmt: skip
    found[side] = {
      'images': sum(len(picked.drawings[name]) for name in levels),
      'classes': len(levels),
      'subgroups': len({subgroup for _, subgroup in levels.values()}),
      'groups': len({group for group, _ in levels.values()}),
    }
  return found


LICENSE_COLUMNS = (
  *('set', 'title', 'author', 'license', 'license_url', 'url', 'version'),
  'icons',
)  # fmt: skip


def _licenses(picked: Picked) -> list[tuple]:
  """A row of `LICENSE_COLUMNS` for each set that is used."""
  used = collections.Counter(
    drawing.icons for found in picked.drawings.values() for drawing, _ in found
  )
  rows = [
    (
      *(s.prefix, s.title, s.author, s.license, s.license_url, s.url),
      *(s.version, number),
    )
    for s, number in used.items()
  ]
  return sorted(rows)


def _unlike(found: Sequence[tuple[Drawing, np.ndarray]]) -> list:
  """One of each drawing that there are several of, and all others."""
  if not found:
    return []
  signatures = np.stack([render.signature(image) for _, image in found])
  names = [drawing.synset for drawing, _ in found]
  labels = np.unique(names, return_inverse=True)[1]
  first = duplicates.first_of(signatures)
  return [found[i] for i in duplicates.winners(first, labels)]


def _is_large(found: Sequence[tuple[Drawing, np.ndarray]]) -> bool:
  authors = {drawing.icons.author for drawing, _ in found}
  return len(found) >= LEAST_IMAGES and len(authors) >= LEAST_AUTHORS


def _spread(found: Sequence[tuple[Drawing, np.ndarray]]) -> list:
  """Ordered so that the first ones are of as many sets as there are."""
  turns: collections.Counter = collections.Counter()
  ordered = []
  for drawing, image in found:
    turns[drawing.icons.prefix] += 1
    ordered.append((turns[drawing.icons.prefix], drawing, image))
  ordered.sort(key=lambda item: (item[0], item[1].file))
  return [(drawing, image) for _, drawing, image in ordered]


def _table(path: pathlib.Path, columns: Sequence[str], rows: Iterable[tuple]):
  with path.open('w', encoding='utf-8', newline='') as file:
    table = csv.writer(file, lineterminator='\n')
    table.writerow(columns)
    table.writerows(rows)
