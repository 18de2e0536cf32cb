"""From the name of an icon to the WordNet noun that it draws.

The rules, in their order; the first that fails says why an icon is left out:

1. The style that the set declares is taken off: `water-line` of a set with the
   suffix `line` is `water`, if the set draws `water` in another style too.
2. Numbers and sizes are taken off words: `home-2` and `home24px` are `home`.
3. The rest is looked up as a noun, then without a word of style or state at its
   end, or else at its start, and so on, until a noun is found:
   `traffic-light-outline` is `traffic-light`, `calendar-check` is `calendar`,
   `circle-user` is `user`. Plurals count as their singulars.
4. Words of fewer than three letters, brands, and words that texts use less as a
   noun than as a verb or an adjective are left out.
5. The sense is WordNet's first that is no proper name, where it is a physical
   entity; else the first physical one that makes up a quarter of the word's
   uses; else the first of all.
6. `senses.csv` goes before 4 and 5, and before WordNet's list of nouns in 3: a
   word's sense in icons, or none. It was written by looking at the names alone.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from experiments.icons.wordnet import WordNet

__all__ = ['Concept', 'Names', 'base_names', 'words']

# What a word says of how an icon is drawn, not of what it draws.
STYLES = frozenset(
  (
    *('alt', 'alternate', 'base', 'baseline', 'big', 'block', 'bold', 'bolder'),
    *('color', 'colored', 'colour', 'dark', 'duo', 'duotone', 'f', 'fill'),
    *('filled', 'flat', 'icon', 'large', 'light', 'line', 'linear', 'lined'),
    *('loop', 'micro', 'mini', 'mono', 'monotone', 'normal', 'o', 'outline'),
    *('outlined', 'pencil', 'pop', 'print', 'regular', 'remix', 'round'),
    *('rounded', 'semibold', 'sharp', 'simple', 'small', 'solid', 'stroke'),
    *('thick', 'thin', 'tone', 'two', 'twotone', 'variant', 'line', 'px'),
  )
)
# What is shown beside a thing, or the state that it is in.
STATES = frozenset(
  (
    *('active', 'add', 'added', 'alert', 'all', 'arrow', 'attention', 'auto'),
    *('back', 'badge', 'badged', 'ban', 'blank', 'block', 'blocked', 'bottom'),
    *('cancel', 'center', 'check', 'checked', 'checkmark', 'circle', 'circled'),
    *('clear', 'clock', 'close', 'closed', 'code', 'cog', 'confirm', 'copy'),
    *('cross', 'crossed', 'danger', 'dash', 'delete', 'disable', 'disabled'),
    *('dollar', 'done', 'dot', 'dots', 'double', 'down', 'download', 'edit'),
    *('eight', 'empty', 'enable', 'error', 'exclamation', 'export', 'five'),
    *('forbidden', 'forward', 'four', 'front', 'full', 'gear', 'half', 'heart'),
    *('help', 'high', 'horizontal', 'import', 'in', 'inactive', 'info', 'left'),
    *('less', 'list', 'lock', 'locked', 'loop', 'low', 'mark', 'medium'),
    *('minus', 'more', 'multiple', 'mute', 'muted', 'new', 'nine', 'no'),
    *('none', 'not', 'notification', 'off', 'ok', 'on', 'one', 'open'),
    *('opened', 'out'),
    *('pause', 'percent', 'play', 'plus', 'private', 'question', 'rectangle'),
    *('refresh', 'remove', 'right', 'save', 'search', 'settings', 'seven'),
    *('share', 'shared', 'shield', 'side', 'six', 'slash', 'slashed', 'square'),
    *('standard', 'star', 'stop', 'success', 'sync', 'ten', 'three', 'tick'),
    *('time', 'top', 'twelve', 'two', 'unlock', 'unlocked', 'up', 'update'),
    *('upload', 'verified', 'vertical', 'view', 'warning', 'wave', 'x'),
    *('xmark', 'zero'),
  )
)  # fmt: skip
MIN_LETTERS = 3
# Of the uses of a word, for a sense that is not its first.
MIN_SHARE = 0.25


class Concept(NamedTuple):
  """What an icon draws, or why it is left out.

  Attributes:
    synset: offset of the WordNet noun; '' for none.
    word: the lemma that it was found by.
    why: the reason, '' where there is a synset.
  """

  synset: str = ''
  word: str = ''
  why: str = ''


class Names:
  """Finds the noun of an icon's name.

  Args:
    wordnet: the nouns.
    senses: word -> name of a synset, or '' for none.
    brands: words that are names of brands.
  """

  def __init__(
    self, wordnet: WordNet, senses: Mapping[str, str], brands: Collection[str]
  ):
    self._wordnet, self._senses, self._brands = wordnet, senses, brands

  def concept(self, base: Iterable[str]) -> Concept:
    """The noun of a name in words, without its style (rules 3 to 6)."""
    lemma = self._lemma(list(base))
    if lemma is None:
      return Concept(why='no noun of WordNet')
    if lemma in self._senses:
      name = self._senses[lemma]
      if not name:
        return Concept(word=lemma, why='a word left out by senses.csv')
      return Concept(self._wordnet.offset(name), lemma)
    if lemma in self._brands:
      return Concept(word=lemma, why='a brand')
    if not self._wordnet.is_mostly_noun(lemma):
      return Concept(word=lemma, why='mostly a verb or an adjective')
    synset = self._sense(lemma)
    if not synset:
      return Concept(word=lemma, why='a proper name')
    return Concept(synset, lemma)

  def _lemma(self, base: list[str]) -> str | None:
    """The longest noun left when words of style and state are taken off."""
    while base:
      word = '_'.join(base)
      if len(word) < MIN_LETTERS:
        return None
      lemma = word if word in self._senses else self._wordnet.noun(word)
      if lemma is not None:
        return lemma
      if len(base) == 1:
        return None
      if base[-1] in STATES or base[-1] in STYLES:
        base = base[:-1]
      elif base[0] in STATES or base[0] in STYLES:
        base = base[1:]
      else:
        return None
    return None

  def _sense(self, lemma: str) -> str:
    """The synset by rule 5; '' where there are proper names alone."""
    senses = self._wordnet.senses(lemma)
    for i, offset in enumerate(senses):
      usual = i == 0 or self._wordnet.share(lemma, offset) >= MIN_SHARE
      if usual and self._wordnet.is_physical(offset):
        return offset
    return senses[0] if senses else ''


def base_names(
  names: Collection[str], prefixes: Collection[str], suffixes: Collection[str]
) -> dict[str, str]:
  """Names of a set -> names without the style that the set declares (rule 1).

  A style is taken off where the set has the rest in two styles or more.

  Args:
    names: of all icons of the set.
    prefixes: styles before a name, such as 'baseline'.
    suffixes: styles behind it, such as 'fill'; '' for a name without.
  """
  cut = {name: _cut(name, prefixes, suffixes) for name in names}
  styles: dict[str, int] = {}
  for base in cut.values():
    styles[base] = styles.get(base, 0) + 1
  return {name: b if styles[b] > 1 else name for name, b in cut.items()}


def words(name: str) -> list[str]:
  """The words of a name, without numbers and sizes (rule 2).

  Example:
    >>> words('shopping-cart2-24px')
    ['shopping', 'cart']
  """
  found = (re.sub(r'\d+(px)?$', '', word) for word in name.split('-'))
  return [word for word in found if word]


def _cut(
  name: str, prefixes: Collection[str], suffixes: Collection[str]
) -> str:
  for prefix in sorted(prefixes, key=len, reverse=True):
    if prefix and name.startswith(f'{prefix}-'):
      name = name.removeprefix(f'{prefix}-')
      break
  for suffix in sorted(suffixes, key=len, reverse=True):
    if suffix and name.endswith(f'-{suffix}'):
      return name.removesuffix(f'-{suffix}')
  return name
