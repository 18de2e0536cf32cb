"""`hier-jax tree`."""

import numpy as np
import pytest

from hier_jax import cli
from hier_jax.viz import _hierarchy


@pytest.fixture
def embeddings(tmp_path):
  rng = np.random.default_rng(0)
  labels = np.repeat(['cats', 'dogs', 'owls'], 4)
  rows = np.repeat(np.eye(3), 4, 0) + rng.normal(0, 0.01, (12, 3))
  np.savez(tmp_path / 'a.npz', embeddings=rows, labels=labels)
  return tmp_path / 'a.npz'


def run(*arguments):
  return cli.main(['hier-jax', 'tree', *map(str, arguments)])


@pytest.mark.parametrize('suffix', ['json', 'nwk', 'dot', 'svg', 'png'])
def test_the_tree_is_printed_and_written(embeddings, capsys, suffix):
  out = embeddings.parent / 'new' / f'tree.{suffix}'
  assert run(embeddings, '--out', out) == 0
  shown = capsys.readouterr().out
  assert 'cats (100 %), 4 images' in shown
  assert f'tree written to {out}' in shown.replace('\n', '')
  assert out.stat().st_size > 30


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((), 'tree needs the workdir'),
    (('a.npz', '--out', 'a.pdf'), '.svg'),
    (('a.npz', '--out', 'a.npz'), 'a.npz'),
    (('a.npz', '--depth', '0'), '0'),
    (('a.npz', '--from', 'proxies'), 'no hierarchical proxies'),
    (('b.npz',), 'does not exist'),
  ],
)
def test_a_mistake_is_one_line(
  embeddings, monkeypatch, capsys, arguments, message
):
  monkeypatch.chdir(embeddings.parent)
  assert run(*arguments) == 2
  error = capsys.readouterr().err
  assert message in error and error.count('\n') == 1


def test_the_hierarchy_is_made_once(embeddings, monkeypatch):
  made = []
  real = _hierarchy._ordered
  monkeypatch.setattr(
    _hierarchy, '_ordered', lambda *args: made.append(1) or real(*args)
  )
  out = embeddings.parent / 'tree.png'
  assert run(embeddings, '--out', out, '--theme', 'dark') == 0
  assert len(made) == 1
