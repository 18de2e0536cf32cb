"""Programs that JAX alone runs."""

import jax
import pytest

from hier_jax.errors import UserError
from hier_jax.inference import export
from hier_jax.inference import model as model_lib
from hier_jax.inference.export import stablehlo
from tests.support import exported

pytest.importorskip('flatbuffers')


def test_a_run_without_hier_jax(trained, tmp_path):
  model = model_lib.open_model(trained[0])
  made = export.write(model, tmp_path / 'a', format='stablehlo')
  assert made.max_error < 1e-5
  without = ['hier_jax', 'flax', 'optax', 'orbax']
  assert exported.largest_error(model, made.folder, without=without) < 1e-5


@pytest.mark.parametrize(
  ('backbone', 'options'),
  [
    ('resnet_test', {}),
    ('resnet_test', {'c': None, 'dtype': 'bfloat16'}),
    ('vit_test_patch4', {'c': 0, 'token_multiple': 8}),
  ],
)
def test_the_program_is_for_all_platforms(tmp_path, backbone, options):
  model = exported.drawn(backbone, **options)
  made = export.write(model, tmp_path / 'a', format='stablehlo')
  # A run in bfloat16 is exported in float32.
  assert made.max_error < (0.05 if 'dtype' in options else 1e-5)
  data = (made.folder / 'model.stablehlo').read_bytes()
  program = jax.export.deserialize(bytearray(data))
  assert program.platforms == ('cpu', 'cuda', 'tpu')
  text = program.mlir_module()
  assert 'bf16' not in text and 'cudnn' not in text
  (images,), (rows,) = program.in_avals, program.out_avals
  assert str(images.shape) == '(b, 16, 16, 3)' and images.dtype == 'uint8'
  assert str(rows.shape) == '(b, 8)' and rows.dtype == 'float32'


def test_weights_that_are_too_large(tmp_path, monkeypatch):
  monkeypatch.setattr(stablehlo, '_MOST_BYTES', 1000)
  model = exported.drawn('resnet_test')
  with pytest.raises(UserError, match='take --format safetensors or timm'):
    export.write(model, tmp_path / 'a', format='stablehlo')
  assert not list(tmp_path.iterdir())
