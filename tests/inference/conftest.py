"""One small run for all tests of this folder."""

import pytest

from hier_jax.data import datasets
from hier_jax.training.run import loop
from tests.support import training_data


@pytest.fixture(scope='session')
def trained(tmp_path_factory):
  """The workdir of a run, and the splits that it was trained on."""
  made = training_data.splits()
  folder = tmp_path_factory.mktemp('trained') / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(datasets, 'load', lambda name, **_: made)
    loop.train(training_data.config(epochs=1), folder)
  return folder, made


@pytest.fixture
def colors(trained, monkeypatch):
  """Makes every data set that of the run."""
  monkeypatch.setattr(datasets, 'load', lambda name, **_: trained[1])
  return trained[1]
