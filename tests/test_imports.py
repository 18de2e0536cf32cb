"""Who may know whom: knowledge runs one way through the house."""

import ast
import pathlib
import subprocess
import sys

import pytest

import hier_jax

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'hier_jax'

# What any room may import.
COMMON = {'debug', 'errors', 'json_files', 'npz_files', 'paths'}
# Room -> rooms of this package it may import besides.
ALLOWED = {
  'poincare': set(),
  'lorentz': {'poincare'},
  'triplets': set(),
  'layers': {'poincare'},
  'losses': {'poincare', 'triplets'},
  'models': {'layers', 'poincare'},
  'augment': set(),
  'data': set(),
  'evaluation': set(),
  'training': {'augment', 'data', 'evaluation', 'losses', 'models', 'poincare'},
  'cli': {'cli_flags', 'data', 'evaluation', 'models', 'training'},
  'cli_flags': {'training'},
}
# Room -> outside packages it must not name.
FORBIDDEN = {
  'augment': {'flax', 'optax', 'numpy'},
  'data': {'jax', 'flax', 'optax', 'orbax'},
  'evaluation': {'flax', 'optax', 'orbax', 'ml_collections', 'grain'},
  'losses': {'flax', 'optax', 'ml_collections'},
  'poincare': {'flax', 'optax', 'numpy'},
  'triplets': {'flax', 'optax', 'numpy'},
}
# The only modules that may name a package.
SOLE = {
  'orbax': {'training/checkpoint.py'},
  'ml_collections': {'training/config.py', 'training/config_file.py'},
  'tensorflow': set(),
}


def test_import_is_light_and_rooms_come_when_named():
  code = (
    'import sys, hier_jax.cli; assert "jax" not in sys.modules; '
    'import hier_jax; hier_jax.losses.hier, hier_jax.poincare.dist'
  )
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
  with pytest.raises(AttributeError, match='no attribute'):
    _ = hier_jax.nonsense


def imported(path):
  """Dotted names that a module imports, `a.b` of `from a import b` too."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import'
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def modules(room):
  folder = PACKAGE / room
  return sorted(folder.rglob('*.py')) or [PACKAGE / f'{room}.py']


def test_every_room_is_listed():
  rooms = {p.stem for p in PACKAGE.iterdir() if p.suffix == '.py'}
  rooms |= {p.parent.name for p in PACKAGE.glob('*/__init__.py')}
  assert rooms - {'__init__', '__main__', *COMMON} == set(ALLOWED)


@pytest.mark.parametrize('room', ALLOWED)
def test_room_imports_what_it_may(room):
  for path in modules(room):
    for name in imported(path):
      first, _, rest = name.partition('.')
      assert first not in FORBIDDEN.get(room, ()), f'{path}: {name}'
      if first == 'hier_jax':
        other = rest.split('.')[0]
        assert other in ALLOWED[room] | COMMON | {room}, f'{path}: {name}'


@pytest.mark.parametrize('package', SOLE)
def test_package_is_named_by_its_keeper_alone(package):
  found = {
    path.relative_to(PACKAGE).as_posix()
    for path in PACKAGE.rglob('*.py')
    if package in {name.split('.')[0] for name in imported(path)}
  }
  assert found == SOLE[package]


@pytest.mark.parametrize('word', ['hier', 'triplet', 'prox'])
@pytest.mark.parametrize('module', ['parallel', 'checkpoint'])
def test_engine_parts_know_no_term_of_hier(module, word):
  text = (PACKAGE / 'training' / f'{module}.py').read_text()
  assert word not in text.lower().replace('hier_jax', '')
