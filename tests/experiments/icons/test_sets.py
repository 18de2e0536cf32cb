import pytest

from experiments.icons import sets
from tests.support import small_icons


def made(*args, **kwargs):
  return sets.IconSet(small_icons.data(*args, **kwargs))


@pytest.mark.parametrize(
  'license', ['MIT', 'Apache-2.0', 'CC0-1.0', 'CC-BY-4.0', 'OFL-1.1', 'MPL-2.0']
)
def test_free_licenses_are_used(license):
  assert sets.why_left_out(made('a', ['dog'], license=license)) == ''


@pytest.mark.parametrize(
  'license', ['CC-BY-NC-4.0', 'CC-BY-SA-4.0', 'GPL-3.0', 'CC-BY-NC-SA-4.0', '']
)
def test_other_licenses_are_not(license):
  assert 'license' in sets.why_left_out(made('a', ['dog'], license=license))


@pytest.mark.parametrize(
  'category', ['Emoji', 'Logos', 'Programming', 'Flags / Maps']
)
def test_other_categories_are_not(category):
  assert category in sets.why_left_out(made('a', ['dog'], category=category))


def test_sets_of_maps_draw_things():
  icons = made('maki', ['dog'], category='Flags / Maps')
  assert sets.why_left_out(icons) == ''


def test_icons_that_are_no_drawings_are_left_out():
  names = {
    'dog': {},
    'old': {'hidden': True},
    'x': {},
    'moving': {'body': '<path><animate/></path>'},
    'text': {'body': '<text>dog</text>'},
  }
  icons = made(
    'a', names, categories={'Brand logos': ['x'], 'Animals': ['dog']}
  )
  assert [icon.name for icon in icons.icons()] == ['dog']
  assert icons.names == list(names)


def test_document_has_the_page_of_the_set_or_of_the_icon():
  icons = made(
    'a', {'dog': {}, 'cat': {'width': 8, 'left': 2}}, width=24, height=12
  )
  dog, cat = icons.icons()
  assert 'viewBox="0 0 24 12"' in dog.svg and dog.body in dog.svg
  assert 'viewBox="2 0 8 12"' in cat.svg


def test_brands_are_those_of_sets_of_brands():
  found = small_icons.icon_sets(small_icons.data('a', ['dog']))
  assert sets.brands(found) == {'apple', 'git_alt'}
