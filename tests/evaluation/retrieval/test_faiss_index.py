"""FAISS beside our own ranking, and its files."""

import numpy as np
import pytest

from hier_jax import cli, evaluation
from hier_jax.errors import UserError
from hier_jax.evaluation import lift, per_query
from hier_jax.evaluation.retrieval import faiss_index
from tests.support.numpy_rankings import DISTANCES, sample

faiss = pytest.importorskip('faiss', reason='needs faiss-cpu')


def points(distance, n=300, seed=0):
  """Points of classes of three, and c."""
  c = 0.3 if distance in ('hyperbolic', 'lorentz') else None
  rng = np.random.default_rng(seed)
  return sample(rng, distance, n, 6, c), rng.permutation(n) // 3, c


@pytest.mark.parametrize('distance', DISTANCES)
def test_search_ranks_as_we_do(distance, tmp_path):
  x, y, c = points(distance)
  faiss_index.write_faiss(x, tmp_path / 'g.faiss', c=c, distance=distance)
  index = faiss_index.read_faiss(tmp_path / 'g.faiss')
  assert index.lift.c == {'cosine': None, 'euclidean': 0.0}.get(distance, c)
  scores, rows = index.search(x, len(x))
  assert scores.dtype == np.float32
  # In the order of the distance, but for what a float32 product rounds.
  q, g = (np.float64(a) for a in lift(x, x, c=c, distance=distance))
  exact = np.take_along_axis(q @ g.T, rows, 1)
  rounding = 4e-7 * np.linalg.norm(q, axis=1) * np.linalg.norm(g, axis=1).max()
  assert (np.diff(exact) <= rounding[:, None]).all()
  others = rows[rows != np.arange(len(x))[:, None]].reshape(len(x), -1)
  rank = 1 + np.argmax(y[others] == y[:, None], 1)
  np.testing.assert_array_equal(
    rank, per_query(x, y, c=c, distance=distance).rank
  )


def test_queries_that_come_later(tmp_path):
  x, _, c = points('hyperbolic')
  index = faiss_index.write_faiss(x, tmp_path / 'g.faiss', c=c)
  queries = points('hyperbolic', 40, seed=1)[0]
  nearest = DISTANCES['hyperbolic'](queries, x, c).argmax(1)
  np.testing.assert_array_equal(index.search(queries, 1)[1][:, 0], nearest)
  assert index.search(queries, 301)[1].min() == -1
  # Any program that knows FAISS reads it.
  assert faiss.read_index(str(tmp_path / 'g.faiss')).ntotal == 300


