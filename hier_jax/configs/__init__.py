"""Configs by name: `hier-jax train --config NAME[:PRESET]` runs NAME.py."""
