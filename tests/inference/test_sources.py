"""Where images come from, and what their classes are."""

import os

import pytest

from hier_jax.data import datasets
from hier_jax.errors import UserError
from hier_jax.inference import sources
from tests.support import small_images, training_data


def ids(*args, **options):
  return list(sources.open_source(*args, **options).ids)


def test_a_folder_of_classes(tmp_path):
  small_images.classes(tmp_path)
  found = sources.open_source(tmp_path)
  assert found.ids[:3] == ('blue/0.png', 'blue/1.png', 'green/0.png')
  assert found.labels[:3] == ('blue', 'blue', 'green')
  assert found.about == {'root': str(tmp_path)}
  assert found.image(0).getpixel((0, 0)) == small_images.COLORS['blue']
  assert sources.open_source(tmp_path, labels='none').labels is None


def test_labels_are_not_guessed_of_other_folders(tmp_path):
  """Years, or splits above the classes, are no classes."""
  small_images.write(tmp_path / '2019' / 'paris' / 'a.jpg')
  small_images.write(tmp_path / '2020' / 'b.jpg')
  assert sources.open_source(tmp_path).labels is None
  asked = sources.open_source(tmp_path, labels='folder')
  assert asked.labels == ('2019', '2020')
  small_images.write(tmp_path / 'c.jpg')
  assert sources.open_source(tmp_path).labels is None
  with pytest.raises(UserError, match=r'1 images lie in .* itself .*: c\.jpg'):
    sources.open_source(tmp_path, labels='folder')


def test_one_folder_is_no_class(tmp_path):
  small_images.write(tmp_path / 'all' / 'a.jpg')
  assert sources.open_source(tmp_path).labels is None


def test_what_lies_in_a_folder_besides(tmp_path):
  small_images.write(tmp_path / 'a.PNG')
  small_images.write(tmp_path / '.hidden.png')
  (tmp_path / 'phone.heic').write_bytes(b'no')
  (tmp_path / 'notes.txt').write_text('no image')
  (tmp_path / 'gone.jpg').symlink_to(tmp_path / 'nowhere.jpg')
  (tmp_path / 'again').symlink_to(tmp_path)
  found = sources.open_source(tmp_path)
  assert found.ids == ('a.PNG', 'gone.jpg', 'phone.heic')
  notes = '\n'.join(found.notes)
  assert 'skipped 1 files that are no images by name: notes.txt' in notes
  assert '1 folders are others once more' in notes
  with pytest.raises(UserError, match='No such file'):
    found.image(1)


def test_patterns_and_single_images(tmp_path, monkeypatch):
  small_images.classes(tmp_path / 'c')
  monkeypatch.chdir(tmp_path)
  assert ids('c/*/0.png') == ['blue/0.png', 'green/0.png', 'red/0.png']
  assert ids('c/**/1.png')[0] == 'blue/1.png'
  assert ids('c/red/1.png') == ['1.png']
  with pytest.raises(UserError, match=r'c/\*\.jpg holds no image'):
    ids('c/*.jpg')


def test_lists(tmp_path):
  small_images.classes(tmp_path / 'c')
  path = tmp_path / 'list.txt'
  path.write_text('c/red/0.png\tR\n\nc/blue/0.png\tB\nc/red/0.png\tR\n')
  found = sources.open_source(path)
  assert found.ids == ('c/red/0.png', 'c/blue/0.png')
  assert found.labels == ('R', 'B')
  away = tmp_path / 'away.png'
  path.write_text(f'{away}\nc/none.png\n')
  found = sources.open_source(path, root=tmp_path / 'c')
  assert found.ids == (str(away), 'none.png') and found.labels is None
  for text, message in (
    ('\n', 'lists no image'),
    ('a.png\tA\nb.png\n', r'no class for 1 of 2 images: b\.png'),
  ):
    path.write_text(text)
    with pytest.raises(UserError, match=message):
      sources.open_source(path)


def test_an_image_that_is_named_twice(tmp_path):
  small_images.classes(tmp_path / 'c')
  path = tmp_path / 'list.txt'
  path.write_text(
    f'c/red/0.png\tR\n./c/../c/red/0.png\tR\n{tmp_path}/c/red/0.png\tR'
  )
  found = sources.open_source(path)
  assert (found.ids, found.labels) == (('c/red/0.png',), ('R',))
  path.write_text('c/red/0.png\tR\n./c/red/0.png\tB\n')
  with pytest.raises(UserError, match=r'two classes for 1 .*0\.png \(R, B\)'):
    sources.open_source(path)
  assert ids(path, labels='none') == ['c/red/0.png']
  found = ids(tmp_path / '**' / '**' / '*.png')
  assert len(found) == len(set(found)) == 6


def test_a_split_of_a_data_set(monkeypatch):
  made = training_data.splits(classes=4, per_class=2)
  monkeypatch.setattr(datasets, 'load', lambda name, **_: made)
  found = sources.open_source('folder/birds:test')
  assert found.ids[:2] == ('test/0', 'test/1') and len(found) == 8
  assert found.labels[0] == 'test color 0'
  assert found.about == {'data': 'folder/birds:test'}
  assert found.image(0).size == (8, 8)
  with pytest.raises(UserError, match="no split 'x'; it has train, test"):
    sources.open_source('emoji:x')


@pytest.mark.parametrize('name', ['none', 'none.jpg', 'a b/c'])
def test_no_source(tmp_path, monkeypatch, name):
  monkeypatch.chdir(tmp_path)
  with pytest.raises(UserError, match=f'there is no source {name}: expected'):
    sources.open_source(name)


def test_an_empty_folder_says_what_it_holds(tmp_path):
  (tmp_path / 'a.csv').write_text('')
  with pytest.raises(UserError, match=r'holds no image \(skipped 1 .*a\.csv'):
    sources.open_source(tmp_path)


def test_digest_changes_with_images_and_their_choice(tmp_path):
  small_images.classes(tmp_path)
  found = sources.open_source(tmp_path)
  assert found.digest == sources.open_source(tmp_path).digest
  part = found.select([3, 1])
  assert part.ids == (found.ids[3], found.ids[1])
  assert part.read(1) == found.read(1)
  small_images.write(tmp_path / 'red' / '0.png', (1, 2, 3))
  os.utime(tmp_path / 'red' / '0.png', (1, 1))
  changed = sources.open_source(tmp_path)
  assert len({found.digest, part.digest, changed.digest}) == 3
