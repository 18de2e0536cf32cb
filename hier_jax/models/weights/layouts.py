"""How others name and lay out the parameters that a backbone here has.

`LAYOUTS` is the one table: for each way of naming, one row a parameter of ours
says which arrays of a file it is made of and how. Reading follows the rows from
left to right; `TIMM`'s are also followed from right to left, by which a trained
backbone goes back to PyTorch.
"""

import functools
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

__all__ = ['LAYOUTS', 'OURS', 'TIMM', 'Layout', 'Row', 'Transform', 'detect']


class Transform(NamedTuple):
  """What happens to the arrays of a row on their way in.

  Attributes:
    load: from the arrays of a file to ours.
    axes: the transposition that `load` is; None where it is anything else.
  """

  load: Callable[..., np.ndarray]
  axes: tuple[int, ...] | None = None

  def save(self, array: np.ndarray) -> np.ndarray:
    """The inverse of a transposition."""
    assert self.axes is not None
    return array.transpose(np.argsort(self.axes)) if self.axes else array


def _transposed(*axes: int) -> Transform:
  return Transform(lambda array: array.transpose(axes), axes)


def _joined(convert: Callable[[np.ndarray], np.ndarray]) -> Transform:
  """Several arrays, each converted, one after the other along the outputs."""
  return Transform(
    lambda *arrays: np.concatenate([convert(a) for a in arrays], axis=-1)
  )


KEEP = Transform(lambda array: array, ())
# PyTorch's layers hold [outputs, inputs] and [outputs, inputs, rows, columns].
LINEAR = _transposed(1, 0)
CONV = _transposed(2, 3, 1, 0)
# Queries, keys and values apart, there and in Flax (by heads).
QKV_LINEAR = _joined(np.transpose)
QKV_BIAS = _joined(np.ravel)
QKV_HEADS = _joined(lambda array: array.reshape(len(array), -1))
OUT_HEADS = Transform(lambda array: array.reshape(-1, array.shape[-1]))


class Row(NamedTuple):
  """One parameter of ours.

  Attributes:
    target: its path, its collection first, with `{i}` and the like for numbers.
    sources: names of the arrays that make it, with the same numbers.
    transform: how.
  """

  target: str
  sources: tuple[str, ...]
  transform: Transform = KEEP


class Layout(NamedTuple):
  """A way of naming and laying out parameters.

  Attributes:
    name: what it is called in messages.
    rows: one a parameter, or kind of parameter with numbers in its path.
    prefix: a regular expression of what may stand before the names of a file.
    dropped: a regular expression of the names that have no place here, such as
      the names of a classifier.
  """

  name: str
  rows: tuple[Row, ...]
  prefix: str = r'(?!)'
  dropped: str = r'(?!)'

  def bare(self, name: str) -> str:
    """A name in a file without what stands before it."""
    return re.sub(self.prefix, '', name, count=1)

  def row(self, target: str) -> Row | None:
    """The row of a path of ours, its numbers filled in."""
    for row in self.rows:
      match = _pattern(row.target).fullmatch(target)
      if match:
        sources = tuple(s.format(**match.groupdict()) for s in row.sources)
        return Row(target, sources, row.transform)
    return None

  def knows(self, name: str) -> bool:
    """Whether a name in a file is that of a parameter."""
    bare = self.bare(name)
    return any(
      _pattern(source).fullmatch(bare)
      for row in self.rows
      for source in row.sources
    )

  def drops(self, name: str) -> bool:
    """Whether a name in a file is left out knowingly."""
    return re.fullmatch(self.dropped, self.bare(name)) is not None


@functools.cache
def _pattern(template: str) -> re.Pattern[str]:
  """A regular expression of what a template stands for."""
  return re.compile(re.sub(r'\\{(\w)\\}', r'(?P<\1>\\d+)', re.escape(template)))


def _layer(
  target: str, source: str, transform: Transform = LINEAR
) -> tuple[Row, ...]:
  """A dense layer or a convolution of PyTorch."""
  return (
    Row(f'params/{target}/kernel', (f'{source}.weight',), transform),
    Row(f'params/{target}/bias', (f'{source}.bias',)),
  )


