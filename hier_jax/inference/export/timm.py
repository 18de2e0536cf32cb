"""Weights under timm's names, and the PyTorch code that runs them."""

import pathlib
from collections.abc import Mapping
from typing import Any

from hier_jax.errors import UserError
from hier_jax.inference.export import portable
from hier_jax.inference.export.portable import Usage
from hier_jax.inference.model import Model
from hier_jax.models import resnet, vit
from hier_jax.models.weights import pretrained

__all__ = ['check', 'write']

_FILE = 'model.safetensors'

_VIT = """\
import torch
from safetensors.torch import load_file
from timm.models.{module} import {kind}
{imports}
weights = load_file('{file}')
head = {{k: weights.pop(k) for k in list(weights) if k.startswith('head.')}}
backbone = {kind}(
{arguments}
)
backbone.load_state_dict(weights)
backbone.eval()


def features(x):
  x = backbone.forward_features(x)
{pool}
"""

_RESNET = """\
import torch
from safetensors.torch import load_file
from torch.nn import functional as F

weights = load_file('{file}')
head = weights  # head.* are the head's


def norm(x, name):
  parts = 'running_mean', 'running_var', 'weight', 'bias'
  return F.batch_norm(x, *(weights[f'{{name}}.{{part}}'] for part in parts))


def conv(x, name, stride=1):
  w = weights[f'{{name}}.weight']
  padding = (w.shape[-1] - 1) // 2 if w.shape[-1] % 2 else 0
  return F.conv2d(x, w, stride=stride, padding=padding)


{blur}def block(x, name, stride):
{smooth}  y = x
  for i, step in enumerate({strides}, start=1):
    y = F.relu(y) if i > 1 else y
    y = norm(conv(y, f'{{name}}.conv{{i}}', step), f'{{name}}.bn{{i}}')
  short = f'{{name}}.downsample'
  if f'{{short}}.0.weight' in weights:
    x = norm(conv(x, f'{{short}}.0', stride), f'{{short}}.1')
  return F.relu(x + y)


def features(x):
  x = F.relu(norm(conv(x, 'conv1', {stem}), 'bn1')){max_pool}
  for name, stride in {blocks}:
    x = block(x, name, stride)
  return {pool}
"""

_BLUR = """\
def blurred(x):
  for axis in 2, 3:
    n = x.shape[axis]
    y = torch.cat([x.narrow(axis, 0, 1), x, x.narrow(axis, n - 1, 1)], axis)
    x = (y.narrow(axis, 0, n) + 2 * x + y.narrow(axis, 2, n)) / 4
  return x


"""

_EMBED = """\


@torch.inference_mode()
def embed(images):  # uint8 [b, {size}, {size}, 3] -> [b, {dim}]
  x = torch.as_tensor(images).permute(0, 3, 1, 2) / 255
  mean, std = torch.tensor({mean}), torch.tensor({std})
  x = features((x - mean[:, None, None]) / std[:, None, None])
{head}
"""

_POOLS = {
  'avg_max': 'x.mean((2, 3)) + x.amax((2, 3))',
  'avg': 'x.mean((2, 3))',
  'max': 'x.amax((2, 3))',
  # Channels last, as the head's weights are.
  'flatten': 'x.permute(0, 2, 3, 1).flatten(1)',
}


def check() -> None:
  """All that it needs is installed with hier_jax."""


def write(
  model: Model, facts: Mapping[str, Any], folder: pathlib.Path
) -> Usage:
  """Writes the weights of the backbone and of the head."""
  pretrained.export(
    folder / _FILE, model.variables, architecture=facts['backbone']
  )
  module = portable.module(model)
  if isinstance(module.backbone, vit.ViT):
    code, install = _vit(module.backbone), 'timm torch safetensors pillow'
  elif isinstance(module.backbone, resnet.ResNet):
    code, install = _resnet(module.backbone), 'torch safetensors pillow numpy'
  else:
    raise UserError(f'there is no PyTorch code for {facts["backbone"]}')
  code += _EMBED.format(
    size=facts['image_size'],
    dim=facts['dim'],
    mean=facts['mean'],
    std=facts['std'],
    head=_head(model),
  )
  notes = (
    "The arrays have timm's names, and the head's begin with `head.`. The"
    ' hierarchical proxies are not among them: `--format safetensors` has'
    ' those.',
  )
  return Usage((_FILE,), install, code, None, notes)


