"""Public functions and layers have examples, which print what they say."""

import doctest
import importlib
import inspect

import pytest

from tests.support import examples

ROOMS = ('evaluation', 'layers', 'lorentz', 'losses', 'mining', 'models')
ROOMS += ('poincare', 'poincare.wrapped_normal', 'inference.collection')


def functions():
  for room in ROOMS:
    module = importlib.import_module(f'hier_jax.{room}')
    public = getattr(module, '__all__', None) or [
      name
      for name, value in vars(module).items()
      if not name.startswith('_')
      and getattr(value, '__module__', '').startswith(module.__name__)
    ]
    for name in public:
      value = getattr(module, name)
      if inspect.isfunction(value) or room == 'layers':
        yield pytest.param(value, id=f'{room}.{name}')


@pytest.mark.parametrize('function', list(functions()))
def test_there_is_an_example(function):
  assert examples.of(function).examples


@pytest.mark.slow
@pytest.mark.parametrize('function', list(functions()))
def test_example_prints_what_it_says(function):
  examples.assert_prints_what_it_says(
    function, doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
  )
