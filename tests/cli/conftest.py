"""A config file that trains on images in memory."""

import pytest

from hier_jax.data import datasets
from tests.support import shared_programs, training_data

CONFIG = """
from hier_jax.errors import UserError
from tests.support import training_data

def get_config(preset=None):
  if preset not in (None, 'short'):
    raise UserError(f'unknown preset {preset!r}: expected short')
  return training_data.config(epochs=1)
"""


@pytest.fixture
def config_file(tmp_path, monkeypatch):
  made = training_data.splits(noise=250)
  monkeypatch.setattr(datasets, 'load', lambda name, **_: made)
  shared_programs.use(monkeypatch)
  path = tmp_path / 'config.py'
  path.write_text(CONFIG)
  return path
