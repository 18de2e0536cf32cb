"""Backbones, and embedders: a backbone with a head that takes stored pixels."""

import importlib

from hier_jax.models.embedder import Embedder, create
from hier_jax.models.registry import Spec, create_backbone, spec
from hier_jax.models.resnet import ResNet
from hier_jax.models.vit import ViT, resize_pos_embed

__all__ = [
  'Embedder',
  'ResNet',
  'Spec',
  'ViT',
  'create',
  'create_backbone',
  'pretrained',
  'resize_pos_embed',
  'spec',
]


def __getattr__(name: str) -> object:
  # The weights' room knows the models, which do without it.
  if name == 'pretrained':
    return importlib.import_module('hier_jax.models.weights.pretrained')
  raise AttributeError(f'module {__name__!r} has no attribute {name!r}')


def __dir__() -> list[str]:
  return [*__all__, *(name for name in globals() if name.startswith('_'))]
