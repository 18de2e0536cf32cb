"""Every config file resolves and passes the checks."""

import importlib.util
import pathlib

import pytest

from hier_jax.errors import UserError
from hier_jax.training import config as config_lib

FOLDER = pathlib.Path(__file__).parent.parent / 'experiments' / 'configs'
PRESETS = {'quickstart': [None], 'emoji': ['vit_tiny', 'resnet_thin_wide']}


def load(name):
  spec = importlib.util.spec_from_file_location(name, FOLDER / f'{name}.py')
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def test_every_file_is_listed():
  assert {path.stem for path in FOLDER.glob('*.py')} == set(PRESETS)


@pytest.mark.parametrize(
  ('name', 'preset'),
  [(n, p) for n, presets in PRESETS.items() for p in presets],
)
def test_preset_is_valid(name, preset):
  args = () if preset is None else (preset,)
  config_lib.validate(load(name).get_config(*args))


@pytest.mark.parametrize('name', PRESETS)
def test_unknown_preset_is_named(name):
  with pytest.raises(UserError, match="unknown preset 'huge'"):
    load(name).get_config('huge')
