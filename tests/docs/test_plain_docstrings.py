"""Docstrings become reStructuredText that means what they say."""

import plain_docstrings
import pytest


def prepared(text):
  return list(plain_docstrings.prepared(text.split('\n')))


@pytest.mark.parametrize(
  ('line', 'wanted'),
  [
    ('1 - c|x|^2', r'1 - c\|x\|^2'),
    ('`|x|` of a *batch', r'`|x|` of a \*batch'),
    ('x_ij and labels_', r'x_ij and labels\_'),
    ('plain text', 'plain text'),
  ],
)
def test_characters_stand_for_themselves(line, wanted):
  assert plain_docstrings.escaped(line) == wanted


def test_formula_is_a_literal_block():
  text = 'The distance is\n\n  d = 2|x - y|\n      + z*\n\nof x|y.'
  assert prepared(text) == [
    'The distance is ::',
    '',
    '  d = 2|x - y|',
    '      + z*',
    '',
    r'of x\|y.',
  ]


def test_colon_before_a_formula_stays():
  assert prepared('As here:\n\n  a * b')[0] == 'As here::'


def test_sections_and_examples_are_left_to_napoleon():
  text = 'Args:\n  x: a|b.\n\nExample:\n  >>> print("|")\n  |\n'
  assert prepared(text) == [
    'Args:',
    r'  x: a\|b.',
    '',
    'Example:',
    '  >>> print("|")',
    '  |',
    '',
  ]


def test_types_of_arrays_have_the_names_that_users_import():
  signature = (
    "(z: ~jaxtyping.Float[jaxlib._jax.Array, 'b d'] | "
    "~jaxtyping.Float[numpy.ndarray, 'b d'], *, c: float = 0.1)"
  )
  wanted = "(z: Float[ArrayLike, 'b d'], *, c: float = 0.1)"
  assert plain_docstrings.readable(signature) == wanted
  assert plain_docstrings.readable('jaxlib._jax.Array') == 'Array'
