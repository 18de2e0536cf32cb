"""HIER on In-Shop Clothes Retrieval, as the paper's table has it."""

from hier_jax.configs.inshop import get_config as get_config
