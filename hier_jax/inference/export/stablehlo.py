"""StableHLO: a program with its weights, which JAX alone runs."""

import importlib.util
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from hier_jax.errors import UserError
from hier_jax.inference.export import portable
from hier_jax.inference.export.portable import Usage
from hier_jax.inference.model import Model

__all__ = ['PLATFORMS', 'check', 'write']

PLATFORMS = 'cpu', 'cuda', 'tpu'
_FILE = 'model.stablehlo'
# Of the format that holds the program, less room for the program itself.
_MOST_BYTES = 2**31 - 2**26

_SNIPPET = """\
import jax
from jax import export

with open('{file}', 'rb') as file:
  program = export.deserialize(bytearray(file.read()))
embed = jax.jit(program.call)  # uint8 [b, {size}, {size}, 3] -> [b, {dim}]
"""


def check() -> None:
  """Raises UserError where a package is missing."""
  if importlib.util.find_spec('flatbuffers') is None:
    raise UserError(
      'StableHLO needs the package flatbuffers: pip install'
      " 'hier_jax[stablehlo]'"
    )


def write(
  model: Model, facts: Mapping[str, Any], folder: pathlib.Path
) -> Usage:
  """Writes the program for `PLATFORMS`, with a batch of any size.

  Raises:
    UserError: the weights are too large for one file.
  """
  size = sum(leaf.nbytes for leaf in jax.tree.leaves(model.variables))
  if size > _MOST_BYTES:
    raise UserError(
      f'{model.name} has {size / 1e9:.1f} GB of weights, and a StableHLO file'
      ' holds 2 GB: take --format safetensors or timm'
    )
  module = portable.module(model)
  (batch,) = export.symbolic_shape('b')
  images = jax.ShapeDtypeStruct(
    (batch, facts['image_size'], facts['image_size'], 3), jnp.uint8
  )
  # The weights are constants of the program, the same on all platforms.
  embed = jax.jit(lambda x: module.apply(model.variables, x, train=False))
  exported = export.export(embed, platforms=PLATFORMS)(images)
  file = folder / _FILE
  file.write_bytes(exported.serialize())
  program = export.deserialize(bytearray(file.read_bytes()))
  return Usage(
    (_FILE,),
    'jax flatbuffers pillow',
    _SNIPPET.format(file=_FILE, size=facts['image_size'], dim=facts['dim']),
    portable.max_error(model, jax.jit(program.call)),
    (
      'The program runs on CPUs, NVIDIA GPUs and TPUs. It was made with JAX'
      f' {jax.__version__}; JAX reads such files for at least six months after'
      ' its release, and usually for longer.',
    ),
  )
