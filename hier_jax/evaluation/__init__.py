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
from hier_jax.evaluation.tree import proxy_tree
from hier_jax.evaluation.tree_formats import write_tree
from hier_jax.evaluation.tree_linkage import linkage_tree
from hier_jax.evaluation.tree_structure import Tree

__all__ = [
  'PerQuery',
  'Taxonomy',
  'Tree',
  'bootstrap_ci',
  'cluster_metrics',
  'format_table',
  'hierarchy_metrics',
  'lift',
  'linkage_tree',
  'paired_test',
  'per_query',
  'pixel_embedding',
  'proxy_tree',
  'retrieval_metrics',
  'write_tree',
]
