"""HIER on Stanford Online Products, as the paper's table has it."""

from hier_jax.configs.sop import get_config as get_config
