"""A plain ViT in PyTorch: what `step.backbones` measures ours beside."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional


class Block(nn.Module):
  """Pre-norm block, as PyTorch's users write it."""

  def __init__(self, width, heads):
    super().__init__()
    self.heads = heads
    self.norm1 = nn.LayerNorm(width, eps=1e-6)
    self.qkv = nn.Linear(width, 3 * width)
    self.proj = nn.Linear(width, width)
    self.norm2 = nn.LayerNorm(width, eps=1e-6)
    self.fc1 = nn.Linear(width, 4 * width)
    self.fc2 = nn.Linear(4 * width, width)

  def forward(self, x):
    """Tokens `[b, n, width]` to tokens."""
    b, n, width = x.shape
    qkv = self.qkv(self.norm1(x)).reshape(b, n, 3, self.heads, -1)
    q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind()
    y = functional.scaled_dot_product_attention(q, k, v)
    x = x + self.proj(y.transpose(1, 2).reshape(b, n, width))
    return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class ViT(nn.Module):
  """Images `[b, 3, H, W]` to class tokens `[b, width]`."""

  def __init__(self, model):
    super().__init__()
    width, patch = model.width, model.patch_size
    tokens = 1 + (model.image_size // patch) ** 2
    self.patch_embed = nn.Conv2d(3, width, patch, patch)
    self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
    self.pos_embed = nn.Parameter(torch.zeros(1, tokens, width))
    self.blocks = nn.ModuleList(
      Block(width, model.num_heads) for _ in range(model.depth)
    )
    self.norm = nn.LayerNorm(width, eps=1e-6)

  def forward(self, images):
    """The class token after the final norm."""
    x = self.patch_embed(images).flatten(2).transpose(1, 2)
    x = torch.cat([self.cls_token.expand(len(x), -1, -1), x], 1)
    x = x + self.pos_embed
    for block in self.blocks:
      x = block(x)
    return self.norm(x)[:, 0]


def same_as(model, params):
  """The ViT with the parameters of a `hier_jax.models.ViT`.

  Args:
    model: one without DeiT's and DINOv2's additions.
    params: its parameters.
  """
  made = ViT(model)
  with torch.no_grad():
    _fill(made, params)
    for i, block in enumerate(made.blocks):
      ours = params[f'block{i}']
      _fill(block, ours | ours['attn'] | ours['mlp'])
  return made


def _fill(module, ours):
  for name, parameter in module.named_parameters(recurse=False):
    parameter.copy_(_tensor(ours[name]))
  for name, child in module.named_children():
    if isinstance(child, nn.LayerNorm):
      child.weight.copy_(_tensor(ours[name]['scale']))
    elif isinstance(child, nn.Linear):
      child.weight.copy_(_tensor(ours[name]['kernel']).T)
    elif isinstance(child, nn.Conv2d):
      child.weight.copy_(_tensor(ours[name]['kernel']).permute(3, 2, 0, 1))
    else:
      continue
    child.bias.copy_(_tensor(ours[name]['bias']))


def _tensor(array):
  return torch.tensor(np.asarray(array))
