"""Paths as people write them, and outputs that are whole or not there."""

import errno
import os
import pathlib
import stat

import pytest

from hier_jax import paths
from hier_jax.errors import UserError
from tests.support import fake_bucket


def test_a_local_path_may_have_the_name_of_a_scheme():
  assert not paths.is_remote('gs')
  assert paths.is_remote('gs://bucket/a')


def test_home_is_expanded(monkeypatch):
  monkeypatch.setenv('HOME', '/somewhere')
  assert os.fspath(paths.as_path('~/runs')) == '/somewhere/runs'
  assert os.fspath(paths.as_path('runs/~')) == 'runs/~'


@pytest.mark.parametrize(
  ('path', 'message'),
  [
    ('', 'is empty'),
    ('ftp://host/a', r'begins with ftp://; expected .* gs://, s3://'),
    ('~nobody-of-this-name/a', r'~nobody-of-this-name/a.*home'),
  ],
)
def test_what_is_no_path_is_refused(path, message):
  with pytest.raises(UserError, match=message):
    paths.as_path(path)


def test_a_remote_path_names_the_package_it_needs(monkeypatch):
  monkeypatch.setattr(paths.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=r"gcsfs: pip install 'hier_jax\[gs\]'"):
    paths.as_path('gs://bucket/run')


def test_no_temporary_file_is_left(tmp_path):
  path = tmp_path / 'new' / 'a.json'
  paths.write_text(path, 'old')
  paths.write_text(path, 'new')
  assert path.read_text() == 'new'
  assert list(path.parent.iterdir()) == [path]


def test_the_old_file_outlives_a_failure(tmp_path):
  path = tmp_path / 'a.json'
  path.write_text('old')
  with (
    pytest.raises(OSError, match='no space left'),
    paths.replacing(path) as temporary,
  ):
    temporary.write_text('n')
    raise OSError('no space left')
  assert path.read_text() == 'old'
  assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_written_is_one_line_that_names_it(tmp_path):
  (tmp_path / 'file').touch()
  path = tmp_path / 'file' / 'a.json'
  match = r'file/a\.json cannot be written \(\w+Error: .*\)$'
  with pytest.raises(UserError, match=match):
    paths.write_text(path, 'text')
  # Named once, by the file that failed.
  with pytest.raises(paths.WriteError, match=match), paths.writing(tmp_path):
    paths.write_text(path, 'text')


def test_an_output_that_can_be_written_is_not_made(tmp_path):
  path = tmp_path / 'a' / 'b.json'
  assert paths.check_output(path, suffixes=['.json']) == path
  assert paths.check_output(path.parent, folder=True) == path.parent
  assert not path.parent.exists()


def test_an_output_is_no_input_under_any_name(tmp_path):
  path = tmp_path / 'a.npz'
  path.touch()
  link = tmp_path / 'b.npz'
  link.symlink_to(path)
  for name in (path, link, tmp_path / '..' / tmp_path.name / 'a.npz'):
    with pytest.raises(UserError, match=r'is an input'):
      paths.check_output(name, inputs=[path])


def test_a_remote_path_is_absolute_as_it_is(tmp_path, monkeypatch):
  store = fake_bucket.use(monkeypatch)
  monkeypatch.chdir(tmp_path)
  run = 'gs://bucket/runs/a'
  assert paths.absolute(paths.as_path(run)) == paths.absolute(run) == run
  assert paths.absolute('a') == str(tmp_path / 'a')
  for path in f'{run}/page.html', tmp_path / 'page.html':
    paths.write_text(path, 'é')
    assert paths.size(path) == 2
  assert list(store) == ['/bucket/runs/a/page.html']


def test_an_output_may_lie_beside_what_a_run_has_written(tmp_path):
  (tmp_path / 'config.json').touch()
  # The config of another model.
  paths.check_output(tmp_path / 'results.json')
  (tmp_path / 'metrics.jsonl').touch()
  with pytest.raises(
    UserError, match=r'what the run in .* has written: choose'
  ):
    paths.check_output(tmp_path / 'results.json')
  paths.check_output(tmp_path / 'tree.json')
  paths.check_output(tmp_path / 'deep' / 'results.json')
  paths.check_output(tmp_path, folder=True)


def test_where_an_output_cannot_go_is_said(tmp_path, monkeypatch):
  file = tmp_path / 'file'
  file.touch()
  with pytest.raises(UserError, match=r'is a folder; expected .* a file'):
    paths.check_output(tmp_path)
  with pytest.raises(UserError, match=r'is a file; expected .* a folder'):
    paths.check_output(file, folder=True)
  with pytest.raises(UserError, match=r'below .*file, which is not a folder'):
    paths.check_output(file / 'a' / 'b')
  with pytest.raises(UserError, match=r"ends with '.npz'; expected .json or"):
    paths.check_output('a.npz', suffixes=['.json', '.csv'])
  # Root may write anywhere, so that the mode of a folder says nothing to it.
  monkeypatch.setattr(os, 'access', lambda place, mode: False)
  with pytest.raises(UserError, match='is not writable'):
    paths.check_output(pathlib.Path('a.json'))


