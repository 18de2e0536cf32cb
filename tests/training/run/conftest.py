"""What runs in these tests train on."""

import pytest

from hier_jax.data import datasets
from tests.support import training_data


@pytest.fixture
def colors(monkeypatch):
  """Makes the data set of every config `training_data.splits`."""
  made = training_data.splits()
  monkeypatch.setattr(datasets, 'load', lambda name, **_: made)
  return made
