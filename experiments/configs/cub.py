"""HIER on CUB-200-2011, as the paper's table has it."""

from hier_jax.configs.cub import get_config as get_config