def _norm(target: str, source: str) -> tuple[Row, ...]:
  """A layer norm of PyTorch."""
  return (
    Row(f'params/{target}/scale', (f'{source}.weight',)),
    Row(f'params/{target}/bias', (f'{source}.bias',)),
  )


def _scales(source: str) -> tuple[Row, ...]:
  """Layer scales, `{n}` being 1 and 2."""
  return tuple(
    Row(f'params/block{{i}}/ls{n}', (source.replace('{n}', str(n)),))
    for n in (1, 2)
  )


def _timm_vit(
  fc1: str = 'fc1', fc2: str = 'fc2', registers: str = 'reg_token'
) -> tuple[Row, ...]:
  return (
    *_layer('patch_embed', 'patch_embed.proj', CONV),
    Row('params/cls_token', ('cls_token',)),
    Row('params/dist_token', ('dist_token',)),
    Row('params/reg_token', (registers,)),
    Row('params/pos_embed', ('pos_embed',)),
    *_norm('block{i}/norm1', 'blocks.{i}.norm1'),
    *_layer('block{i}/attn/qkv', 'blocks.{i}.attn.qkv'),
    *_layer('block{i}/attn/proj', 'blocks.{i}.attn.proj'),
    *_norm('block{i}/norm2', 'blocks.{i}.norm2'),
    *_layer('block{i}/mlp/fc1', f'blocks.{{i}}.mlp.{fc1}'),
    *_layer('block{i}/mlp/fc2', f'blocks.{{i}}.mlp.{fc2}'),
    *_scales('blocks.{i}.ls{n}.gamma'),
    *_norm('norm', 'norm'),
  )


def _batch_norm(target: str, source: str) -> tuple[Row, ...]:
  return (
    *_norm(target, source),
    Row(f'batch_stats/{target}/mean', (f'{source}.running_mean',)),
    Row(f'batch_stats/{target}/var', (f'{source}.running_var',)),
  )


def _convolution(target: str, source: str) -> tuple[Row, ...]:
  return (Row(f'params/{target}/kernel', (f'{source}.weight',), CONV),)


def _resnet() -> tuple[Row, ...]:
  block, ours = 'layer{i}.{j}', 'layer{i}_{j}'
  return (
    *_convolution('conv1', 'conv1'),
    *_batch_norm('bn1', 'bn1'),
    *_convolution(f'{ours}/conv{{k}}', f'{block}.conv{{k}}'),
    *_batch_norm(f'{ours}/bn{{k}}', f'{block}.bn{{k}}'),
    *_convolution(f'{ours}/downsample_conv', f'{block}.downsample.0'),
    *_batch_norm(f'{ours}/downsample_bn', f'{block}.downsample.1'),
  )


def _qkv(
  source: str, kernel: Transform, bias: Transform, weights: str, biases: str
) -> tuple[Row, ...]:
  """Queries, keys and values that a file holds apart."""
  names = [source.format(x=x, i='{i}') for x in ('query', 'key', 'value')]
  target = 'params/block{i}/attn/qkv'
  return (
    Row(f'{target}/kernel', tuple(f'{n}{weights}' for n in names), kernel),
    Row(f'{target}/bias', tuple(f'{n}{biases}' for n in names), bias),
  )


def _hf(norm1: str, norm2: str, fc1: str, fc2: str) -> tuple[Row, ...]:
  """Of transformers' ViT, DeiT and Dinov2, as its files name them."""
  block = 'encoder.layer.{i}'
  attention = f'{block}.attention.attention.{{x}}'
  embed = 'embeddings'
  return (
    *_layer('patch_embed', f'{embed}.patch_embeddings.projection', CONV),
    Row('params/cls_token', (f'{embed}.cls_token',)),
    Row('params/dist_token', (f'{embed}.distillation_token',)),
    Row('params/reg_token', (f'{embed}.register_tokens',)),
    Row('params/pos_embed', (f'{embed}.position_embeddings',)),
    *_norm('block{i}/norm1', f'{block}.{norm1}'),
    *_qkv(attention, QKV_LINEAR, QKV_BIAS, '.weight', '.bias'),
    *_layer('block{i}/attn/proj', f'{block}.attention.output.dense'),
    *_norm('block{i}/norm2', f'{block}.{norm2}'),
    *_layer('block{i}/mlp/fc1', f'{block}.{fc1}'),
    *_layer('block{i}/mlp/fc2', f'{block}.{fc2}'),
    *_scales(f'{block}.layer_scale{{n}}.lambda1'),
    *_norm('norm', 'layernorm'),
  )