def _vit(module: vit.ViT) -> str:
  width = module.width
  arguments: dict[str, float] = {
    'img_size': module.image_size,
    'patch_size': module.patch_size,
    'embed_dim': width,
    'depth': module.depth,
    'num_heads': module.num_heads,
    'num_classes': 0,
  }
  hidden = (module.mlp_width or 4 * width) * (1 + module.swiglu)
  if hidden != 4 * width:
    arguments['mlp_ratio'] = hidden / width
  if module.layer_scale is not None:
    arguments['init_values'] = module.layer_scale
  if module.num_registers:
    arguments |= {'reg_tokens': module.num_registers, 'no_embed_class': True}
  lines = [f'  {name}={value!r},' for name, value in arguments.items()]
  imports = ''
  if module.swiglu:
    imports = 'from timm.layers import SwiGLUPacked\n'
    lines += ['  mlp_layer=SwiGLUPacked,', '  act_layer=torch.nn.SiLU,']
  return _VIT.format(
    file=_FILE,
    module='deit' if module.distilled else 'vision_transformer',
    kind='VisionTransformerDistilled'
    if module.distilled
    else 'VisionTransformer',
    imports=imports,
    arguments='\n'.join(lines),
    pool=_vit_pool(module),
  )


def _vit_pool(module: vit.ViT) -> str:
  token = 'x[:, 0]'
  # 'official' is the mean where a model is not trained.
  if module.deit_token != 'cls':
    token = '(x[:, 0] + x[:, 1]) / 2'
  mean = f'x[:, {1 + module.distilled + module.num_registers}:].mean(1)'
  return {
    'token': f'  return {token}',
    'mean': f'  return {mean}',
    'token_mean': f'  return torch.cat([{token}, {mean}], 1)',
  }[module.pool]


def _resnet(module: resnet.ResNet) -> str:
  blocks = [
    (f'layer{i}.{j}', stride if j == 0 else 1)
    for i, (_, depth, stride) in enumerate(module.stages, start=1)
    for j in range(depth)
  ]
  is_basic = module.block is resnet.BasicBlock
  return _RESNET.format(
    file=_FILE,
    blur=_BLUR if module.blur else '',
    smooth='  x = blurred(x) if stride > 1 else x\n' if module.blur else '',
    strides='(stride, 1)' if is_basic else '(1, stride, 1)',
    stem=module.stem_patch or 2,
    max_pool='' if module.stem_patch else '\n  x = F.max_pool2d(x, 3, 2, 1)',
    blocks=blocks,
    pool=_POOLS[module.pool],
  )


def _head(model: Model) -> str:
  """`layers.BallHead` of features x, by the formula as it is written."""
  head = portable.head(model)
  if head is None:
    return '  return x'
  lines = []
  if head.last_norm:
    lines.append('x = torch.nn.functional.layer_norm(x, x.shape[-1:])')
  lines.append("u = x @ head['head.proj.weight'].T + head['head.proj.bias']")
  if head.radial_scale is not None:
    scale = f"head['head.log_radial_scale'].exp() / {head.dim} ** 0.5"
    lines.append(f'u = u * ({scale})')
  length = 'u.norm(dim=1, keepdim=True).clamp_min(1e-12)'
  if head.c is None:
    lines.append(f'return u / {length}')
  elif head.clip_radius is not None:
    lines += [
      f'clip = {head.clip_radius!r} / ({length} + {portable.SLACK!r})',
      'u = u * clip.clamp_max(1)',
    ]
  if head.c == 0:
    lines.append('return u')
  elif head.c is not None:
    lines += [
      f'n, s = {length}, {head.c!r} ** 0.5',
      f'radius = torch.tanh(s * n).clamp_max({1 - portable.MARGIN!r}) / s',
      'return u * (radius / n)',
    ]
  return '\n'.join(f'  {line}' for line in lines)
