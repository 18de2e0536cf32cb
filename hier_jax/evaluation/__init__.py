"""Retrieval figures of embeddings, on plain arrays."""

from hier_jax.evaluation.baselines import pixel_embedding
from hier_jax.evaluation.retrieval import (
  PerQuery,
  lift,
  per_query,
  retrieval_metrics,
)
from hier_jax.evaluation.table import format_table

__all__ = [
  'PerQuery',
  'format_table',
  'lift',
  'per_query',
  'pixel_embedding',
  'retrieval_metrics',
]
