"""A training step, its backbone and its input."""
