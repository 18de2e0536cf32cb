import pathlib
import subprocess

import pytest

from experiments.icons import sources
from hier_jax.errors import UserError
from tests.support import small_icons

FILE = small_icons.data('a', ['dog'])


def test_archives_are_read(tmp_path):
  icons, nouns = small_icons.archives(tmp_path, FILE, small_icons.data('0', []))
  found = sources.icon_sets(sources.fetch(icons, tmp_path))
  assert list(found) == ['0', 'a'] and found['a'].names == ['dog']
  wordnet = sources.wordnet(sources.fetch(nouns, tmp_path))
  assert wordnet.name(wordnet.senses('dog')[0]) == 'dog.n.01'


def test_an_archive_is_packed_once(tmp_path, monkeypatch):
  made = tmp_path / 'made'
  made.mkdir()
  icons, _ = small_icons.archives(made, FILE)
  calls = []

  def run(command, **_):
    calls.append(command)
    place = pathlib.Path(command[-1], icons.file)
    place.write_bytes((made / icons.file).read_bytes())

  monkeypatch.setattr(subprocess, 'run', run)
  for _ in range(2):
    path = sources.fetch(icons, tmp_path / 'kept')
    assert path.name == 'iconify-json-2.2.535.tgz'
  assert len(calls) == 1
  assert calls[0][:3] == ['npm', 'pack', '@iconify/json@2.2.535']


def test_another_archive_is_refused(tmp_path):
  icons, _ = small_icons.archives(tmp_path, FILE)
  with pytest.raises(UserError, match='expected 9c057ad00094'):
    sources.fetch(sources.ICONS, tmp_path)
  (tmp_path / icons.file).write_bytes(b'no archive')
  with pytest.raises(UserError, match='cannot be read'):
    sources.icon_sets(tmp_path / icons.file)


def test_npm_that_is_missing_or_fails_is_told(tmp_path, monkeypatch):
  def missing(command, **_):
    raise FileNotFoundError(command[0])

  def fails(command, **_):
    raise subprocess.CalledProcessError(1, command, stderr='a\nnpm ERR 404\n')

  monkeypatch.setattr(subprocess, 'run', missing)
  with pytest.raises(UserError, match='npm is missing'):
    sources.fetch(sources.WORDNET, tmp_path)
  monkeypatch.setattr(subprocess, 'run', fails)
  with pytest.raises(UserError, match='failed: npm ERR 404'):
    sources.fetch(sources.WORDNET, tmp_path)
  assert not list(tmp_path.iterdir())
