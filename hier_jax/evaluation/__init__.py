"""Metrics of retrieval and of hierarchy, on plain arrays."""

from hier_jax.evaluation.baselines import pixel_embedding
from hier_jax.evaluation.centroids import class_centroids
from hier_jax.evaluation.clustering import cluster_metrics
from hier_jax.evaluation.collection import Collection
from hier_jax.evaluation.hierarchy.metrics import hierarchy_metrics
from hier_jax.evaluation.retrieval.faiss_index import read_faiss, write_faiss
from hier_jax.evaluation.retrieval.lift import Lift, lift
from hier_jax.evaluation.retrieval.metrics import retrieval_metrics
from hier_jax.evaluation.retrieval.nearest import nearest
from hier_jax.evaluation.retrieval.per_query import PerQuery, per_query
from hier_jax.evaluation.statistics import bootstrap_ci, paired_test, wilson
from hier_jax.evaluation.table import format_table
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.cut import cut_tree
from hier_jax.evaluation.tree.formats import write_tree
from hier_jax.evaluation.tree.linkage import linkage_tree
from hier_jax.evaluation.tree.proxies import proxy_tree
from hier_jax.evaluation.tree.purity import dendrogram_purity
from hier_jax.evaluation.tree.structure import Tree

__all__ = [
  'Collection',
  'Lift',
  'PerQuery',
  'Taxonomy',
  'Tree',
  'bootstrap_ci',
  'class_centroids',
  'cluster_metrics',
  'cut_tree',
  'dendrogram_purity',
  'format_table',
  'hierarchy_metrics',
  'lift',
  'linkage_tree',
  'nearest',
  'paired_test',
  'per_query',
  'pixel_embedding',
  'proxy_tree',
  'read_faiss',
  'retrieval_metrics',
  'wilson',
  'write_faiss',
  'write_tree',
]
