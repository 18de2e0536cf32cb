"""Backbones and what turns their features into embeddings."""

from hier_jax.models.registry import create_backbone
from hier_jax.models.resnet import ResNet
from hier_jax.models.vit import ViT

__all__ = ['ResNet', 'ViT', 'create_backbone']