def _flax(
  target: str, source: str, transform: Transform = KEEP, kind: str = 'kernel'
) -> tuple[Row, ...]:
  return tuple(
    Row(f'params/{target}/{leaf}', (f'{source}/{leaf}',), how)
    for leaf, how in ((kind, transform), ('bias', KEEP))
  )


def _big_vision(
  attention: int, norm2: int, mlp: int, pos_embed: str
) -> tuple[Row, ...]:
  """Of Flax ViTs: the numbers that Flax gave to the parts of a block."""
  block = 'Transformer/encoderblock_{i}'
  attend = f'{block}/MultiHeadDotProductAttention_{attention}'
  return (
    *_flax('patch_embed', 'embedding'),
    Row('params/cls_token', ('cls',)),
    Row('params/pos_embed', (pos_embed,)),
    *_flax('block{i}/norm1', f'{block}/LayerNorm_0', kind='scale'),
    *_qkv(f'{attend}/{{x}}', QKV_HEADS, QKV_BIAS, '/kernel', '/bias'),
    *_flax('block{i}/attn/proj', f'{attend}/out', OUT_HEADS),
    *_flax('block{i}/norm2', f'{block}/LayerNorm_{norm2}', kind='scale'),
    *_flax('block{i}/mlp/fc1', f'{block}/MlpBlock_{mlp}/Dense_0'),
    *_flax('block{i}/mlp/fc2', f'{block}/MlpBlock_{mlp}/Dense_1'),
    *_flax('norm', 'Transformer/encoder_norm', kind='scale'),
  )


_ours = functools.partial(
  Layout,
  prefix=r'(?<=^params/)backbone/|(?<=^batch_stats/)backbone/',
  # An exported run has hierarchical proxies.
  dropped=r'params/head/.*|hier_proxies',
)
_torch = functools.partial(
  Layout,
  # Of wrappers for many devices, and of DINO's training runs.
  prefix=r'^(module\.)?(backbone\.)?',
  dropped=r'(head|head_dist|fc|pre_logits)\..*|mask_token'
  r'|.*\.num_batches_tracked',
)
_transformers = functools.partial(
  Layout,
  prefix=r'^(vit|deit|dinov2|dinov2_with_registers)\.',
  dropped=r'((cls_|distillation_)?classifier|pooler)\..*'
  r'|embeddings\.mask_token',
)
_flax_vit = functools.partial(
  Layout,
  prefix=r'^(opt/target/|params/)(img/)?',
  dropped=r'(head|pre_logits)/.*',
)

# Under these names there are timm's ViTs, DeiTs and ResNets, DINO's, DeiT's and
# DINOv2's own, and torchvision's.
TIMM = _torch('timm', (*_timm_vit(), *_resnet()))
OURS = _ours('hier_jax', tuple(Row(r.target, (r.target,)) for r in TIMM.rows))
_PRE_NORM = 'layernorm_before', 'layernorm_after'
LAYOUTS = (
  TIMM,
  OURS,
  _torch('DINOv2', _timm_vit(registers='register_tokens')),
  _torch('DINOv2 giant', _timm_vit('w12', 'w3', 'register_tokens')),
  _transformers(
    'transformers ViT',
    _hf(*_PRE_NORM, 'intermediate.dense', 'output.dense'),
  ),
  _transformers(
    'transformers Dinov2', _hf('norm1', 'norm2', 'mlp.fc1', 'mlp.fc2')
  ),
  _transformers(
    'transformers Dinov2 giant',
    _hf('norm1', 'norm2', 'mlp.weights_in', 'mlp.weights_out'),
  ),
  _flax_vit(
    'AugReg',
    _big_vision(1, 2, 3, 'Transformer/posembed_input/pos_embedding'),
  ),
  _flax_vit('big_vision', _big_vision(0, 1, 0, 'pos_embedding')),
)


def detect(names: Iterable[str]) -> Layout | None:
  """The layout that knows the most of the names in a file, or None."""
  names = list(names)

  def known(layout: Layout) -> int:
    return sum(layout.knows(name) for name in names)

  best = max(LAYOUTS, key=known)
  return best if known(best) else None
