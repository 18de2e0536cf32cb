"""The notebooks run from a fresh kernel, in order, on the public API."""

import ast
import os
import re

import pytest

from hier_jax.data import datasets
from tests.support import places

FOLDER = places.ROOT / 'docs' / 'notebooks'
PAGES = sorted(FOLDER.glob('*.md'))
CELL = re.compile(r'^```\{code-cell\} ipython3\n(.*?)^```', re.M | re.S)

# Variables by which tests/conftest.py has programs compile quickly, but for the
# last one optimized.
COMPILING = (
  'XLA_FLAGS',
  'JAX_COMPILATION_CACHE_DIR',
  'JAX_COMPILATION_CACHE_MAX_SIZE',
  'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS',
  'JAX_DISABLE_MOST_OPTIMIZATIONS',
)
# Pages that compile much and run it a few times: optimizing does not pay.
NOT_OPTIMIZED = '02_devices', '04_folder'
# Of training nothing is tested here but that it ends; a folder of an eighth of
# the emoji has all kinds of files.
SHORTER = {
  '01_own_loop': {'STEPS, RATE = 300': 'STEPS, RATE = 15'},
  '02_devices': {'steps=40': 'steps=4', 'in (1, 2, 8)': 'in (1, 8)'},
  '03_geometry': {'steps=1500': 'steps=50'},
  '04_folder': {
    'epochs=12': 'epochs=1',
    'range(len(split.labels))': 'range(1900, 2700)',
  },
}


def of(page):
  return page.stem


def code(page):
  """The Python of each cell, without magics."""
  cells = CELL.findall(page.read_text())
  return [cell for cell in cells if not cell.startswith('%%')]


def test_there_are_five():
  assert [page.stem.split('_')[0] for page in PAGES] == [
    f'0{number}' for number in range(1, 6)
  ]


@pytest.mark.parametrize('page', PAGES, ids=of)
def test_cells_are_short_and_have_words_between_them(page):
  text = page.read_text()
  assert text.startswith('---\njupytext:\n') and re.search(r'^# \w', text, re.M)
  cells = CELL.findall(text)
  assert len(cells) >= 8
  assert max(cell.count('\n') for cell in cells) <= 48
  prose = CELL.sub('', text.split('\n---\n')[1])
  assert len(prose.split()) > 150


@pytest.mark.parametrize('page', PAGES, ids=of)
def test_they_import_what_is_public(page):
  for cell in code(page):
    for node in ast.walk(ast.parse(cell)):
      names = []
      if isinstance(node, ast.ImportFrom):
        names = [f'{node.module}.{alias.name}' for alias in node.names]
      elif isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      for name in names:
        assert '._' not in name and not name.startswith('torch'), name


@pytest.mark.parametrize('page', PAGES, ids=of)
def test_their_links_lead_somewhere(page):
  prose = CELL.sub('', page.read_text())
  for target in re.findall(r'\]\(([^)\s]+)\)', prose):
    assert '://' in target or (FOLDER / target.partition('#')[0]).exists(), (
      target
    )


def shortened(page):
  """The page, with a run that is over soon."""
  text = page.read_text()
  for long, short in SHORTER.get(page.stem, {}).items():
    assert long in text
    text = text.replace(long, short)
  return text


@pytest.fixture(scope='module')
def emoji(tmp_path_factory):
  """Where the bundled emoji are prepared, which all but one page load."""
  folder = tmp_path_factory.mktemp('emoji')
  datasets.load('emoji', data_dir=folder)
  return folder


def environment(page, folder, data):
  """The environment of a reader's kernel, except for how programs compile."""
  kept = COMPILING if page.stem in NOT_OPTIMIZED else COMPILING[:-1]
  env = {
    name: value
    for name, value in os.environ.items()
    if name in kept or not re.match('JAX_|XLA_', name)
  }
  path = os.pathsep.join([str(places.ROOT), env.get('PYTHONPATH', '')])
  env |= {'PYTHONPATH': path.rstrip(os.pathsep), 'JAX_PLATFORMS': 'cpu'}
  return env | {'TFDS_DATA_DIR': str(data), 'TMPDIR': str(folder)}


@pytest.mark.slow
@pytest.mark.parametrize('page', PAGES, ids=of)
def test_it_runs_and_draws(page, tmp_path, emoji):
  jupytext = pytest.importorskip('jupytext')
  nbclient = pytest.importorskip('nbclient')
  pytest.importorskip('ipykernel')
  if 'equinox' in page.read_text():
    pytest.importorskip('equinox')
  notebook = jupytext.reads(shortened(page), fmt='md:myst')
  client = nbclient.NotebookClient(
    notebook,
    timeout=900,
    kernel_name='python3',
    resources={'metadata': {'path': str(FOLDER)}},
  )
  # An error in a cell raises.
  client.execute(env=environment(page, tmp_path, emoji))
  outputs = [o for cell in notebook.cells for o in cell.get('outputs', [])]
  assert any('image/png' in output.get('data', {}) for output in outputs)
  said = [o['text'] for o in outputs if o.get('name') == 'stderr']
  assert 'Warning' not in ''.join(said)
