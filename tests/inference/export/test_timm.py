"""Weights under timm's names, run by the PyTorch code of their card."""

import numpy as np
import pytest
import safetensors.numpy

from hier_jax.inference import export
from hier_jax.models import vit
from tests.support import exported


def check(tmp_path, backbone, options):
  pytest.importorskip('torch', reason='torch is of the extra parity')
  model = exported.drawn(backbone, **options)
  made = export.write(model, tmp_path / 'a', format='timm')
  error = exported.largest_error(model, made.folder, without=['hier_jax'])
  assert error < 1e-5
  # Besides what all cards have.
  mine = exported.code(made.folder).partition('def view(')[0]
  assert sum(map(bool, mine.splitlines())) < 50


# PyTorch alone takes seconds to import.
@pytest.mark.slow
@pytest.mark.parametrize(
  ('backbone', 'options'),
  [
    ('resnet_test', {}),
    ('resnet_thin', {'c': None, 'pool': 'max'}),
    ('resnet_test', {'c': 0, 'pool': 'avg', 'clip_radius': None}),
    ('resnet_test', {'c': None, 'pool': 'flatten'}),
    ('resnet_thin_blur', {'c': 0.1}),
    ('resnet50', {'c': 1.0, 'radial_scale': 1.5, 'size': 64}),
  ],
)
def test_a_resnet_needs_torch_alone(tmp_path, backbone, options):
  check(tmp_path, backbone, options)


# PyTorch alone takes seconds to import.
@pytest.mark.slow
@pytest.mark.parametrize(
  ('backbone', 'options'),
  [
    ('vit_test_patch4', {}),
    ('vit_test_patch4', {'c': 1.0, 'clip_radius': None, 'last_norm': False}),
    ('vit_test_patch4_reg2_dinov2', {'c': 0, 'pool': 'mean', 'size': 24}),
    ('deit_test_distilled_patch4', {'deit_token': 'official'}),
    ('vit_gated_patch4', {'c': None, 'pool': 'token_mean'}),
  ],
)
def test_a_vit_runs_in_timm(tmp_path, monkeypatch, backbone, options):
  pytest.importorskip('timm', reason='timm is of the extra parity')
  gated = vit.VARIANTS['test'] | {'mlp_width': 48, 'swiglu': True}
  monkeypatch.setitem(vit.VARIANTS, 'gated', gated)
  check(tmp_path, backbone, options)


@pytest.mark.parametrize('backbone', ['resnet_test', 'vit_test_patch4'])
def test_names_are_those_of_timm(tmp_path, backbone):
  model = exported.drawn(backbone)
  made = export.write(model, tmp_path / 'a', format='timm')
  arrays = safetensors.numpy.load_file(made.folder / 'model.safetensors')
  name = 'bn1.running_mean' if backbone == 'resnet_test' else 'cls_token'
  assert name in arrays and made.max_error is None
  np.testing.assert_array_equal(
    arrays['head.proj.weight'].T,
    model.variables['params']['head']['linear']['kernel'],
  )
  compile(exported.code(made.folder), 'card', 'exec')
