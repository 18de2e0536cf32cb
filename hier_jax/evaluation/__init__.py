"""Figures of retrieval and of hierarchy, on plain arrays."""

from hier_jax.evaluation.baselines import pixel_embedding
from hier_jax.evaluation.clustering import cluster_metrics
from hier_jax.evaluation.hierarchy import hierarchy_metrics
from hier_jax.evaluation.retrieval import (
  PerQuery,
  lift,
  per_query,
  retrieval_metrics,
)
from hier_jax.evaluation.statistics import bootstrap_ci, paired_test
from hier_jax.evaluation.table import format_table
from hier_jax.evaluation.taxonomy import Taxonomy

__all__ = [
  'PerQuery',
  'Taxonomy',
  'bootstrap_ci',
  'cluster_metrics',
  'format_table',
  'hierarchy_metrics',
  'lift',
  'paired_test',
  'per_query',
  'pixel_embedding',
  'retrieval_metrics',
]
