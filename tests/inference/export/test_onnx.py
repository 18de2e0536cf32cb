"""ONNX models, run by onnxruntime."""

import jax.numpy as jnp
import pytest

from hier_jax.inference import export
from tests.support import exported

pytestmark = pytest.mark.slow
for package in ('jax2onnx', 'onnxruntime'):
  pytest.importorskip(package, reason=f'{package} is of the extra onnx')


@pytest.mark.parametrize(
  ('backbone', 'options'),
  [
    ('resnet_test', {}),
    ('resnet_thin_blur', {'pool': 'flatten'}),
    ('resnet50', {'c': None, 'size': 64}),
    ('vit_test_patch4', {'c': 1.0, 'clip_radius': None}),
    ('vit_test_patch4_reg2', {'c': 0, 'last_norm': False, 'pool': 'mean'}),
    ('deit_test_distilled_patch4', {'radial_scale': 1.5}),
  ],
)
def test_onnx_embeds_as_we_do(tmp_path, backbone, options):
  model = exported.drawn(backbone, **options)
  functions = dict(vars(jnp))
  made = export.write(model, tmp_path / 'a', format='onnx')
  # Whoever goes on in this process has the same JAX.
  assert all(vars(jnp)[name] is f for name, f in functions.items())
  assert made.max_error < 1e-4
  without = ['hier_jax', 'jax']
  assert exported.largest_error(model, made.folder, without=without) < 1e-4
