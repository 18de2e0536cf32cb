"""`hier-jax explore`."""

import numpy as np
import pytest

from hier_jax import cli, paths
from hier_jax.evaluation import embedding_files
from hier_jax.inference import gallery
from tests.support import fake_bucket, planted_trees


@pytest.fixture
def file(tmp_path):
  leaves, inner, _ = planted_trees.plant(planted_trees.PLANTED)
  labels = [f'<{i}>' for i in range(len(leaves))]
  path = tmp_path / 'found.npz'
  np.savez(path, embeddings=leaves, labels=labels, c=1.0, proxies=inner)
  return path


def run(*arguments):
  return cli.main(['hier-jax', 'explore', *map(str, arguments)])


def test_page_of_a_file_lies_beside_it(file, capsys):
  assert run(file) == 0
  page = file.with_suffix('.html')
  assert f'page written to {page}' in capsys.readouterr().out
  text = page.read_text()
  assert 'of the hierarchical proxies' in text
  assert '\\u003c3\\u003e' in text and '<3>' not in text


def test_a_page_in_a_bucket(file, monkeypatch, capsys):
  fake_bucket.use(monkeypatch)
  out = 'gs://bucket/pages/a.html'
  assert run(file, '--out', out) == 0
  assert f'page written to {out} (' in capsys.readouterr().out
  assert '</html>' in paths.as_path(out).read_text()


def test_options(file, tmp_path):
  out = tmp_path / 'new' / 'other.html'
  assert run(file, '--out', out, '--from=linkage', '--k=2', '--limit=9') == 0
  text = out.read_text()
  assert 'omplete linkage of the centroids of the classes' in text
  assert '"k":2' in text and '9 of 17 images' in text


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ((), 'explore needs the workdir'),
    (('--out', 'page.pdf'), "ends with '.pdf'"),
    (('--k', '0'), '--k is 0'),
    (('--from', 'forest'), '--from'),
    (('--split', 'test'), 'no run'),
  ],
)
def test_mistakes_write_nothing(arguments, message, file, capsys):
  before = sorted(file.parent.iterdir())
  given = (file, *arguments) if arguments else ()
  assert run(*given) == 2
  assert message in capsys.readouterr().err
  assert sorted(file.parent.iterdir()) == before


def test_a_page_is_not_written_over_its_input(tmp_path, capsys):
  path = tmp_path / 'rows.html'
  path.write_text('mine')
  assert run(path, '--out', path) == 2
  assert 'is an input' in capsys.readouterr().err
  assert path.read_text() == 'mine'


def test_an_index_has_a_page(file, tmp_path, monkeypatch):
  pytest.importorskip('faiss')
  embedded = embedding_files.read(file)
  ids = [f'{i}.png' for i in range(len(embedded.embeddings))]
  gallery.write(
    embedded._replace(ids=ids), tmp_path / 'found.faiss', kind='flat'
  )
  assert run(tmp_path / 'found.faiss', '--out', tmp_path / 'a.html') == 0
  text = (tmp_path / 'a.html').read_text()
  assert '16.png' in text and '\\u003c3\\u003e' in text
  assert 'There are no hierarchical proxies' in text
