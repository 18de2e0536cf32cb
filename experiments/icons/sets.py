"""The icon sets of @iconify/json: which may be used, and their drawings."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = ['BRANDS', 'LICENSES', 'Icon', 'IconSet', 'brands', 'why_left_out']

# SPDX identifiers of licenses that ask for attribution at most, or for the
# same license of changed files (MPL, OFL). Copyleft of the whole is left out,
# so that a copy of the collection needs no license of its own.
LICENSES = frozenset(
  (
    *('Apache-2.0', 'BSD-3-Clause', 'CC-BY-3.0', 'CC-BY-4.0', 'CC0-1.0', 'ISC'),
    *('MIT', 'MPL-2.0', 'OFL-1.1', 'Unlicense'),
  )
)
# Emoji are the study's other data set; logos and flags are names, no concepts.
_CATEGORIES = frozenset(('Emoji', 'Flags / Maps', 'Logos', 'Programming'))
# Of that last category, those that draw things.
_MAPS = frozenset(('maki', 'map', 'osmic', 'pinhead', 'roentgen', 'temaki'))
# Sets of brands, whose names are brands in other sets too.
BRANDS = 'bxl', 'fa7-brands'
_BRAND_CATEGORY = re.compile('brand|logo', re.IGNORECASE)
# Drawn by a script or over time, or with what is not in the file.
_UNDRAWABLE = re.compile(r'<(animate|set|image|text|script|foreignObject)\b')


@dataclasses.dataclass(frozen=True)
class Icon:
  """A drawing of a set.

  Attributes:
    name: unique in the set.
    body: the content of the SVG document.
    box: left, top, width and height of its view.
  """

  name: str
  body: str
  box: tuple[float, float, float, float]

  @property
  def svg(self) -> str:
    """The SVG document."""
    return (
      '<svg xmlns="http://www.w3.org/2000/svg"'
      ' xmlns:xlink="http://www.w3.org/1999/xlink"'
      f' viewBox="{" ".join(map(str, self.box))}">{self.body}</svg>'
    )


class IconSet:
  """A set, as a file of the folder `json` of the package describes it.

  Attributes:
    prefix: its name in the package.
    title: its name for people.
    author: who drew it; sets of one author count as one family.
    license: the SPDX identifier; '' where the set names none.
    license_url: where the license is.
    url: where the set is.
    version: '' where the set has none.
    category: the package's, '' for sets that it lists no more.
    prefixes: styles before names.
    suffixes: styles behind names.
  """

  def __init__(self, data: Mapping[str, Any]):
    info = data['info']
    self._data = data
    self.prefix: str = data['prefix']
    self.title: str = info['name']
    self.author: str = info['author']['name']
    self.url: str = info['author'].get('url', '')
    self.license: str = info['license'].get('spdx', '')
    self.license_url: str = info['license'].get('url', '')
    self.version: str = info.get('version', '')
    self.category: str = info.get('category', '')
    self.prefixes: list[str] = list(data.get('prefixes', {}))
    self.suffixes: list[str] = list(data.get('suffixes', {}))

  @property
  def names(self) -> list[str]:
    """Names of all icons, those that are not `icons()` too; no aliases."""
    return list(self._data['icons'])

  def icons(self) -> Iterator[Icon]:
    """The icons, in the set's order.

    Those are left out that the set has withdrawn or calls brands, and those
    that move or hold text or pictures.
    """
    logos = {
      name
      for category, names in self._data.get('categories', {}).items()
      if _BRAND_CATEGORY.search(category)
      for name in names
    }
    page = {'left': 0, 'top': 0, 'width': 16, 'height': 16}
    page |= {k: self._data[k] for k in page if k in self._data}
    for name, icon in self._data['icons'].items():
      if icon.get('hidden') or name in logos:
        continue
      if not _UNDRAWABLE.search(icon['body']):
        box = tuple(icon.get(k, page[k]) for k in page)
        yield Icon(name, icon['body'], box)


def why_left_out(icons: IconSet) -> str:
  """Why a set is not used; '' for one that is."""
  if icons.license not in LICENSES:
    return f'license {icons.license or "unknown"}'
  if icons.category in _CATEGORIES and icons.prefix not in _MAPS:
    return f'category {icons.category}'
  return ''


def brands(sets: Mapping[str, IconSet]) -> frozenset[str]:
  """Names of brands, as lemmas; of `BRANDS`, whatever their license.

  Args:
    sets: prefix -> set.
  """
  return frozenset(
    name.replace('-', '_') for prefix in BRANDS for name in sets[prefix].names
  )
