"""`hier-jax export`."""

import pytest

from hier_jax.inference import export
from hier_jax.inference import model as model_lib
from hier_jax.models.weights import pretrained
from tests.support import exported
from tests.support.command_line import run


@pytest.fixture
def weights(tmp_path, monkeypatch):
  """The file net.safetensors of a backbone in the folder to work in."""
  monkeypatch.chdir(tmp_path)
  drawn = exported.drawn('vit_test_patch4')
  backbone = {kind: tree['backbone'] for kind, tree in drawn.variables.items()}
  path = tmp_path / 'net.safetensors'
  pretrained.save(path, backbone, architecture='vit_test_patch4')
  return path


def test_export_and_open_again(weights, tmp_path, capsys):
  assert run('export', 'net.safetensors', '--format', 'safetensors') == 0
  told = capsys.readouterr()
  assert 'written to net-safetensors' in told.out
  assert 'largest difference from hier_jax on random images: 0.0' in told.out
  folder = tmp_path / 'net-safetensors'
  names = ['README.md', 'metadata.json', 'model.safetensors']
  assert sorted(file.name for file in folder.iterdir()) == names
  again = model_lib.open_model(folder / 'model.safetensors')
  assert again.digest == model_lib.open_model(weights).digest
  assert run('export', 'net.safetensors', '--format', 'safetensors') == 2
  assert 'choose another folder with --out' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    ([], 'export needs a MODEL'),
    (['net.safetensors'], 'export needs a --format'),
    (['net.safetensors', '--format', 'tflite'], 'expected stablehlo, onnx, '),
    (['none', '--format', 'timm'], 'there is no model none'),
    (['empty', '--format', 'timm'], 'empty holds no config.json'),
    (['net.safetensors', '--format', 'timm', '--out', 'a.pt'], 'take --out a'),
    (
      ['net.safetensors', '--format', 'timm', '--out', 'net.safetensors'],
      'is an input',
    ),
    (['net.safetensors', '--format', 'timm', '--out', 'full'], 'full exists'),
    (
      ['net.safetensors', '--format', 'timm', '--out', 'full/a.txt'],
      'expected the path of a folder',
    ),
    (['net.safetensors', '--format', 'timm', '--out', 'gs://a/b'], 'gs://a/b'),
  ],
)
def test_mistakes_write_nothing(weights, tmp_path, capsys, args, message):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'full').mkdir()
  (tmp_path / 'full' / 'a.txt').write_text('mine')
  before = sorted(tmp_path.rglob('*'))
  assert run('export', *args) == 2
  error = capsys.readouterr().err
  assert message in error and error.splitlines()[-1].startswith('hier-jax: ')
  assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize(
  ('format', 'extra'), [('stablehlo', 'stablehlo'), ('onnx', 'onnx')]
)
def test_a_package_that_is_missing(weights, capsys, monkeypatch, format, extra):
  monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
  assert run('export', 'net.safetensors', '--format', format) == 2
  assert f"pip install 'hier_jax[{extra}]'" in capsys.readouterr().err


def test_a_failure_leaves_nothing(weights, tmp_path, monkeypatch):
  def fail(*_):
    raise RuntimeError('fault')

  monkeypatch.setattr(export.card, 'text', fail)
  before = sorted(tmp_path.rglob('*'))
  with pytest.raises(RuntimeError, match='fault'):
    run('export', 'net.safetensors', '--format', 'timm')
  assert sorted(tmp_path.rglob('*')) == before
