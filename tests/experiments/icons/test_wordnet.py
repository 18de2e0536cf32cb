import pytest

from tests.support import small_icons

NOUNS = small_icons.nouns()


@pytest.mark.parametrize(
  ('word', 'lemma'),
  [
    ('dog', 'dog'),
    ('dogs', 'dog'),
    ('watches', 'watch'),
    ('berries', 'berry'),
    ('domestic_dog', 'domestic_dog'),
    ('edit', None),
  ],
)
def test_a_word_is_a_noun_or_the_plural_of_one(word, lemma):
  assert NOUNS.noun(word) == lemma


def test_synsets_have_names_as_nltk_has_them():
  assert NOUNS.name('00000004') == 'dog.n.01'
  assert NOUNS.name('00000011') == 'heart.n.02'
  for offset in small_icons.SYNSETS:
    assert NOUNS.offset(NOUNS.name(f'{offset:08}')) == f'{offset:08}'
  with pytest.raises(KeyError):
    NOUNS.offset('dog.n.02')
  with pytest.raises(KeyError):
    NOUNS.offset('wolf.n.01')


def test_paths_lead_from_the_root():
  names = [NOUNS.name(o) for o in NOUNS.path('00000004')]
  assert names == [
    'entity.n.01',
    'physical_entity.n.01',
    'animal.n.01',
    'dog.n.01',
  ]
  assert NOUNS.is_physical('00000004') and not NOUNS.is_physical('00000009')


def test_proper_names_are_no_senses():
  assert NOUNS.senses('rex') == []
  assert NOUNS.senses('heart') == ['00000010', '00000011']


def test_uses_tell_nouns_from_verbs():
  assert not NOUNS.is_mostly_noun('watch')
  assert NOUNS.is_mostly_noun('heart') and NOUNS.is_mostly_noun('dog')
  assert NOUNS.share('heart', '00000011') == 0.4
  assert NOUNS.share('dog', '00000004') == 0
