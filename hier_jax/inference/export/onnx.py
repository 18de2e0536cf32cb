"""ONNX, by jax2onnx."""

import dataclasses
import functools
import importlib.util
import logging
import pathlib
from collections.abc import Callable, Mapping
from typing import Any, cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax import export, lax
from jax.extend.core import jaxpr_as_fun

from hier_jax.errors import UserError, plain
from hier_jax.inference.export import portable
from hier_jax.inference.export.portable import Usage
from hier_jax.inference.model import Model
from hier_jax.models import resnet

__all__ = ['check', 'write']

_FILE = 'model.onnx'
# Protobuf's limit, less room for the graph itself.
_MOST_BYTES = 2**31 - 2**26

_SNIPPET = """\
import onnxruntime

session = onnxruntime.InferenceSession('{file}')


def embed(images):  # uint8 [b, {size}, {size}, 3] -> [b, {dim}]
  return session.run(['embeddings'], {{'images': images}})[0]
"""


def check() -> None:
  """Raises UserError where a package is missing."""
  missing = [
    name
    for name in ('jax2onnx', 'onnxruntime')
    if importlib.util.find_spec(name) is None
  ]
  if missing:
    raise UserError(
      f"ONNX needs {' and '.join(missing)}: pip install 'hier_jax[onnx]'"
    )


def write(
  model: Model, facts: Mapping[str, Any], folder: pathlib.Path
) -> Usage:
  """Writes the graph, with a batch of any size.

  Raises:
    UserError: the weights are too large for one file, or jax2onnx does not know
      what the model is made of.
  """
  import onnxruntime

  size = sum(leaf.nbytes for leaf in jax.tree.leaves(model.variables))
  if size > _MOST_BYTES:
    raise UserError(
      f'{model.name} has {size / 1e9:.1f} GB of weights, and an ONNX file holds'
      ' 2 GB: take --format safetensors or timm'
    )
  (batch,) = export.symbolic_shape('b')
  images = jax.ShapeDtypeStruct(
    (batch, facts['image_size'], facts['image_size'], 3), jnp.uint8
  )
  # jax2onnx replaces functions of jax.numpy and Flax while it traces, by some
  # that know fewer options: it is given what they have become already.
  traced = jaxpr_as_fun(jax.make_jaxpr(_embed(model))(images))
  graph = _graph(lambda x: traced(x)[0], images)
  for key, value in facts.items():
    graph.metadata_props.add(key=key, value=str(value))
  (folder / _FILE).write_bytes(graph.SerializeToString())
  session = onnxruntime.InferenceSession(folder / _FILE)
  run = lambda x: session.run(['embeddings'], {'images': x})[0]
  return Usage(
    (_FILE,),
    'onnxruntime numpy pillow',
    _SNIPPET.format(file=_FILE, size=facts['image_size'], dim=facts['dim']),
    portable.max_error(model, run),
  )


def _graph(embed: Callable[[jax.Array], jax.Array], images: Any) -> Any:
  """The ONNX model, a protocol buffer."""
  # It warns of its plugins for other libraries, and of shapes it leaves out.
  logging.disable(logging.ERROR)
  functions = dict(vars(jnp))
  try:
    import jax2onnx

    return jax2onnx.to_onnx(
      embed,
      [images],
      model_name='hier_jax',
      input_names=['images'],
      output_names=['embeddings'],
    )
  except NotImplementedError as error:
    raise UserError(
      f'jax2onnx does not know a part of this model ({plain(str(error))}): take'
      ' --format stablehlo'
    ) from error
  finally:
    logging.disable(logging.NOTSET)
    # It leaves jnp.cumsum replaced, which losses then fail with.
    vars(jnp).update(functions)


class _ResNet(resnet.ResNet):
  """A ResNet whose max pooling is by slices.

  jax2onnx pools over images and channels too, which onnxruntime cannot.
  """

  def _max_pool(self, x: jax.Array) -> jax.Array:
    for axis in (1, 2):
      cut = functools.partial(lax.slice_in_dim, axis=axis)
      size = x.shape[axis]
      # A window that has a pixel of the padding has its neighbor too.
      x = jnp.concatenate([cut(x, 0, 1), x, cut(x, size - 1, size)], axis)
      windows = [cut(x, i, size + i, 2) for i in range(3)]
      x = functools.reduce(jnp.maximum, windows)
    return x


def _backbone(module: nn.Module) -> nn.Module:
  """A backbone of what jax2onnx and onnxruntime know."""
  if not isinstance(module, resnet.ResNet):
    return module
  names = [field.name for field in dataclasses.fields(resnet.ResNet)]
  own = {n: getattr(module, n) for n in names if n not in ('parent', 'name')}
  return _ResNet(**own)


def _embed(model: Model) -> Callable[[jax.Array], jax.Array]:
  """The model with a head that ONNX has the operations for."""
  module = portable.module(model)
  variables = {
    kind: tree['backbone']
    for kind, tree in model.variables.items()
    if 'backbone' in tree
  }
  mean, std = (
    np.asarray(x, np.float32).reshape(1, 1, 1, 3)
    for x in (module.mean, module.std)
  )

  backbone = _backbone(module.backbone)

  def embed(images: jax.Array) -> jax.Array:
    pixels = (images.astype(jnp.float32) / 255 - mean) / std
    features = backbone.apply(variables, pixels, train=False)
    return _head(model, cast(jax.Array, features))

  return embed


def _head(model: Model, features: jax.Array) -> jax.Array:
  """What `layers.BallHead` computes, by the formula as it is written."""
  head = portable.head(model)
  if head is None:
    return features
  x, params = features, model.variables['params']['head']
  if head.last_norm:
    x = x - x.mean(-1, keepdims=True)
    x = x / jnp.sqrt(jnp.square(x).mean(-1, keepdims=True) + 1e-5)
  u = x @ params['linear']['kernel'] + params['linear']['bias'][None]
  if head.radial_scale is not None:
    u = u * (np.exp(params['log_radial_scale']) / head.dim**0.5)
  if head.c is None:
    return u / _length(u)
  if head.clip_radius is not None:
    u = u * jnp.minimum(head.clip_radius / (_length(u) + portable.SLACK), 1)
  if head.c == 0:
    return u
  n, s = _length(u), head.c**0.5
  return u * (jnp.minimum(jnp.tanh(s * n), 1 - portable.MARGIN) / (s * n))


def _length(x: jax.Array) -> jax.Array:
  """Lengths `[b, 1]` of rows, none of them 0."""
  squares = jnp.square(x).sum(-1, keepdims=True)
  return jnp.sqrt(jnp.maximum(squares, 1e-24))
