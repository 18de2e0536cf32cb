"""Backbones by name: `<architecture>[.<tag>]`, as timm names them.

An architecture is a row of `resnet.VARIANTS`, or `vit_<size>_patch<P>` or
`deit_<size>[_distilled]_patch<P>`, where size is a row of `vit.VARIANTS` and
patches have P x P pixels. It may end in `_reg<R>` for R register tokens,
`_dinov2`, or the side of its images. A tag names published weights.
"""

import dataclasses
import difflib
import re
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from hier_jax.errors import UserError
from hier_jax.models import resnet, vit

__all__ = ['ALIASES', 'PUBLISHED', 'Spec', 'create_backbone', 'spec']

_HALF = (0.5, 0.5, 0.5)
_IMAGENET_MEAN = (0.485, 0.456, 0.406)
_IMAGENET_STD = (0.229, 0.224, 0.225)
# Tag of weights -> mean and standard deviation of the pixels they expect.
_PIXELS = {
  'augreg_in21k': (_HALF, _HALF),
  'augreg_in21k_ft_in1k': (_HALF, _HALF),
  'dino': (_IMAGENET_MEAN, _IMAGENET_STD),
  'fb_in1k': (_IMAGENET_MEAN, _IMAGENET_STD),
  'lvd142m': (_IMAGENET_MEAN, _IMAGENET_STD),
  'tv_in1k': (_IMAGENET_MEAN, _IMAGENET_STD),
}

_AUGREG = 'augreg_in21k_ft_in1k', 'augreg_in21k'
# Architecture -> tags of its published weights, the one meant by none first.
PUBLISHED: dict[str, tuple[str, ...]] = {
  'vit_tiny_patch16_224': _AUGREG,
  'vit_small_patch16_224': (*_AUGREG, 'dino'),
  'vit_base_patch16_224': (*_AUGREG, 'dino'),
  'vit_large_patch16_224': _AUGREG,
  'vit_small_patch8_224': ('dino',),
  'vit_base_patch8_224': (*_AUGREG, 'dino'),
  **{
    f'deit_{size}{distilled}_patch16_224': ('fb_in1k',)
    for size in ('tiny', 'small', 'base')
    for distilled in ('', '_distilled')
  },
  **{
    f'vit_{size}_patch14{registers}_dinov2': ('lvd142m',)
    for size in ('small', 'base', 'large', 'giant')
    for registers in ('', '_reg4')
  },
  'resnet50': ('tv_in1k',),
}
# Names of the authors' own -> ours.
ALIASES = {
  'dino_vits16': 'vit_small_patch16_224.dino',
  'dino_vits8': 'vit_small_patch8_224.dino',
  'dino_vitb16': 'vit_base_patch16_224.dino',
  'dino_vitb8': 'vit_base_patch8_224.dino',
  'dinov2_vits14': 'vit_small_patch14_dinov2.lvd142m',
  'dinov2_vitb14': 'vit_base_patch14_dinov2.lvd142m',
  'dinov2_vitl14': 'vit_large_patch14_dinov2.lvd142m',
  'dinov2_vitg14': 'vit_giant_patch14_dinov2.lvd142m',
}
# What names are like, for a message about one that is like none.
_EXAMPLES = 'vit_small_patch16_224.dino', 'dino_vits16', 'resnet50'
_VIT = re.compile(
  r'(?P<family>vit|deit)_(?P<size>[a-z]+)(?P<distilled>_distilled)?'
  r'_patch(?P<patch>[1-9]\d*)(_reg(?P<registers>[1-9]\d*))?'
  r'((?P<dinov2>_dinov2)|_(?P<image_size>[1-9]\d*))?'
)


@dataclasses.dataclass(frozen=True)
class Spec:
  """What the name of a backbone stands for.

  Attributes:
    architecture: the name without its tag.
    tag: tag of published weights; None for an architecture that has none.
    image_size: side in pixels of the images that it was made for.
    mean: per-channel mean of the pixels in [0, 1] that it expects.
    std: per-channel standard deviation of these pixels.
    hub: repository of the weights on the Hugging Face hub, or None.
  """

  architecture: str
  tag: str | None
  image_size: int
  mean: tuple[float, float, float]
  std: tuple[float, float, float]
  hub: str | None


def spec(name: str) -> Spec:
  """Looks a name or alias up.

  Args:
    name: `<architecture>[.<tag>]` or an alias, see `create_backbone`.

  Raises:
    UserError: there is no such backbone or tag.

  Example:
    >>> from hier_jax import models
    >>> made_for = models.spec('dino_vits16')
    >>> made_for.architecture, made_for.tag, made_for.image_size
    ('vit_small_patch16_224', 'dino', 224)
  """
  architecture, _, tag = ALIASES.get(name, name).partition('.')
  fields = _fields(name, architecture)
  tags = PUBLISHED.get(architecture, ())
  if tag and tag not in tags:
    raise UserError(
      f'backbone {architecture!r} has no weights {tag!r}; it has'
      f' {", ".join(f"{architecture}.{t}" for t in tags) or "none"}'
    )
  tag = tag or next(iter(tags), '')
  mean, std = _PIXELS.get(tag, (_HALF, _HALF))
  return Spec(
    architecture=architecture,
    tag=tag or None,
    image_size=fields.get('image_size', 224),
    mean=mean,
    std=std,
    hub=f'timm/{architecture}.{tag}' if tag else None,
  )


