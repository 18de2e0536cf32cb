"""Cases of parametrized tests."""

import itertools

import pytest


def slowly(*values):
  """A case that is marked slow."""
  return pytest.param(*values, marks=pytest.mark.slow)


def thinned(*axes):
  """All cases of a product, of which a few are quick and the others slow.

  As many are quick as the longest axis has values, and each value of each axis
  is in one of them.
  """
  length = max(map(len, axes))
  quick = {tuple(i % len(axis) for axis in axes) for i in range(length)}
  places = itertools.product(*(range(len(axis)) for axis in axes))
  return [
    (pytest.param if at in quick else slowly)(
      *(axis[i] for axis, i in zip(axes, at, strict=True))
    )
    for at in places
  ]
