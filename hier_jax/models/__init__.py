"""Backbones and what turns their features into embeddings."""

from hier_jax.models.registry import Spec, create, spec
from hier_jax.models.resnet import ResNet
from hier_jax.models.vit import ViT, resize_pos_embed

__all__ = ['ResNet', 'Spec', 'ViT', 'create', 'resize_pos_embed', 'spec']