def create_backbone(
  name: str,
  *,
  image_size: int | None = None,
  pool: str | None = None,
  depth: int | None = None,
  deit_token: str | None = None,
  drop_path: float | None = None,
  frozen_stats: bool | None = None,
  remat: bool | None = None,
  scan_blocks: bool | None = None,
  token_multiple: int | None = None,
  dtype: DTypeLike = jnp.float32,
  axis_name: str | None = None,
) -> nn.Module:
  """Makes a backbone by its name; its parameters are then drawn or loaded.

  Args:
    name: `<architecture>[.<tag>]` or an alias: 'vit_small_patch16_224.dino',
      'dino_vits16', 'resnet50.tv_in1k', 'vit_tiny_patch4', 'resnet_thin'.
    image_size: side of the training images in pixels, for which a ViT's
      position embeddings are made; None for the size in the name.
    pool: how tokens or pixels become features, see `ViT` and `ResNet`. For this
      and all options up to `token_multiple`, None means the default of the
      name.
    depth: number of blocks of a ViT.
    deit_token: which token of a distilled ViT gives the features, see `ViT`.
    drop_path: rate of stochastic depth of a ViT in training.
    frozen_stats: whether a ResNet's BatchNorm keeps its running statistics.
    remat: whether the backward pass recomputes blocks to save memory.
    scan_blocks: whether a ViT's blocks are one loop, a shorter program.
    token_multiple: a ViT pads its tokens to a multiple of this number.
    dtype: dtype of the computation; parameters and features are float32.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    A module called as `(images [b, H, W, 3], *, train) -> [b, F]` float32.

  Raises:
    UserError: there is no such backbone or tag, or the backbone lacks the
      option.

  Example:
    >>> import jax
    >>> from hier_jax import models
    >>> vit = models.create_backbone('vit_test_patch4', image_size=16)
    >>> key, images = jax.random.key(0), jax.numpy.zeros((2, 16, 16, 3))
    >>> features, _ = vit.init_with_output(key, images, train=False)
    >>> features.shape
    (2, 32)
  """
  options = {
    'pool': pool,
    'depth': depth,
    'deit_token': deit_token,
    'drop_path': drop_path,
    'frozen_stats': frozen_stats,
    'remat': remat,
    'scan_blocks': scan_blocks,
    'token_multiple': token_multiple,
  }
  made_for = spec(name)
  fields = _fields(name, made_for.architecture)
  if 'stages' in fields:
    kind: type[nn.Module] = resnet.ResNet
  else:
    kind = vit.ViT
    fields['image_size'] = image_size or made_for.image_size
  given = {key: value for key, value in options.items() if value is not None}
  attributes = {f.name for f in dataclasses.fields(kind)}
  known = [key for key in options if key in attributes]
  unknown = sorted(set(given) - set(known))
  if unknown:
    raise UserError(
      f'backbone {name!r} has no option {", ".join(map(repr, unknown))}; it'
      f' has {", ".join(known)}'
    )
  return kind(
    **{**fields, **given}, dtype=dtype, axis_name=axis_name, made_as=name
  )


def _fields(name: str, architecture: str) -> dict[str, Any]:
  """The attributes that an architecture sets."""
  if architecture in resnet.VARIANTS:
    return dict(resnet.VARIANTS[architecture])
  match = _VIT.fullmatch(architecture)
  if not match or match['size'] not in vit.VARIANTS:
    sizes = [f'vit_{size}_patch16' for size in vit.VARIANTS]
    known = [*resnet.VARIANTS, *sizes, *PUBLISHED, *ALIASES]
    raise UserError(
      f'there is no backbone {name!r}; {_did_you_mean(name, known)} (any number'
      ' may follow "patch")'
    )
  fields = vit.VARIANTS[match['size']] | {'patch_size': int(match['patch'])}
  if match['distilled']:
    fields['distilled'] = True
  if match['registers']:
    fields['num_registers'] = int(match['registers'])
  if match['dinov2']:
    fields |= {'layer_scale': 1e-5, 'image_size': 518}
  if match['image_size']:
    fields['image_size'] = int(match['image_size'])
  return fields


def _did_you_mean(name: str, known: Iterable[str]) -> str:
  """The names that are like another, else examples of what names are like."""
  close = difflib.get_close_matches(name, list(dict.fromkeys(known)))
  if close:
    return f'did you mean {" or ".join(close)}?'
  return (
    f'expected one such as {", ".join(_EXAMPLES)};'
    ' hier_jax/models/registry.py lists all'
  )
