"""Who may know whom: knowledge runs one way through the house."""

import subprocess
import sys

import pytest

import hier_jax
from tests.support import house, places

# What any room may import.
COMMON = {'debug', 'errors', 'json_files', 'npz_files', 'numerics', 'paths'}
# Room -> rooms of this package it may import besides.
ALLOWED = {
  'poincare': set(),
  'lorentz': {'poincare'},
  'mining': set(),
  'layers': {'poincare'},
  'losses': {'mining', 'poincare'},
  'models': {'layers', 'poincare'},
  'models/weights': {'models'},
  'data': set(),
  'evaluation': set(),
  'viz': {'evaluation'},
  'configs': {'training/config'},
  'training': set(),
  'training/distributed': set(),
  'training/logs': set(),
  'training/step': {
    'losses',
    'models/weights',
    'poincare',
    'training/distributed',
  },
  'training/config': {
    'data',
    'evaluation',
    'losses',
    'models',
    'training/distributed',
    'training/logs',
    'training/step',
  },
  'training/report': {
    'evaluation',
    'training/config',
    'training/logs',
    'viz',
  },
  'training/run': {
    'data',
    'evaluation',
    'models',
    'models/weights',
    'poincare',
    'training/config',
    'training/distributed',
    'training/logs',
    'training/report',
    'training/step',
  },
  'inference': {
    'data',
    'evaluation',
    'layers',
    'models',
    'models/weights',
    'training/distributed',
    'training/run',
    'training/step',
    'viz',
  },
  'cli': {
    'data',
    'evaluation',
    'inference',
    'models/weights',
    'training/config',
    'training/distributed',
    'training/report',
    'training/run',
    'viz',
  },
}
# Room -> outside packages it must not name.
FORBIDDEN = {
  'data': {'jax', 'flax', 'optax', 'orbax', 'ml_collections'},
  'evaluation': {'flax', 'optax', 'orbax', 'ml_collections', 'grain'},
  'losses': {'flax', 'optax', 'ml_collections'},
  'poincare': {'flax', 'optax', 'numpy'},
  'mining': {'flax', 'optax'},
  'models': {'ml_collections'},
  'training/distributed': {'ml_collections'},
  'training/logs': {'ml_collections'},
  'training/report': {'ml_collections'},
}
# The only modules that may name a package. Whoever is given a section of the
# config may name its type.
TYPES = {'ml_collections.ConfigDict'}
SOLE = {
  'orbax': {
    'training/distributed/processes.py',
    'training/run/checkpoint.py',
    'training/run/stored_state.py',
  },
  'ml_collections': {
    'training/config/default.py',
    'training/config/files.py',
  },
  'tensorflow': set(),
}


def test_import_is_light_and_rooms_come_when_named():
  code = (
    'import sys, hier_jax.cli; assert "jax" not in sys.modules; '
    'import hier_jax; hier_jax.losses.hier, hier_jax.poincare.dist'
  )
  subprocess.run([sys.executable, '-c', code], check=True, cwd=places.ROOT)
  with pytest.raises(AttributeError, match='no attribute'):
    _ = hier_jax.nonsense


def test_every_room_is_listed():
  assert set(house.modules()) - COMMON == set(ALLOWED)


@pytest.mark.parametrize('room', ALLOWED)
def test_room_imports_what_it_may(room):
  others = house.arrows()[room]
  wrong = {k: v for k, v in others.items() if k not in ALLOWED[room] | COMMON}
  assert not wrong
  for path in house.modules()[room]:
    for name in house.imported(path):
      package = name.split('.')[0]
      for place in (room, room.split('/')[0]):
        assert package not in FORBIDDEN.get(place, ()), (path, name)


def test_every_arrow_allowed_is_drawn():
  found = house.arrows()
  unused = {room: may - set(found[room]) for room, may in ALLOWED.items()}
  assert not any(unused.values()), unused


def test_no_module_imports_private_jax():
  found = {
    (path.relative_to(house.PACKAGE).as_posix(), name)
    for path in house.PACKAGE.rglob('*.py')
    for name in house.imported(path)
    if name.startswith('jax._src') or name.startswith('jaxlib')
  }
  assert not found


@pytest.mark.parametrize('package', SOLE)
def test_package_is_named_by_its_keeper_alone(package):
  found = {
    path.relative_to(house.PACKAGE).as_posix()
    for path in house.PACKAGE.rglob('*.py')
    if any(
      name.split('.')[0] == package
      for name in house.imported(path)
      if name not in TYPES
    )
  }
  assert found == SOLE[package]


@pytest.mark.parametrize('word', ['hier', 'triplet', 'prox'])
@pytest.mark.parametrize(
  'module', ['distributed/mapping', 'run/checkpoint', 'run/stored_state']
)
def test_engine_parts_know_no_term_of_hier(module, word):
  text = (house.PACKAGE / 'training' / f'{module}.py').read_text()
  assert word not in text.lower().replace('hier_jax', '')
