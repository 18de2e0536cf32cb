"""HIER on CUB-200-2011, as the paper's table has it."""

from hier_jax.training.config import presets


def get_config(preset='dino_vits16'):
  """Config of a preset, see `presets`."""
  return presets.get_config('cub', preset)
