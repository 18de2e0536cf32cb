"""The notebooks run from a fresh kernel, in order, on the public API."""

import ast
import os
import re

import pytest

from tests.support import places

FOLDER = places.ROOT / 'docs' / 'notebooks'
PAGES = sorted(FOLDER.glob('*.md'))
CELL = re.compile(r'^```\{code-cell\} ipython3\n(.*?)^```', re.M | re.S)


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


@pytest.mark.slow
@pytest.mark.parametrize('page', PAGES, ids=of)
def test_it_runs_and_draws(page, tmp_path):
  jupytext = pytest.importorskip('jupytext')
  nbclient = pytest.importorskip('nbclient')
  pytest.importorskip('ipykernel')
  if 'equinox' in page.read_text():
    pytest.importorskip('equinox')
  notebook = jupytext.read(page)
  # As a reader's kernel is, not as the tests have set this process.
  env = {k: v for k, v in os.environ.items() if not re.match('JAX_|XLA_', k)}
  path = os.pathsep.join([str(places.ROOT), env.get('PYTHONPATH', '')])
  env |= {'PYTHONPATH': path.rstrip(os.pathsep), 'JAX_PLATFORMS': 'cpu'}
  env |= {'TFDS_DATA_DIR': str(tmp_path), 'TMPDIR': str(tmp_path)}
  client = nbclient.NotebookClient(
    notebook,
    timeout=900,
    kernel_name='python3',
    resources={'metadata': {'path': str(FOLDER)}},
  )
  # An error in a cell raises.
  client.execute(env=env)
  outputs = [o for cell in notebook.cells for o in cell.get('outputs', [])]
  assert any('image/png' in output.get('data', {}) for output in outputs)
  said = [o['text'] for o in outputs if o.get('name') == 'stderr']
  assert 'Warning' not in ''.join(said)
