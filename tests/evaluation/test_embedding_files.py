"""Files of embeddings: what is written is read again."""

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation import embedding_files
from hier_jax.evaluation.embedding_files import Embedded
from tests.support.command_line import run

HOSTILE = ['</script>', '"\'&<b>', 'x' * 10_000, '\u202eevil', '😀/a\tb']


def made(**changes):
  rng = np.random.default_rng(0)
  return Embedded(
    rng.random((5, 3), np.float32) / 3,
    np.array(HOSTILE, np.str_),
    0.5,
    np.full((2, 3), 0.1, np.float32),
    HOSTILE,
    {'model': 'a', 'mean': [0.5], 'c': 0.5},
  )._replace(**changes)


@pytest.mark.parametrize('suffix', embedding_files.SUFFIXES)
@pytest.mark.parametrize('changes', [{}, {'labels': None, 'c': None}])
def test_what_is_written_is_read(tmp_path, suffix, changes):
  if suffix == '.parquet':
    pytest.importorskip('pyarrow')
  want, path = made(**changes), tmp_path / f'new/a{suffix}'
  embedding_files.write(want, path)
  got = embedding_files.read(path)
  np.testing.assert_array_equal(got.embeddings, want.embeddings)
  np.testing.assert_array_equal(got.proxies, want.proxies)
  assert (got.labels is None) == (want.labels is None)
  if want.labels is not None:
    assert got.labels.tolist() == want.labels.tolist()
  assert (got.c, got.ids, got.about) == (want.c, want.ids, want.about)
  assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_names_that_are_no_utf8(tmp_path):
  name = b'caf\xe9.png'.decode(errors='surrogateescape')
  small = made(labels=None)._replace(
    embeddings=np.eye(1, 3, dtype=np.float32) / 2, ids=[name]
  )
  embedding_files.write(small, tmp_path / 'a.npz')
  assert embedding_files.read(tmp_path / 'a.npz').ids == [name]
  pytest.importorskip('pyarrow')
  embedding_files.write(small, tmp_path / 'a.parquet')
  assert embedding_files.read(tmp_path / 'a.parquet').ids == ['caf\\xe9.png']


def test_evaluate_says_that_labels_are_missing(tmp_path, capsys):
  np.savez(tmp_path / 'a.npz', embeddings=np.eye(3))
  assert run('evaluate', tmp_path / 'a.npz') == 2
  assert (
    "a.npz lacks 'labels', the class of each row" in capsys.readouterr().err
  )


def test_evaluate_reads_parquet(tmp_path, capsys):
  pytest.importorskip('pyarrow')
  x, labels = np.eye(4, dtype=np.float32), np.array(['a', 'a', 'b', 'b'])
  embedding_files.write(Embedded(x, labels), tmp_path / 'a.parquet')
  assert run('evaluate', tmp_path / 'a.parquet') == 0
  assert 'recall@1' in capsys.readouterr().out


@pytest.mark.parametrize(
  ('arrays', 'message'),
  [
    ({'metadata': np.array('[1]')}, '`metadata` is no JSON object'),
    ({'metadata': np.array(3)}, '`metadata` is no JSON object'),
    ({'metadata': np.array(['{}', '{}'])}, '`metadata` is no JSON object'),
    ({'ids': np.zeros(3)}, '`ids` is float64'),
    ({'ids': np.array(['a'])}, '`ids` has 1 entries for 3 rows'),
    ({'labels': np.zeros(4)}, '`labels` has 4 entries for 3 rows'),
  ],
)
def test_a_strangers_npz(tmp_path, arrays, message):
  np.savez(tmp_path / 'a.npz', embeddings=np.eye(3), **arrays)
  with pytest.raises(UserError, match=message):
    embedding_files.read(tmp_path / 'a.npz')


def test_a_strangers_parquet(tmp_path):
  pa = pytest.importorskip('pyarrow')
  from pyarrow import parquet

  path = tmp_path / 'a.parquet'
  for column, message in [
    (pa.array([[1.0], [1.0, 2.0]]), 'all of one length'),
    (pa.array([1.0, 2.0]), 'expected lists'),
  ]:
    parquet.write_table(pa.table({'embedding': column}), path)
    with pytest.raises(UserError, match=message):
      embedding_files.read(path)
  parquet.write_table(pa.table({'x': [1]}), path)
  with pytest.raises(UserError, match=r"lacks the column 'embedding'.* x"):
    embedding_files.read(path)
  path.write_bytes(b'PAR1 no')
  with pytest.raises(UserError, match='cannot be read as Parquet'):
    embedding_files.read(path)
  with pytest.raises(UserError, match='does not exist'):
    embedding_files.read(tmp_path / 'none.parquet')
