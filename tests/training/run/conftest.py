"""What runs in these tests train on, and with."""

import jax
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
  """Leaves out what tests/conftest.py does: here programs are shared."""


@pytest.fixture(autouse=True, scope='module')
def _forget_programs():
  """Leaves that out too: the modules of this folder share programs."""


@pytest.fixture(autouse=True, scope='package')
def _forget_programs_of_runs():
  """Frees them after the folder, which has few enough to keep them all."""
  yield
  jax.clear_caches()
