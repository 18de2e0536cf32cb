"""Data sets, samplers, image views and batches; knows no JAX and no model."""
