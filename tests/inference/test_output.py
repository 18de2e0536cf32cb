"""Files and indexes that are written, read and added to."""

import contextlib
import sqlite3

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation import embedding_files
from hier_jax.inference import embed, gallery, output, sources
from tests.support import small_images


def made(folder, model, **options):
  source = sources.open_source(folder, **options)
  return embed.embed_images(model, source).embedded


@pytest.fixture
def model():
  return small_images.mean_color(c=0.0)[0]


@pytest.fixture(params=['.npz', '.faiss'])
def path(request, tmp_path):
  if request.param == '.faiss':
    pytest.importorskip('faiss')
  return tmp_path / 'out' / f'a{request.param}'


def ids(path):
  if path.suffix == '.npz':
    return list(embedding_files.read(path).ids)
  index = gallery.open_index(path)
  return [index.item(row).id for row in range(len(index))]


def add(model, path, folder, **options):
  old = output.check(path, add=True, inputs=[])
  source = sources.open_source(folder, root=old.root, **options)
  source = output.new_images(old, model, source)
  found = embed.embed_images(model, source).embedded
  return output.write(found, path, old=old)


def test_images_are_added_once(tmp_path, model, path):
  photos = small_images.classes(tmp_path / 'photos')
  assert output.write(made(photos, model), path) == 6
  first = ids(path)
  small_images.write(photos / 'red' / 'new.png', (9, 9, 9))
  assert add(model, path, photos) == 7
  assert ids(path) == [*first, 'red/new.png']
  # Of another folder too, whose names would clash.
  more = small_images.classes(tmp_path / 'more', per_class=1)
  assert add(model, path, more) == 10
  assert ids(path)[7:] == [
    str(more / name / '0.png') for name in ('blue', 'green', 'red')
  ]


def test_added_rows_are_found(tmp_path, model):
  pytest.importorskip('faiss')
  path = tmp_path / 'a.faiss'
  photos = small_images.classes(tmp_path / 'photos')
  found = made(photos, model)
  output.write(found, path)
  more = small_images.classes(tmp_path / 'more', per_class=1)
  add(model, path, more)
  index = gallery.open_index(path)
  far, rows = index.search(found.embeddings[:1], 20)
  # Blue 0 twice, then its neighbor.
  assert rows[0, :3].tolist() == [0, 6, 1]
  assert far[0, 0] == far[0, 1] < 1e-6 and far[0, 2] > 1e-3
  assert rows[0, 9:].tolist() == [-1] * 11
  assert index.labels == {'red', 'green', 'blue'}
  assert index.item(0) == ('blue/0.png', 'blue')
  assert index.has('blue/0.png') and not index.has('blue/2.png')


def test_a_crash_between_two_files_loses_nothing(tmp_path, model, monkeypatch):
  pytest.importorskip('faiss')
  path = tmp_path / 'a.faiss'
  photos = small_images.classes(tmp_path / 'photos')
  output.write(made(photos, model), path)
  small_images.write(photos / 'red' / 'new.png', (9, 9, 9))

  def crash(*_):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(gallery.faiss_index, 'add_faiss', crash)
    with pytest.raises(KeyboardInterrupt):
      add(model, path, photos)
  index = gallery.open_index(path)
  assert len(index) == 6 and not index.has('red/new.png')
  assert add(model, path, photos) == 7
  assert gallery.open_index(path).item(6).id == 'red/new.png'


def test_an_index_that_cannot_be_written_leaves_the_old_one(tmp_path, model):
  pytest.importorskip('faiss')
  path = tmp_path / 'a.faiss'
  photos = small_images.classes(tmp_path / 'photos')
  output.write(made(photos, model), path)
  before = {file: file.read_bytes() for file in tmp_path.glob('a.faiss*')}
  with pytest.raises(UserError, match='learns from 9,984 rows or more'):
    output.write(made(photos / 'red', model), path, kind='ivfpq')
  assert len(before) == 3
  assert before == {f: f.read_bytes() for f in tmp_path.glob('a.faiss*')}


@pytest.mark.parametrize('name', ['a.faiss', 'a.faiss.npz', 'a.faiss.items'])
def test_files_of_two_indexes_are_told(tmp_path, model, name):
  pytest.importorskip('faiss')
  path = tmp_path / 'a.faiss'
  photos = small_images.classes(tmp_path / 'photos')
  output.write(made(photos / 'red', model), path)
  old = (tmp_path / name).read_bytes()
  output.write(made(photos / 'blue', model), path)
  new = (tmp_path / name).read_bytes()
  (tmp_path / name).write_bytes(old)
  with pytest.raises(UserError, match=r'was not written with .*anew'):
    gallery.open_index(path)
  (tmp_path / name).write_bytes(new)
  assert len(gallery.open_index(path)) == 2


