"""Collections of runs and of files."""

import numpy as np
import pytest

from hier_jax.data import datasets
from hier_jax.errors import UserError
from hier_jax.evaluation import embedding_files
from hier_jax.inference import collection, embed, model, sources
from hier_jax.training.run import from_checkpoint, workdir
from tests.support import small_images, training_data


def test_a_run(trained, colors):
  made = collection.load(trained[0])
  want = from_checkpoint.read_task(trained[0]).queries
  np.testing.assert_array_equal(made.embeddings, want.embeddings)
  np.testing.assert_array_equal(made.proxies, want.proxies)
  split = colors['test']
  assert made.ids[:2] == ('test/0', 'test/1') and len(made) == len(split)
  assert made.classes == tuple(split.names['label'])
  assert made.labels.tolist() == split.labels.tolist()
  assert made.taxonomy.level_names == ('kind', 'class')
  assert made.taxonomy.classes == made.classes
  assert made.image(3).size == (8, 8) and made.c == 0.1
  assert made.metrics['recall@1'] > 0
  assert made.title == 'run, step 3, on colors:test'
  # What is made of it is sent on.
  assert str(trained[0].parent) not in str(made.info)
  at = collection.load(trained[0] / 'checkpoints' / '3', split='train')
  assert at.ids[0] == 'train/0'


def test_missing_labels_are_no_class(tmp_path):
  path = tmp_path / 'a.npz'
  np.savez(path, embeddings=np.eye(3), labels=np.array([0.0, 1.0, np.nan]))
  with pytest.raises(UserError, match='`labels` lacks the label of'):
    collection.load(path)


def test_a_split_is_that_of_its_name(trained, monkeypatch):
  train, test = (trained[1][name] for name in ('train', 'test'))
  splits = {'train': train, 'query': train, 'gallery': test}
  monkeypatch.setattr(datasets, 'load', lambda name, **_: splits)
  monkeypatch.setattr(workdir, 'check_splits', lambda *_: None)
  for name, want in ((None, test), ('query', train), ('gallery', test)):
    made = collection.load(trained[0], split=name)
    assert made.classes == tuple(want.names['label'])
  with pytest.raises(UserError, match=r"no split 'test'; it has train, query"):
    collection.load(trained[0], split='test')


def test_a_run_is_not_looked_at_with_data_prepared_anew(trained, monkeypatch):
  other = training_data.splits(classes=16)
  other['train'], other['test'] = other['test'], other['train']
  monkeypatch.setattr(datasets, 'load', lambda name, **_: other)
  for read in collection.load, from_checkpoint.read_task:
    with pytest.raises(
      UserError, match='other data: split train is 48 records'
    ):
      read(trained[0])


def test_a_file_is_the_collection_of_what_was_embedded(
  trained, colors, tmp_path
):
  opened = model.open_model(trained[0])
  source = sources.open_source('colors:test')
  found = embed.embed_images(opened, source)
  embedding_files.write(found.embedded, tmp_path / 'a.npz')
  made, want = collection.load(tmp_path / 'a.npz'), collection.load(trained[0])
  np.testing.assert_allclose(
    made.embeddings, want.embeddings, rtol=1e-4, atol=1e-6
  )
  np.testing.assert_array_equal(made.proxies, want.proxies)
  assert made.ids == want.ids and made.c == want.c
  labels = lambda of: [of.label(i) for i in range(len(of))]
  assert labels(made) == labels(want)
  assert made.image(5).tobytes() == want.image(5).tobytes()
  assert set(made.taxonomy.classes) == set(made.classes)


def test_a_run_embeds_without_its_data_set(trained, monkeypatch, tmp_path):
  def load(name, **_):
    raise UserError('not prepared')

  monkeypatch.setattr(datasets, 'load', load)
  small_images.classes(tmp_path / 'photos')
  opened = model.open_model(trained[0])
  source = sources.open_source(tmp_path / 'photos')
  found = embed.embed_images(opened, source, batch_size=3)
  assert found.embedded.embeddings.shape == (6, 16)
  embedding_files.write(found.embedded, tmp_path / 'a.npz')
  made = collection.load(tmp_path / 'a.npz')
  assert made.taxonomy is None and made.proxies.shape == (24, 16)
  assert made.image(0).getpixel((0, 0)) == small_images.COLORS['blue']
  (tmp_path / 'photos').rename(tmp_path / 'moved')
  with pytest.raises(UserError, match='if the images were moved'):
    made.image(0)
  moved = collection.load(tmp_path / 'a.npz', images=tmp_path / 'moved')
  assert moved.image(0).size == (10, 8)


def test_a_file_of_another_framework(tmp_path):
  np.savez(tmp_path / 'a.npz', embeddings=np.eye(3), labels=[7, 3, 7])
  (tmp_path / 't.csv').write_text('class,kind\n3,a\n7,b\n')
  made = collection.load(tmp_path / 'a.npz', taxonomy=tmp_path / 't.csv')
  assert made.ids == ('0', '1', '2') and made.classes == ('3', '7')
  assert made.labels.tolist() == [1, 0, 1] and made.image is None
  assert made.taxonomy.level_names == ('kind', 'class')


def test_options_that_do_not_go_together(trained, tmp_path):
  with pytest.raises(UserError, match='give no folder of images'):
    collection.load(trained[0], images=tmp_path)
  np.savez(tmp_path / 'a.npz', embeddings=np.eye(3))
  with pytest.raises(UserError, match='give no split'):
    collection.load(tmp_path / 'a.npz', split='test')
  np.savez(tmp_path / 'b.npz', embeddings=np.eye(3) * np.nan)
  with pytest.raises(UserError, match='NaN or Inf'):
    collection.load(tmp_path / 'b.npz')


def test_a_strangers_file_has_nothing_written(tmp_path):
  """Nor the bundled data set where it says."""
  about = {'data': 'emoji:test', 'data_dir': str(tmp_path / 'data')}
  for changes in {}, {'data_dir': 3}, {'data': 'x:y'}, {'data': 3}:
    file = embedding_files.Embedded(
      np.eye(2), ids=['test/0', 'test/1'], about=about | changes
    )
    embedding_files.write(file, tmp_path / 'a.npz')
    made = collection.load(tmp_path / 'a.npz')
    assert made.image is None and made.taxonomy is None
  assert [path.name for path in tmp_path.iterdir()] == ['a.npz']
