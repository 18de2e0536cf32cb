"""Metric losses and the hierarchical regularizer, as pure functions.

Losses compute in float32, or in float64 for float64 embeddings, and return that
type. Parameters are initialized in float32. A setting that is NaN, infinite, or
not above 0 where it must be, raises ValueError unless JAX traces it.
"""

from hier_jax.losses._bounded_ap import hap, roadmap, sup_ap
from hier_jax.losses._compose import regularized
from hier_jax.losses._hier import hier, init_hier_proxies
from hier_jax.losses._hyp import hyp
from hier_jax.losses._lca import lca
from hier_jax.losses._memory import Memory, enqueue, init_memory
from hier_jax.losses._pairwise import (
  circle,
  contrastive,
  lifted_structure,
  multi_similarity,
  n_pair,
  sup_con,
)
from hier_jax.losses._proxy import init_class_proxies, proxy_anchor
from hier_jax.losses._ranking import recall_at_k, smooth_ap
from hier_jax.losses._softmax import (
  arc_face,
  cos_face,
  normalized_softmax,
  proxy_nca_pp,
  soft_triple,
  sub_center_arc_face,
)
from hier_jax.losses._triplet import triplet

__all__ = [
  'Memory',
  'arc_face',
  'circle',
  'contrastive',
  'cos_face',
  'enqueue',
  'hap',
  'hier',
  'hyp',
  'init_class_proxies',
  'init_hier_proxies',
  'init_memory',
  'lca',
  'lifted_structure',
  'multi_similarity',
  'n_pair',
  'normalized_softmax',
  'proxy_anchor',
  'proxy_nca_pp',
  'recall_at_k',
  'regularized',
  'roadmap',
  'smooth_ap',
  'soft_triple',
  'sub_center_arc_face',
  'sup_ap',
  'sup_con',
  'triplet',
]
