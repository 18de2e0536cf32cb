"""Inputs, outputs and gradients of the authors' program (tests/fixtures)."""

import functools

import numpy as np

from tests.support import places

PATH = places.FIXTURES / 'official_vectors.npz'


@functools.cache
def load():
  """All arrays, by path."""
  with np.load(PATH) as archive:
    return dict(archive)


def under(prefix):
  """Arrays below a path, float64 ones as float32, keyed by what follows it."""
  narrow = lambda a: a.astype(np.float32) if a.dtype == np.float64 else a
  prefix += '/'
  return {
    path.removeprefix(prefix): narrow(array)
    for path, array in load().items()
    if path.startswith(prefix)
  }


def assert_near(got, want, tolerance):
  """Largest error of an array, as a share of its largest entry."""
  got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
  assert got.shape == want.shape
  error = np.max(np.abs(got - want)) / np.max(np.abs(want))
  assert error <= tolerance, f'{error} > {tolerance}'
