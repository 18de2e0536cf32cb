"""Embedding many images: in order, without those that cannot be read."""

import numpy as np
import pytest
from PIL import Image

from hier_jax.errors import UserError
from hier_jax.inference import embed, sources
from tests.support import small_images


def mean_colors(found):
  return np.rint(found.embedded.embeddings * 512).astype(int).tolist()


def test_rows_are_those_of_the_images_in_order(tmp_path):
  small_images.classes(tmp_path, per_class=3)
  model, calls = small_images.mean_color(c=0.0)
  source = sources.open_source(tmp_path)
  found = embed.embed_images(model, source, batch_size=4)
  assert mean_colors(found) == [
    list(source.image(i).getpixel((0, 0))) for i in range(9)
  ]
  # One shape, padded at the end.
  assert calls == [4, 4, 4]
  assert list(found.embedded.ids) == list(source.ids)
  assert found.embedded.labels.tolist() == list(source.labels)
  assert found.embedded.about['root'] == str(tmp_path)
  assert found.embedded.about['title'] == f'mean color on {tmp_path}'
  assert (found.unread, found.resumed) == ([], 0)


def test_images_that_cannot_be_read_are_named(tmp_path):
  small_images.classes(tmp_path)
  (tmp_path / 'red' / 'a.jpg').write_bytes(b'no image')
  (tmp_path / 'blue' / '0.png').write_bytes(b'')
  Image.new('L', (1, 60_000_000 // 8)).save(tmp_path / 'green' / '9.png')
  (tmp_path / 'green' / 'gone.png').symlink_to('nowhere')
  model, _ = small_images.mean_color()
  source = sources.open_source(tmp_path)
  found = embed.embed_images(model, source, batch_size=4)
  assert len(found.embedded.embeddings) == 5
  reasons = dict(found.unread)
  assert reasons['red/a.jpg'] == reasons['blue/0.png'] == 'no known format'
  assert 'too narrow to be resized' in reasons['green/9.png']
  assert reasons['green/gone.png'] == 'No such file or directory'
  assert set(reasons).isdisjoint(found.embedded.ids)


def test_nothing_that_can_be_read(tmp_path):
  (tmp_path / 'a\nb.jpg').write_bytes(b'no image')
  model, calls = small_images.mean_color()
  with pytest.raises(UserError, match=r"none of the 1 .*'a\\nb\.jpg' \(no kn"):
    embed.embed_images(model, sources.open_source(tmp_path))
  assert not calls


def test_nan_is_refused_and_nothing_stays(tmp_path):
  small_images.classes(tmp_path / 'in')
  model, _ = small_images.mean_color(
    embed=lambda images: np.full((len(images), 3), np.nan, np.float32)
  )
  source = sources.open_source(tmp_path / 'in')
  with (
    pytest.raises(UserError, match=r'NaN or Inf of 4 images .*blue/0\.png'),
    embed.resumable(tmp_path / 'o.npz', model, source) as parts,
  ):
    embed.embed_images(model, source, parts=parts, batch_size=4)
  assert [path.name for path in tmp_path.iterdir()] == ['in']


def interrupted(model, source, out, after, error=KeyboardInterrupt):
  """Embeds until so many batches are begun."""
  calls = []

  def stopping(images):
    calls.append(None)
    if len(calls) > after:
      raise error
    return model.embed(images)

  broken = small_images.mean_color(embed=stopping)[0]
  with (
    pytest.raises(error),
    embed.resumable(out, broken, source) as parts,
  ):
    embed.embed_images(broken, source, parts=parts, batch_size=4)


@pytest.mark.parametrize('error', [KeyboardInterrupt, RuntimeError])
def test_interrupted_work_goes_on(tmp_path, error):
  small_images.classes(tmp_path / 'in', per_class=10)
  (tmp_path / 'in' / 'blue' / '3.png').write_bytes(b'broken')
  model, calls = small_images.mean_color()
  source, out = sources.open_source(tmp_path / 'in'), tmp_path / 'o.npz'
  want = embed.embed_images(model, source, batch_size=4)
  interrupted(model, source, out, 5, error)
  assert (tmp_path / '.o.npz.parts').is_dir() and not out.exists()
  del calls[:]
  with embed.resumable(out, model, source) as parts:
    found = embed.embed_images(model, source, parts=parts, batch_size=4)
  assert 0 < found.resumed < 30 and len(calls) < 8
  np.testing.assert_array_equal(
    found.embedded.embeddings, want.embedded.embeddings
  )
  assert found.embedded.ids == want.embedded.ids
  assert found.unread == want.unread
  assert [path.name for path in tmp_path.iterdir()] == ['in']


def test_other_images_or_another_model_begin_anew(tmp_path):
  small_images.classes(tmp_path / 'in', per_class=10)
  model, _ = small_images.mean_color()
  source, out = sources.open_source(tmp_path / 'in'), tmp_path / 'o.npz'
  interrupted(model, source, out, 5)
  other, _ = small_images.mean_color(digest='x' * 32)
  with embed.resumable(out, other, source) as parts:
    assert not parts.found
  interrupted(model, source, out, 5)
  (part,) = (tmp_path / '.o.npz.parts').glob('*.npz')
  part.write_bytes(part.read_bytes()[:100])
  with embed.resumable(out, model, source) as parts:
    assert not parts.found


def test_work_is_kept_where_its_file_cannot_be_written(tmp_path):
  small_images.classes(tmp_path / 'in')
  model, calls = small_images.mean_color()
  source, out = sources.open_source(tmp_path / 'in'), tmp_path / 'o.npz'
  with (
    pytest.raises(UserError, match='too few'),
    embed.resumable(out, model, source) as parts,
  ):
    embed.embed_images(model, source, parts=parts)
    raise UserError('too few')
  del calls[:]
  with embed.resumable(out, model, source) as parts:
    found = embed.embed_images(model, source, parts=parts)
  assert found.resumed == 6 and not calls


def test_two_at_a_time_are_refused(tmp_path):
  small_images.classes(tmp_path / 'in')
  model, _ = small_images.mean_color()
  source, out = sources.open_source(tmp_path / 'in'), tmp_path / 'o.npz'
  with (
    embed.resumable(out, model, source),
    pytest.raises(UserError, match='another process is writing'),
    embed.resumable(out, model, source),
  ):
    pass
