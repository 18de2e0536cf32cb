"""Formulas of the pages become MathML."""

import re

import pytest

from tests.support import pages

pytest.importorskip('latex2mathml')


def test_formula_is_drawn_by_browsers_alone():
  import mathml

  found = mathml.markup(r'\frac{1}{\sqrt c}', display=True)
  assert 'display="block"' in found and '<msqrt>' in found
  assert 'display="inline"' in mathml.markup('x', display=False)


@pytest.mark.parametrize('page', pages.pages(), ids=lambda page: page.name)
def test_no_command_of_tex_is_left_over(page):
  import mathml

  text = re.sub(r'^```.*?^```', '', page.read_text(), flags=re.S | re.M)
  text = re.sub(r'`[^`]*`', '', text)
  for formula in re.findall(r'\$\$(.+?)\$\$', text, flags=re.S):
    assert '\\' not in re.sub(r'<[^>]*>', '', mathml.markup(formula, display=1))
