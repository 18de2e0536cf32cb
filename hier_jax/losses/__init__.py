"""Metric losses and the hierarchical regulariser, as pure functions."""

from hier_jax.losses.hier import hier, init_hierarchical_proxies, lca_loss
from hier_jax.losses.proxy import init_class_proxies, proxy_anchor

__all__ = [
  'hier',
  'init_class_proxies',
  'init_hierarchical_proxies',
  'lca_loss',
  'proxy_anchor',
]
