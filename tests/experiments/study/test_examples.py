"""Public functions of the study's losses have examples that hold."""

import doctest
import importlib
import inspect

import pytest

MODULES = 'ancestors', 'controls', 'mined', 'proxies', 'trees', 'variants'
MODULES += ('weighting',)


def functions():
  for module in MODULES:
    found = importlib.import_module(f'experiments.study.{module}')
    for name in found.__all__:
      value = getattr(found, name)
      if inspect.isfunction(value):
        yield pytest.param(value, id=f'{module}.{name}')


def example_of(function):
  return doctest.DocTestParser().get_doctest(
    inspect.getdoc(function), {}, function.__name__, None, None
  )


@pytest.mark.parametrize('function', list(functions()))
def test_there_is_an_example(function):
  assert example_of(function).examples


@pytest.mark.slow
@pytest.mark.parametrize('function', list(functions()))
def test_example_prints_what_it_says(function):
  said: list[str] = []
  runner = doctest.DocTestRunner()
  runner.run(example_of(function), out=said.append)
  assert not runner.failures, ''.join(said)
