"""HIER and Proxy-Anchor on Emoji, from scratch, in minutes on two CPU cores."""

from hier_jax.configs.quickstart import get_config as get_config