def test_bad_input(tmp_path):
  x, _, c = points('hyperbolic', 30)
  path = tmp_path / 'g.faiss'
  index = faiss_index.write_faiss(x, path, c=c)
  with pytest.raises(
    UserError, match='`queries` has 5 dimensions and the index 6'
  ):
    index.search(x[:, :5], 3)
  with pytest.raises(UserError, match='`k` is 0'):
    index.search(x, 0)
  with pytest.raises(UserError, match='lies outside the ball'):
    index.search(4 * x, 1)
  with pytest.raises(UserError, match='holds NaN or Inf in 1 of 30 rows'):
    broken = np.where(np.arange(30)[:, None] == 3, np.nan, x)
    faiss_index.write_faiss(broken, path, c=c)
  faiss_index.read_faiss(path)
  for name in ('g.faiss', 'g.faiss.npz'):
    whole = (tmp_path / name).read_bytes()
    for broken in (whole[: len(whole) // 2], b'', None):
      (tmp_path / name).unlink()
      if broken is not None:
        (tmp_path / name).write_bytes(broken)
      with pytest.raises(
        UserError, match=r'(cannot be read|does not exist).*--export faiss'
      ):
        faiss_index.read_faiss(path)
      (tmp_path / name).write_bytes(whole)


def test_reads_what_version_0_1_wrote(tmp_path):
  x, _, c = points('hyperbolic', 30)
  written = faiss_index.write_faiss(x, tmp_path / 'g.faiss', c=c)
  beside = tmp_path / 'g.faiss.npz'
  arrays = dict(np.load(beside))
  name, center = arrays.pop('distance'), arrays.pop('center')
  np.savez(beside, **arrays, metric=name, centre=center)
  lift = faiss_index.read_faiss(tmp_path / 'g.faiss').lift
  assert lift.distance == name
  np.testing.assert_array_equal(lift.center, center)
  np.savez(beside, **arrays)
  with pytest.raises(UserError, match="lacks the array 'distance'"):
    faiss_index.read_faiss(tmp_path / 'g.faiss')
  assert written.lift.distance == name


def test_without_faiss(monkeypatch, tmp_path):
  monkeypatch.setitem(__import__('sys').modules, 'faiss', None)
  with pytest.raises(UserError, match=r"pip install 'hier_jax\[evaluation\]'"):
    faiss_index.write_faiss(np.ones((3, 2)), tmp_path / 'g.faiss')
  assert not list(tmp_path.iterdir())


def test_command_exports_the_gallery(tmp_path, capsys):
  x, y, c = points('hyperbolic')
  for name, rows in (('q', slice(None, 30)), ('g', slice(30, None))):
    np.savez(tmp_path / f'{name}.npz', embeddings=x[rows], labels=y[rows], c=c)
  command = ['hier-jax', 'evaluate', '--export', 'faiss']
  files = [str(tmp_path / name) for name in ('q.npz', 'g.npz')]
  assert cli.main([*command, files[0], '--gallery', files[1]]) == 0
  assert f'index written to {tmp_path / "g.faiss"}' in capsys.readouterr().out
  index = faiss_index.read_faiss(tmp_path / 'g.faiss')
  assert index.index.ntotal == 270
  assert index.lift.c == c
  (tmp_path / 'g.faiss').unlink()
  assert cli.main([*command, files[1]]) == 0
  assert faiss_index.read_faiss(tmp_path / 'g.faiss').index.ntotal == 270


def test_command_replaces_no_index_of_embed(tmp_path, capsys):
  x, y, c = points('hyperbolic', 30)
  np.savez(tmp_path / 'a.npz', embeddings=x, labels=y, c=c)
  for name in 'a.faiss', 'a.faiss.npz', 'a.faiss.items':
    (tmp_path / name).write_text(name)
  command = ['hier-jax', 'evaluate', '--export', 'faiss']
  assert cli.main([*command, str(tmp_path / 'a.npz')]) == 2
  told = capsys.readouterr()
  assert 'index that hier-jax embed wrote' in told.err and not told.out
  for name in 'a.faiss', 'a.faiss.npz', 'a.faiss.items':
    assert (tmp_path / name).read_text() == name


@pytest.fixture(scope='module', params=faiss_index.KINDS)
def written(request, tmp_path_factory):
  """A kind, the points of an index of it, and its file."""
  kind, rng = request.param, np.random.default_rng(0)
  x = rng.standard_normal((10_000 if kind == 'ivfpq' else 300, 6))
  x /= 1.1 * np.linalg.norm(x, axis=1, keepdims=True)
  path = tmp_path_factory.mktemp(kind) / 'a.faiss'
  evaluation.write_faiss(x, path, c=1.0, kind=kind)
  return kind, x, path


@pytest.mark.parametrize('mapped', [False, True])
def test_kinds_find_the_nearest(written, mapped):
  kind, x, path = written
  index = evaluation.read_faiss(path, mapped=mapped)
  assert index.kind == kind
  queries = x[:20] * 0.9
  scores, rows = index.search(queries, 100)
  far, want = evaluation.nearest(queries, x, 100, c=1.0)
  if kind == 'ivfpq':
    assert np.mean((rows == want[:, :1]).any(1)) > 0.8
  else:
    np.testing.assert_array_equal(rows, want)
    np.testing.assert_allclose(
      index.lift.distances(queries, scores), far, rtol=1e-4
    )


@pytest.mark.parametrize('kind', ['flat', 'hnsw'])
def test_rows_are_added_after_those_that_are_there(tmp_path, kind):
  rng = np.random.default_rng(0)
  x = rng.standard_normal((50, 4))
  path = tmp_path / 'a.faiss'
  evaluation.write_faiss(x[:30], path, c=0, kind=kind)
  faiss_index.add_faiss(x[30:], path)
  index = evaluation.read_faiss(path, mapped=True)
  assert index.search(x, 1)[1][:, 0].tolist() == list(range(50))
  with pytest.raises(UserError, match='2 dimensions and the index 4'):
    faiss_index.add_faiss(x[:, :2], path)


def test_an_index_that_cannot_learn_or_is_unknown(tmp_path):
  for kind, message in ('ivfpq', 'found 4: take flat'), ('x', "`kind` is 'x'"):
    with pytest.raises(UserError, match=message):
      evaluation.write_faiss(np.eye(4), tmp_path / 'a.faiss', c=0, kind=kind)
  assert not list(tmp_path.iterdir())
