"""Public functions of the study's losses have examples that hold."""

import importlib
import inspect

import pytest

from tests.support import examples

MODULES = (
  'ancestors',
  'carried',
  'controls',
  'mined',
  'proxies',
  'trees',
  'variants',
)
MODULES += ('weighting',)


def functions():
  for module in MODULES:
    found = importlib.import_module(f'experiments.study.{module}')
    for name in found.__all__:
      value = getattr(found, name)
      if inspect.isfunction(value):
        yield pytest.param(value, id=f'{module}.{name}')


@pytest.mark.parametrize('function', list(functions()))
def test_there_is_an_example(function):
  assert examples.of(function).examples


@pytest.mark.slow
@pytest.mark.parametrize('function', list(functions()))
def test_example_prints_what_it_says(function):
  examples.assert_prints_what_it_says(function)
