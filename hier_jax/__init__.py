"""Hierarchical proxies for metric learning in hyperbolic space."""

import importlib

__all__ = [
  'debug_checks',
  'evaluation',
  'layers',
  'lorentz',
  'losses',
  'mining',
  'models',
  'poincare',
]
__version__ = '0.3.0'


def __getattr__(name: str) -> object:
  # Rooms are imported when they are named, so that the data room and the
  # command line's messages do not wait for jax.
  if name == 'debug_checks':
    return importlib.import_module('hier_jax.debug').debug_checks
  if name in __all__:
    return importlib.import_module(f'hier_jax.{name}')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return sorted([*globals(), *__all__])