def mode(path):
  return stat.S_IMODE(path.stat().st_mode)


def test_a_new_file_follows_the_umask_and_an_old_one_keeps_its_mode(tmp_path):
  old, new = tmp_path / 'old', tmp_path / 'new'
  old.touch(0o600)
  before = os.umask(0o027)
  try:
    with paths.replacing(old) as temporary:
      temporary.write_text('secret')
      assert mode(temporary) == 0o600
    paths.write_text(new, '')
    assert (mode(old), mode(new)) == (0o600, 0o640)
    old.chmod(0o664)
    paths.write_text(old, '')
    # Also of writers that make their file anew.
    with paths.replacing(new) as temporary:
      temporary.unlink()
      temporary.touch(0o600)
    assert (mode(old), mode(new)) == (0o664, 0o640)
  finally:
    os.umask(before)


def test_a_link_goes_on_leading_to_its_file(tmp_path):
  (tmp_path / 'far').mkdir()
  file, link = tmp_path / 'far/a.json', tmp_path / 'a.json'
  file.write_text('old')
  link.symlink_to('far/a.json')
  paths.write_text(link, 'new')
  assert link.is_symlink() and file.read_text() == 'new'
  assert sorted(tmp_path.rglob('*')) == [link, file.parent, file]


def test_a_link_to_nothing_is_replaced(tmp_path):
  link = tmp_path / 'a.json'
  link.symlink_to(tmp_path / 'nowhere')
  paths.write_text(link, 'new')
  assert not link.is_symlink() and link.read_text() == 'new'
  assert list(tmp_path.iterdir()) == [link]


def test_file_and_folder_are_on_the_disk_in_this_order(tmp_path, monkeypatch):
  done = []
  fsync, replace = os.fsync, pathlib.Path.replace

  def synced(number):
    kind = os.fstat(number).st_mode
    done.append('folder' if stat.S_ISDIR(kind) else os.fstat(number).st_size)
    fsync(number)

  def replaced(path, target):
    done.append('replace')
    return replace(path, target)

  monkeypatch.setattr(os, 'fsync', synced)
  monkeypatch.setattr(pathlib.Path, 'replace', replaced)
  paths.write_text(tmp_path / 'a', 'four')
  assert done == [4, 'replace', 'folder']


def test_folders_that_cannot_be_synced_are_no_failure(tmp_path, monkeypatch):
  def synced(number):
    if stat.S_ISDIR(os.fstat(number).st_mode):
      raise OSError(errno.EINVAL, 'Invalid argument')

  monkeypatch.setattr(os, 'fsync', synced)
  paths.write_text(tmp_path / 'a', 'b')
  assert (tmp_path / 'a').read_text() == 'b'


def test_a_folder_is_there_as_a_whole_or_not_at_all(tmp_path):
  with paths.making_folder(tmp_path / 'a' / 'b') as folder:
    (folder / 'x').write_text('1')
    assert not (tmp_path / 'a' / 'b').exists()
  assert (tmp_path / 'a' / 'b' / 'x').read_text() == '1'
  with (
    pytest.raises(RuntimeError),
    paths.making_folder(tmp_path / 'c') as folder,
  ):
    (folder / 'x').write_text('2')
    raise RuntimeError
  with pytest.raises(paths.WriteError, match='a/b cannot be written'):  # noqa: SIM117
    with paths.making_folder(tmp_path / 'a' / 'b') as folder:
      (folder / 'x').write_text('3')
  assert (tmp_path / 'a' / 'b' / 'x').read_text() == '1'
  assert [file.name for file in tmp_path.iterdir()] == ['a']


@pytest.mark.parametrize('place', ['.', 'linked', 'empty'])
def test_an_empty_folder_is_filled_and_stays_itself(
  tmp_path, monkeypatch, place
):
  """The working directory cannot be replaced, nor what a link leads to."""
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'linked').symlink_to(tmp_path / 'empty')
  monkeypatch.chdir(tmp_path / 'empty' if place == '.' else tmp_path)
  before = (tmp_path / 'empty').stat().st_ino
  with paths.making_folder(place) as folder:
    (folder / 'x').mkdir()
    (folder / 'x' / 'y').write_text('1')
    assert not (tmp_path / 'empty' / 'x').exists()
  found = [str(f.relative_to(tmp_path)) for f in tmp_path.rglob('*')]
  assert sorted(found) == ['empty', 'empty/x', 'empty/x/y', 'linked']
  assert (tmp_path / 'empty').stat().st_ino == before
  assert (tmp_path / 'linked').is_symlink()


def test_what_came_into_an_empty_folder_meanwhile_is_kept(tmp_path):
  with pytest.raises(paths.WriteError, match='not empty'):  # noqa: SIM117
    with paths.making_folder(tmp_path) as folder:
      (folder / 'x').write_text('mine')
      (tmp_path / 'x').write_text('theirs')
  assert [file.read_text() for file in tmp_path.iterdir()] == ['theirs']
