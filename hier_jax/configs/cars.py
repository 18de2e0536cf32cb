"""HIER on Cars-196, as the paper's table has it."""

from ml_collections import ConfigDict

from hier_jax.training.config import presets


def get_config(preset: str = 'dino_vits16') -> ConfigDict:
  """Config of a preset, see `presets`."""
  return presets.get_config('cars', preset)
