"""What runs in these tests train on, and with."""

import pytest

from hier_jax.data import datasets
from tests.support import shared_programs, training_data


@pytest.fixture
def colors(monkeypatch):
  """Makes the data set of every config `training_data.splits`."""
  made = training_data.splits()
  monkeypatch.setattr(datasets, 'load', lambda name, **_: made)
  return made


@pytest.fixture
def programs(monkeypatch):
  """Has runs of equal configs share their programs."""
  shared_programs.use(monkeypatch)


@pytest.fixture(autouse=True)
def _forget_large_programs():
  """Leaves out what tests/conftest.py does: here programs are shared.

  A module of these tests has few enough to keep them all until its end.
  """
