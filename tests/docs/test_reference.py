"""Every public name has its place in the reference."""

import importlib
import pathlib
import re

import pytest

import hier_jax
from tests.support import pages

API = pages.DOCS / 'api'
# Rooms whose modules are public one by one, and modules that serve only these.
PARTED = {
  'inference': {'output', 'parts', 'pictures', 'stored_model'},
  'viz': {'scene'},
}


def directives():
  """(directive, name, options) of each that documents code."""
  text = ''.join(page.read_text() for page in sorted(API.glob('*.md')))
  return re.findall(
    r'^\.\. auto(module|function):: ([\w.]+)\n((?:   .*\n)*)', text, flags=re.M
  )


def names_of(module):
  """Public names of a module, those without `__all__` by their origin."""
  found = importlib.import_module(module)
  own = [
    name
    for name, value in vars(found).items()
    if not name.startswith('_') and getattr(value, '__module__', None) == module
  ]
  return set(getattr(found, '__all__', own))


def modules():
  """Modules of the public face."""
  yield from (f'hier_jax.{x}' for x in hier_jax.__all__ if x != 'debug_checks')
  yield 'hier_jax.poincare.wrapped_normal'
  for room, served in PARTED.items():
    folder = pathlib.Path(hier_jax.__file__).parent / room
    names = {p.stem for p in folder.glob('*.py') if not p.name.startswith('_')}
    yield from (f'hier_jax.{room}.{x}' for x in sorted(names - served))


@pytest.mark.parametrize('module', list(modules()))
def test_public_names_are_in_the_reference(module):
  found = {name: options for _, name, options in directives()}
  assert module in found
  if without := re.search(r':exclude-members: (.*)', found[module]):
    for name in without[1].split(', '):
      elsewhere = getattr(importlib.import_module(module), name)
      assert elsewhere.__name__ in found
  assert names_of(module)


def test_function_of_the_package_itself_is_in_the_reference():
  assert ('function', 'hier_jax.debug_checks') in {d[:2] for d in directives()}


def test_reference_lists_its_pages():
  index = (API / 'index.md').read_text()
  for page in API.glob('*.md'):
    assert page.stem == 'index' or f'({page.name})' in index
