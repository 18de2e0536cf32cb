"""`hier-jax embed` and `hier-jax search`."""

import dataclasses

import numpy as np
import pytest

from hier_jax.evaluation import embedding_files
from hier_jax.inference import model as model_lib
from tests.support import small_images
from tests.support.command_line import run


@pytest.fixture
def photos(tmp_path, monkeypatch):
  """A folder to work in, with photos/, and the model `mean` of any name."""
  monkeypatch.chdir(tmp_path)
  made = small_images.mean_color(c=0.0)[0]
  monkeypatch.setattr(model_lib, 'open_model', lambda name, **_: made)
  return small_images.classes(tmp_path / 'photos')


def test_embed_then_search(photos, capsys):
  (photos / 'red' / 'a b.jpg').write_bytes(b'broken')
  assert run('embed', 'mean', 'photos') == 0
  told = capsys.readouterr()
  assert '6 images, 3 dimensions, 3 classes\nwritten to photos.npz' in told.out
  assert 'skipped red/a b.jpg: no known format' in told.err
  assert '1 of 7 images could not be read' in told.err
  query = photos / 'red' / '0.png'
  args = ['--k', 2, '--out', 'sheet.html']
  assert run('search', 'photos.npz', query, *args) == 0
  told = capsys.readouterr().out.splitlines()
  assert told[0] == f'{query} (red)'
  assert told[1].split()[2:] == ['red', 'right', 'red/1.png']
  assert told[2].split()[2:4] == ['blue', 'wrong']
  assert told[3] == 'contact sheet written to sheet.html'
  assert (photos.parent / 'sheet.html').read_text().count('<img') == 3


def test_files_are_named_after_folders_with_dots(photos):
  photos.rename('photos.v1')
  assert run('embed', 'mean', 'photos.v1') == 0
  assert run('embed', 'mean', 'photos.v1/red/1.png') == 0
  assert embedding_files.read('photos.v1.npz').labels is not None
  assert embedding_files.read('1.npz').ids == ['1.png']


def test_a_query_of_a_gallery_that_was_moved(photos, capsys):
  assert run('embed', 'mean', 'photos') == 0
  photos.rename('moved')
  query = 'moved/red/0.png'
  capsys.readouterr()
  assert run('search', 'photos.npz', query, '--images', 'moved') == 0
  told = capsys.readouterr().out.splitlines()
  assert told[0] == f'{query} (red)' and len(told) == 6
  assert told[1].split()[2:] == ['red', 'right', 'red/1.png']


def test_search_a_folder_and_a_query_from_elsewhere(photos, tmp_path, capsys):
  query = small_images.write(tmp_path / 'elsewhere' / 'q.png', (199, 20, 20))
  assert run('search', 'mean', query, '--gallery', 'photos', '--k', 1) == 0
  told = capsys.readouterr()
  assert told.out.splitlines()[1].split()[2:] == ['red', 'red/0.png']
  assert 'write them with: hier-jax embed mean photos' in told.err


@pytest.mark.parametrize('kind', ['flat', 'hnsw'])
def test_an_index(photos, capsys, kind):
  pytest.importorskip('faiss')
  out = ['--out', 'a.faiss']
  assert run('embed', 'mean', 'photos', *out, '--index', kind) == 0
  other = ['--index', {'flat': 'hnsw', 'hnsw': 'ivfpq'}[kind]]
  assert run('embed', 'mean', 'photos', *out, '--add', *other) == 2
  assert f'is an index of kind {kind}, to which' in capsys.readouterr().err
  same = ['--index', kind]
  assert run('embed', 'mean', 'photos', *out, '--add', *same) == 0
  assert 'holds all of these' in capsys.readouterr().out
  small_images.write(photos / 'red' / 'new.png', (201, 20, 20))
  assert run('embed', 'mean', 'photos', *out, '--add') == 0
  assert (
    '1 images, 3 dimensions, 1 classes; 7 in all' in capsys.readouterr().out
  )
  assert run('search', 'a.faiss', photos / 'red' / '0.png', '--k', 1) == 0
  assert 'red/new.png' in capsys.readouterr().out
  assert run('embed', 'mean', 'photos', *out, '--add') == 0
  assert 'holds all of these images already' in capsys.readouterr().out


@pytest.mark.parametrize('out', ['a.npz', 'a.faiss'])
def test_two_that_add_at_once(photos, tmp_path, capsys, monkeypatch, out):
  if out == 'a.faiss':
    pytest.importorskip('faiss')
  out = ['--out', out]
  assert run('embed', 'mean', 'photos', *out) == 0
  made, calls = small_images.mean_color(c=0.0)
  add = lambda name: run('embed', 'mean', name, *out, '--add')

  def another_adds(*_, **__):
    monkeypatch.setattr(model_lib, 'open_model', lambda name, **_: made)
    assert add(small_images.classes(tmp_path / 'more')) == 0
    del calls[:]
    return made

  small_images.write(photos / 'red' / 'new.png')
  monkeypatch.setattr(model_lib, 'open_model', another_adds)
  assert add('photos') == 2 and not calls
  assert 'has written a.' in capsys.readouterr().err
  assert add('photos') == 0
  assert '; 13 in all' in capsys.readouterr().out


