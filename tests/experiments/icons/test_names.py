import csv

import pytest

from experiments.icons import build, names
from tests.support import small_icons

NOUNS = small_icons.nouns()


def found(name, senses=None, brands=()):
  known = names.Names(NOUNS, senses or {}, brands)
  concept = known.concept(names.words(name))
  return NOUNS.name(concept.synset) if concept.synset else concept.why


@pytest.mark.parametrize(
  ('name', 'noun'),
  [
    ('dog', 'dog.n.01'),
    ('dogs', 'dog.n.01'),
    ('dog-2', 'dog.n.01'),
    ('dog2', 'dog.n.01'),
    ('dog-24px', 'dog.n.01'),
    ('dog-outline', 'dog.n.01'),
    ('dog-two-tone-alt', 'dog.n.01'),
    # A noun as it is, whatever its last word.
    ('traffic-light', 'traffic_light.n.01'),
    ('traffic-light-bold', 'traffic_light.n.01'),
    ('dog-check', 'dog.n.01'),
    ('dog-off-circle-fill', 'dog.n.01'),
    ('circle-dog', 'dog.n.01'),
    ('domestic-dog', 'dog.n.01'),
    # Physical, and two fifths of the uses.
    ('heart', 'heart.n.02'),
    # No sense is physical.
    ('music', 'music.n.01'),
    # The first of two physical ones.
    ('mouse', 'mouse.n.01'),
  ],
)
def test_noun_of_a_name(name, noun):
  assert found(name) == noun


@pytest.mark.parametrize(
  ('name', 'why'),
  [
    ('edit', 'no noun of WordNet'),
    ('dog-cat', 'no noun of WordNet'),
    ('x', 'no noun of WordNet'),
    ('a-24', 'no noun of WordNet'),
    ('24', 'no noun of WordNet'),
    ('watch', 'mostly a verb or an adjective'),
    ('rex', 'a proper name'),
  ],
)
def test_names_that_are_left_out(name, why):
  assert found(name) == why


def test_brands_are_left_out():
  assert found('apple') == 'apple.n.01'
  assert found('apple', brands={'apple'}) == 'a brand'


def test_senses_by_hand_go_first():
  senses = {'mouse': 'mouse.n.02', 'dog': '', 'watch': 'watch.n.01'}
  senses['smart_dog'] = 'cat.n.01'
  assert found('mouse', senses) == 'mouse.n.02'
  assert found('dogs', senses) == 'a word left out by senses.csv'
  assert found('watch', senses, brands={'watch'}) == 'watch.n.01'
  assert found('smart-dog', senses) == 'cat.n.01'


def test_rare_physical_sense_gives_way():
  uses = {('heart', 1, 10): 9, ('heart', 1, 11): 1}
  nouns = small_icons.nouns(None, uses)
  concept = names.Names(nouns, {}, ()).concept(['heart'])
  assert nouns.name(concept.synset) == 'heart.n.01'


def test_style_of_a_set_is_taken_off_where_the_set_has_two():
  given = ['water-line', 'water-fill', 'traffic-line', 'baseline-dog', 'dog']
  base = names.base_names(given, ['baseline'], ['', 'line', 'fill'])
  assert base == {
    'water-line': 'water',
    'water-fill': 'water',
    'traffic-line': 'traffic-line',
    'baseline-dog': 'dog',
    'dog': 'dog',
  }


def test_longest_style_is_taken_off():
  given = ['dog-bold', 'dog-bold-duotone']
  base = names.base_names(given, [], ['duotone', 'bold-duotone', 'bold'])
  assert set(base.values()) == {'dog'}


def test_senses_by_hand_are_sorted_and_once_each():
  with build.SENSES.open(encoding='utf-8', newline='') as file:
    rows = list(csv.DictReader(file))
  words = [row['word'] for row in rows]
  assert words == sorted(set(words))
  for row in rows:
    _, _, rest = row['synset'].partition('.n.')
    assert row['synset'] == '' or rest.isdigit()
