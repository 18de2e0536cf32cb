"""The tables of what values of a config may be."""

import fnmatch

from hier_jax.training.config import default as config_lib
from hier_jax.training.config import values


def test_bounds_are_of_keys_that_are_there():
  keys = config_lib.flatten(config_lib.default_config())
  for patterns in values._BOUNDS.values():
    assert all(fnmatch.filter(keys, pattern) for pattern in patterns)


def test_choices_are_of_keys_that_are_there():
  keys = config_lib.flatten(config_lib.default_config())
  assert values._CHOICES.keys() <= keys.keys()
