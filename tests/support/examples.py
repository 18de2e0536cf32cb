"""Examples in docstrings, as tests of what they print."""

import doctest
import inspect


def of(function):
  """The example in a function's docstring."""
  return doctest.DocTestParser().get_doctest(
    inspect.getdoc(function), {}, function.__name__, None, None
  )


def assert_prints_what_it_says(function, optionflags=0):
  """Runs it, by the flags of doctest."""
  said: list[str] = []
  runner = doctest.DocTestRunner(optionflags=optionflags)
  runner.run(of(function), out=said.append)
  assert not runner.failures, ''.join(said)
