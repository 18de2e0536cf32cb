import numpy as np
import pytest

from experiments.study import weights
from hier_jax.errors import UserError

BIAS = 'backbone.encoder.layer.0.mlp.fc1.bias'
CLASS, PATCHES = np.zeros((1, 1, 384)), np.ones((1, 9, 384))


def graph(**more):
  arrays = {
    BIAS: np.arange(3.0),
    'backbone.layernorm.weight': np.ones(2),
    'onnx::MatMul_7': np.arange(6.0).reshape(2, 3),
    'onnx::Concat_1': PATCHES,
    'onnx::Reshape_2': CLASS,
    'head.bias': np.ones(3),
  } | more
  nodes = [
    ('MatMul', ['x', 'onnx::MatMul_7'], ['y']),
    ('Add', [BIAS, 'y'], ['z']),
    ('Add', ['z', 'x'], ['out']),
  ]
  return arrays, nodes


def test_kernels_are_found_by_their_biases():
  found = weights.named(*graph())
  kernel = found['encoder.layer.0.mlp.fc1.weight']
  np.testing.assert_array_equal(kernel, [[0, 3], [1, 4], [2, 5]])
  assert 'layernorm.weight' in found and 'head.bias' not in found
  position = found['embeddings.position_embeddings']
  assert position.shape == (1, 10, 384) and not position[0, 0].any()
  assert all(a.flags.c_contiguous for a in found.values())


def test_other_graph_is_refused():
  arrays, nodes = graph()
  del arrays['onnx::Concat_1']
  with pytest.raises(UserError, match='no position embedding'):
    weights.named(arrays, nodes)