def test_too_few_images_for_an_index_are_not_embedded(
  photos, tmp_path, capsys, monkeypatch
):
  pytest.importorskip('faiss')
  made, calls = small_images.mean_color(c=0.0)
  monkeypatch.setattr(model_lib, 'open_model', lambda name, **_: made)
  assert run('embed', 'mean', 'photos', '--out', 'a.faiss') == 0
  before = {path: path.read_bytes() for path in tmp_path.glob('*.faiss*')}
  del calls[:]
  out = ['--out', 'a.faiss', '--index', 'ivfpq']
  assert run('embed', 'mean', 'photos/red', *out) == 2
  assert 'found 2: take flat or hnsw' in capsys.readouterr().err
  assert not calls and len(before) == 3
  assert all(path.read_bytes() == text for path, text in before.items())


def test_files_that_know_no_labels(photos, capsys):
  assert run('embed', 'mean', 'photos/red', '--out', 'red.npz') == 0
  assert 'no labels' in capsys.readouterr().out
  assert embedding_files.read('red.npz').labels is None
  assert run('search', 'red.npz', photos / 'red' / '0.png') == 0
  line = capsys.readouterr().out.splitlines()[1]
  assert line.split()[0] == '1' and line.split()[2:] == ['1.png']


@pytest.mark.parametrize(
  ('args', 'message'),
  [
    (['embed'], 'needs a MODEL and a SOURCE'),
    (['embed', 'mean', 'none'], 'there is no source none'),
    (['embed', 'mean', 'empty'], 'empty holds no image'),
    (['embed', 'mean', 'bad'], r'none of the 2 images of bad can be read: '),
    (['embed', 'mean', 'photos', '--out', 'a.csv'], 'expected .npz or'),
    (['embed', 'mean', 'photos', '--out', 'photos/red/0.png'], 'expected .npz'),
    (['embed', 'mean', 'photos', '--index', 'hnsw'], 'is for a .faiss'),
    (['embed', 'mean', 'photos', '--batch_size', '0'], 'integer of 1 or more'),
    (['embed', 'mean', 'photos', '--batch_size=inf'], 'batch_size is inf; exp'),
    (['embed', 'mean', 'photos', '--batch_size=nan'], 'batch_size is nan; exp'),
    (['embed', 'mean', 'photos', '--add'], 'does not exist: leave out --add'),
    (['embed', 'mean', 'photos/red', '--labels', 'folder'], 'of a class'),
    (['search', 'mean'], 'needs a MODEL or an INDEX'),
    (['search', 'mean', 'photos/red/0.png'], 'name a folder or a file with'),
    (['search', 'mean', 'bad/a.jpg', '--gallery', 'photos'], 'none of the 1'),
    (['search', 'none.npz', 'photos/red/0.png', '--k', '1.5'], '--k is 1.5'),
    (['search', 'f.npz', 'photos/red/0.png'], 'name it with --model'),
    (
      ['search', 'f.npz', 'photos/red/0.png', '--gallery', 'photos'],
      'is a gallery already',
    ),
    (
      ['search', 'x', 'photos/red/0.png', '--out', 'photos/red/0.png'],
      'is an input',
    ),
  ],
)
def test_mistakes_write_nothing(photos, tmp_path, capsys, args, message):
  (tmp_path / 'empty').mkdir()
  (tmp_path / 'bad').mkdir()
  (tmp_path / 'bad' / 'a.jpg').write_bytes(b'no')
  (tmp_path / 'bad' / 'b.jpg').write_bytes(b'')
  np.savez(tmp_path / 'f.npz', embeddings=np.eye(3))
  before = sorted(tmp_path.rglob('*'))
  assert run(*args) == 2
  error = capsys.readouterr().err
  assert message in error and error.splitlines()[-1].startswith('hier-jax: ')
  assert sorted(tmp_path.rglob('*')) == before


def test_a_gallery_of_another_model(photos, capsys, monkeypatch):
  assert run('embed', 'mean', 'photos') == 0
  other = dataclasses.replace(
    small_images.mean_color()[0], name='other', digest='x' * 32
  )
  monkeypatch.setattr(model_lib, 'open_model', lambda name, **_: other)
  query = photos / 'red' / '0.png'
  assert run('search', 'other', query, '--gallery', 'photos.npz') == 2
  error = capsys.readouterr().err
  assert 'embedded with mean, another model than other' in error
