"""Metric losses and the hierarchical regulariser, as pure functions."""

from hier_jax.losses.hier import hier, init_hierarchical_proxies, lca_loss
from hier_jax.losses.pairwise import (
  circle,
  contrastive,
  hyp,
  lifted_structure,
  multi_similarity,
  sup_con,
  triplet,
)
from hier_jax.losses.proxy import (
  arc_face,
  cos_face,
  init_class_proxies,
  normalized_softmax,
  proxy_anchor,
  proxy_nca_pp,
  soft_triple,
  sub_center_arc_face,
)

__all__ = [
  'arc_face',
  'circle',
  'contrastive',
  'cos_face',
  'hier',
  'hyp',
  'init_class_proxies',
  'init_hierarchical_proxies',
  'lca_loss',
  'lifted_structure',
  'multi_similarity',
  'normalized_softmax',
  'proxy_anchor',
  'proxy_nca_pp',
  'soft_triple',
  'sub_center_arc_face',
  'sup_con',
  'triplet',
]
