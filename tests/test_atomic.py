"""Files that are either the old one or whole."""

import pathlib

import pytest

from hier_jax import atomic


def test_no_temporary_file_is_left(tmp_path):
  path = tmp_path / 'a.json'
  path.write_text('old')
  atomic.write_text(path, 'new')
  assert path.read_text() == 'new'
  assert list(tmp_path.iterdir()) == [path]


def test_the_old_file_outlives_a_failure(tmp_path, monkeypatch):
  path = tmp_path / 'a.json'
  path.write_text('old')

  def full(self, text, **kwargs):
    self.write_bytes(text[:1].encode())
    raise OSError('no space left')

  monkeypatch.setattr(pathlib.Path, 'write_text', full)
  with pytest.raises(OSError, match='no space left'):
    atomic.write_text(path, 'new')
  assert path.read_text() == 'old'
  assert list(tmp_path.iterdir()) == [path]