def without_token(path):
  """Makes an index what older versions wrote."""
  with path.open('r+b') as file:
    file.truncate(path.stat().st_size - 40)
  beside = path.with_name(f'{path.name}.npz')
  arrays = dict(np.load(beside))
  del arrays['token']
  np.savez(beside, **arrays)
  items = path.with_name(f'{path.name}.items')
  with contextlib.closing(sqlite3.connect(items)) as base:
    base.execute('DROP TABLE token')
    base.commit()


def test_an_index_of_an_older_version(tmp_path, model):
  pytest.importorskip('faiss')
  path = tmp_path / 'a.faiss'
  photos = small_images.classes(tmp_path / 'photos')
  output.write(made(photos / 'red', model), path)
  without_token(path)
  assert add(model, path, photos / 'blue', labels='none') == 4
  index = gallery.open_index(path)
  assert len(index) == 4 and index.item(0).id == '0.png'


def test_what_cannot_be_added(tmp_path, model, path):
  photos = small_images.classes(tmp_path / 'photos')
  with pytest.raises(UserError, match='does not exist: leave out --add'):
    output.check(path, add=True, inputs=[])
  output.write(made(photos, model), path)
  other = small_images.mean_color(digest='x' * 32)[0]
  with pytest.raises(UserError, match='written with another model, mean'):
    add(other, path, photos)
  if path.suffix == '.npz':
    with pytest.raises(UserError, match=r'only one of .* has labels'):
      add(model, path, photos, labels='none')


@pytest.mark.parametrize('suffix', ['.npz', '.parquet', '.faiss'])
def test_names_that_are_no_utf8_are_added_once(tmp_path, model, suffix):
  if suffix != '.npz':
    pytest.importorskip({'.faiss': 'faiss', '.parquet': 'pyarrow'}[suffix])
  photos = small_images.classes(tmp_path / 'photos', per_class=1)
  try:
    small_images.write(photos / 'b\udcff' / 'a\udcff.png')
  except OSError:
    pytest.skip('the file system takes no such name')
  path = tmp_path / f'a{suffix}'
  output.write(made(photos, model), path)
  old = output.check(path, add=True, inputs=[])
  source = sources.open_source(photos, root=old.root)
  assert len(source) == 4
  assert not len(output.new_images(old, model, source))


def test_ids_that_stand_twice_are_named(tmp_path, model):
  path = tmp_path / 'a.npz'
  photos = small_images.classes(tmp_path / 'photos')
  output.write(made(photos, model), path)
  old = output.check(path, add=True, inputs=[])
  new = made(photos / 'red', model)._replace(
    ids=['red/1.png', 'red/2.png'], labels=np.array(['red', 'red'])
  )
  with pytest.raises(UserError, match=r'^1 ids stand twice: red/1\.png; exp'):
    output.write(new, path, old=old)


def test_files_of_others_are_not_added_to(tmp_path):
  np.savez(tmp_path / 'a.npz', embeddings=np.eye(3))
  with pytest.raises(UserError, match='not written by hier-jax embed'):
    output.check(tmp_path / 'a.npz', add=True, inputs=[])


def test_an_index_without_its_table(tmp_path, model):
  pytest.importorskip('faiss')
  path = tmp_path / 'a.faiss'
  output.write(made(small_images.classes(tmp_path / 'p'), model), path)
  items = tmp_path / 'a.faiss.items'
  index = gallery.open_index(path)
  with contextlib.closing(sqlite3.connect(items)) as base:
    base.execute("UPDATE items SET embedding = x'00', id = NULL")
    base.execute('DROP TABLE labels')
    base.commit()
  for broken in (
    lambda: index.search(np.zeros((1, 3), np.float32), 1),
    lambda: index.item(0),
    lambda: index.labels,
  ):
    with pytest.raises(UserError, match='is no table of images'):
      broken()
  items.write_bytes(b'no database' * 100)
  with pytest.raises(UserError, match='is no table of images'):
    gallery.open_index(path)
  items.unlink()
  with pytest.raises(UserError, match='copy all three of its files'):
    gallery.open_index(path)
