"""HIER on Emoji, for accelerators: from scratch, or as the paper trains."""

from hier_jax.configs.emoji import get_config as get_config
