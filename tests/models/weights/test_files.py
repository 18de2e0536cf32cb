"""Readers of weights of any framework, and the writer."""

import stat

import numpy as np
import pytest
import safetensors.numpy

from hier_jax.errors import UserError
from hier_jax.models.weights import files
from tests.support import torch_zip

ARRAYS = {
  'a': np.arange(6, dtype=np.float32).reshape(2, 3),
  'b/c': np.array(2, np.int64),
}


def _safetensors(path):
  safetensors.numpy.save_file(ARRAYS, path, {'format': 'pt'})


def _npz(path):
  np.savez(path, **ARRAYS)


def _torch(path):
  saved = {
    'a': torch_zip.tensor('0', 6, (2, 3), (3, 1)),
    'b/c': torch_zip.tensor('1', 1, (), (), storage='LongStorage'),
  }
  storages = {'0': ARRAYS['a'], '1': ARRAYS['b/c']}
  torch_zip.write(path, torch_zip.mapping(saved), storages)


WRITERS = {'.safetensors': _safetensors, '.npz': _npz, '.pth': _torch}


@pytest.mark.parametrize('suffix', WRITERS)
def test_arrays_by_name(tmp_path, suffix):
  path = tmp_path / f'weights{suffix}'
  WRITERS[suffix](path)
  arrays = files.read(path)
  assert list(arrays) == list(ARRAYS) and len(arrays) == 2
  for name, want in ARRAYS.items():
    assert arrays[name].dtype == want.dtype
    np.testing.assert_array_equal(arrays[name], want)
  with pytest.raises(KeyError):
    arrays['d']


@pytest.mark.parametrize('suffix', WRITERS)
def test_the_suffix_does_not_matter(tmp_path, suffix):
  path = tmp_path / 'weights.dat'
  with open(path, 'wb') as file:
    WRITERS[suffix](tmp_path / f'weights{suffix}')
    file.write((tmp_path / f'weights{suffix}').read_bytes())
  np.testing.assert_array_equal(files.read(path)['a'], ARRAYS['a'])


@pytest.mark.parametrize('suffix', WRITERS)
def test_files_cut_short(tmp_path, suffix):
  path = tmp_path / f'weights{suffix}'
  WRITERS[suffix](path)
  data = path.read_bytes()
  for length in range(0, len(data), 7):
    path.write_bytes(data[:length])
    with pytest.raises(UserError) as error:
      dict(files.read(path))
    assert str(path) in str(error.value), length


@pytest.mark.parametrize(
  ('content', 'message'),
  [
    (b'', 'is empty; expected a .safetensors, an .npz or a PyTorch'),
    (b'<!DOCTYPE html>', 'it starts with "<!DOCTYPE html>"'),
    (
      b'version https://git-lfs.github.com/spec/v1',
      'starts with "version http',
    ),
    (b'\x10\x00\x00\x00\x00\x00\x00\x00{"a": 1}', 'cannot be read'),
    (b'PK\x03\x04 and so on', 'cannot be read .*not a zip file'),
  ],
)
def test_other_files(tmp_path, content, message):
  path = tmp_path / 'weights.safetensors'
  path.write_bytes(content)
  with pytest.raises(UserError, match=message) as error:
    files.read(path)
  assert str(path) in str(error.value)


def test_no_file(tmp_path):
  with pytest.raises(UserError, match=r'nothing\.pth does not exist; expected'):
    files.read(tmp_path / 'nothing.pth')
  with pytest.raises(UserError, match=r'is a folder; expected a \.safetensors'):
    files.read(tmp_path)


def test_objects_in_npz_are_not_unpickled(tmp_path):
  path = tmp_path / 'weights.npz'
  np.savez(path, a=np.array([{'an': 'object'}], dtype=object))
  arrays = files.read(path)
  with pytest.raises(UserError, match=r'weights\.npz .*allow_pickle=False'):
    arrays['a']


@pytest.mark.parametrize('name', ['teacher', 'model', 'state_dict'])
def test_networks_within_checkpoints(tmp_path, name):
  network = torch_zip.mapping({'a': torch_zip.vector('0', 6)})
  student = torch_zip.mapping({'a': torch_zip.vector('1', 6)})
  saved = {'student': student, name: network, 'epoch': torch_zip.number(1)}
  storages = {'0': ARRAYS['a'], '1': -ARRAYS['a']}
  path = torch_zip.write(tmp_path / 'a.pth', torch_zip.mapping(saved), storages)
  np.testing.assert_array_equal(files.read(path)['a'], ARRAYS['a'].ravel())


@pytest.mark.parametrize(
  ('pickled', 'message'),
  [
    (torch_zip.number(3), 'holds one int, expected tensors by name'),
    (torch_zip.vector('0', 6), 'holds one ndarray, expected tensors by name'),
    (
      torch_zip.mapping({'epoch': torch_zip.number(1)}),
      "holds no tensors by name, but 'epoch'; they .*'teacher', 'model'",
    ),
    (torch_zip.mapping({}), 'holds no tensors by name, but nothing'),
    # A dictionary that holds itself.
    (b'}q\x00' + torch_zip.text('model') + b'h\x00s', 'holds no tensors'),
  ],
)
def test_checkpoints_without_a_network(tmp_path, pickled, message):
  path = torch_zip.write(tmp_path / 'a.pth', pickled, {'0': ARRAYS['a']})
  with pytest.raises(UserError, match=message) as error:
    files.read(path)
  assert str(path) in str(error.value)


def test_written_files_are_whole_and_readable(tmp_path):
  path = tmp_path / 'weights.safetensors'
  transposed = {'t': ARRAYS['a'].T, 'every': np.arange(9.0)[::2]}
  files.write(path, transposed, {'made': 'here'})
  assert files.metadata(path) == {'made': 'here'}
  for name, array in files.read(path).items():
    np.testing.assert_array_equal(array, transposed[name])
  other = tmp_path / 'other'
  other.touch()
  mode = lambda p: stat.S_IMODE(p.stat().st_mode)
  assert mode(path) == mode(other)
  assert {p.name for p in tmp_path.iterdir()} == {path.name, 'other'}


def test_the_old_file_outlives_a_failure(tmp_path, monkeypatch):
  path = tmp_path / 'weights.safetensors'
  files.write(path, ARRAYS, {})
  old = path.read_bytes()

  def full(arrays, filename, metadata):
    filename.write_bytes(b'half')
    raise OSError('no space left')

  monkeypatch.setattr(safetensors.numpy, 'save_file', full)
  match = r'weights\.safetensors cannot be written .*no space left'
  with pytest.raises(UserError, match=match):
    files.write(path, {}, {})
  assert path.read_bytes() == old
  assert list(tmp_path.iterdir()) == [path]


def test_metadata_of_files_that_have_none(tmp_path):
  path = tmp_path / 'weights.npz'
  _npz(path)
  assert files.metadata(path) == {}
  with pytest.raises(UserError, match=r'gone\.npz does not exist'):
    files.metadata(tmp_path / 'gone.npz')


def test_a_reason_that_quotes_the_damage_is_cut(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, **{'x' * 40: np.zeros(5_000, np.uint8)})
  damaged = bytearray(path.read_bytes())
  # The name in the first file's own header is as long as the data.
  damaged[26:28] = (4_000).to_bytes(2, 'little')
  path.write_bytes(damaged)
  with pytest.raises(UserError, match='cannot be read') as raised:
    files.read(path)['x' * 40]
  assert len(str(raised.value)) < 500 + len(str(path))
