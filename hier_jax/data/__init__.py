"""Data sets, samplers, image views and batches, without JAX or a model."""
