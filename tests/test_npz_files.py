"""Files of arrays that ask for more than they hold, or cannot be read."""

import io
import re
import struct
import zipfile

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation import files
from hier_jax.models.weights import files as weight_files


def _weights(path):
  return weight_files.read(path)['labels']


READERS = pytest.mark.parametrize('read', [files.read, _weights])


def _member(array):
  file = io.BytesIO()
  np.save(file, array)
  return file.getvalue()


def _write(path, labels, compression=zipfile.ZIP_STORED):
  with zipfile.ZipFile(path, 'w', compression) as archive:
    archive.writestr('embeddings.npy', _member(np.eye(3)))
    archive.writestr('labels.npy', labels)


@READERS
@pytest.mark.parametrize('shape', ['(549755813888,)', '(5000000, 100000)'])
def test_more_is_declared_than_there_is(tmp_path, read, shape):
  labels = _member(np.arange(3))
  text = f"{{'descr': '<i8', 'fortran_order': False, 'shape': {shape}, }}"
  header = text.encode().ljust(117) + b'\n'
  path = tmp_path / 'a.npz'
  _write(path, labels[:8] + struct.pack('<H', 118) + header + labels[128:])
  with pytest.raises(UserError, match=r'a\.npz .*labels is declared to take'):
    read(path)


@READERS
def test_more_is_held_than_a_machine_has(tmp_path, read, monkeypatch):
  path = tmp_path / 'a.npz'
  zeros = _member(np.zeros(2 * 10**6, np.int64))
  _write(path, zeros, zipfile.ZIP_DEFLATED)
  assert path.stat().st_size < 10**5
  monkeypatch.setattr('os.sysconf', lambda name: 1000)
  with pytest.raises(UserError, match='more than this machine has'):
    read(path)


@READERS
@pytest.mark.parametrize('damage', ['encrypted', 'compression', 'deflate'])
def test_an_archive_that_cannot_be_read(tmp_path, read, damage):
  path = tmp_path / 'a.npz'
  _write(path, _member(np.arange(100)), zipfile.ZIP_DEFLATED)
  data = bytearray(path.read_bytes())
  # Flags and method of each member, in its header and in the directory.
  for sign, flags in ((b'PK\x03\x04', 6), (b'PK\x01\x02', 8)):
    for found in re.finditer(re.escape(sign), bytes(data)):
      at = found.start() + flags
      if damage == 'encrypted':
        data[at] |= 1
      elif damage == 'compression':
        data[at + 2] = 97
  if damage == 'deflate':
    for found in re.finditer(rb'\.npy', bytes(data[:-200])):
      data[found.end() : found.end() + 20] = b'\xff' * 20
  path.write_bytes(data)
  with pytest.raises(UserError, match=r'a\.npz cannot be read'):
    read(path)
