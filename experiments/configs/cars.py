"""HIER on Cars-196, as the paper's table has it."""

from hier_jax.configs.cars import get_config as get_config
