"""Hierarchical proxies for metric learning in hyperbolic space."""

from hier_jax import losses, poincare, triplets

__all__ = ['losses', 'poincare', 'triplets']
__version__ = '0.1.0'
