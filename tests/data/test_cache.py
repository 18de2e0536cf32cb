"""Cached images: the same pixels, found again, and never of something else."""

import dataclasses
import io
import os

import numpy as np
import pytest
from PIL import Image

from hier_jax.data import cache
from hier_jax.data.datasets import Split
from hier_jax.errors import UserError

SIZES = [(30, 20), (8, 40), (12, 12), (50, 9), (64, 48)]


def encoded(size, seed):
  pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3))
  file = io.BytesIO()
  Image.fromarray(pixels.astype(np.uint8)).save(file, 'PNG')
  return file.getvalue()


def toy(n=5, seed=0):
  """Images of sizes that differ, two a class."""
  records = [
    {'image': encoded(SIZES[i % len(SIZES)], [seed, i])} for i in range(n)
  ]
  labels = np.arange(n, dtype=np.int32) // 2
  return Split('toy/a:train', records, labels, {})


def assert_same(left, right):
  assert len(left) == len(right)
  for row in range(len(left)):
    for images in (left, right):
      assert images.array(row).dtype == np.uint8
      np.testing.assert_array_equal(
        images.array(row), np.asarray(images.image(row))
      )
    np.testing.assert_array_equal(left.array(row), right.array(row))


@pytest.mark.parametrize('left', [0, 40, 130])
def test_a_table_that_was_cut_is_made_anew(tmp_path, left):
  """As a power failure may leave it."""
  split = toy()
  made = cache.open_images(split, cache=str(tmp_path))
  (table,) = tmp_path.glob('*.npy')
  table.write_bytes(table.read_bytes()[:left])
  assert_same(cache.open_images(split, cache=str(tmp_path)), made)
  assert np.load(table).shape == (5, 2)


@pytest.mark.parametrize('threads', [0, 3])
@pytest.mark.parametrize('short_side', [None, 10])
def test_cached_images_are_the_decoded_ones(tmp_path, threads, short_side):
  # More than are decoded at a time.
  split = toy(20)
  made = cache.open_images(
    split, cache=str(tmp_path), short_side=short_side, num_threads=threads
  )
  assert isinstance(made, cache.Cached)
  assert_same(made, cache.Decoded(split, short_side))


def test_large_images_are_shrunk_and_small_ones_are_left():
  images = cache.Decoded(toy(), short_side=12)
  shapes = [images.array(row).shape for row in range(len(SIZES))]
  # 30 * 12 / 20 = 18, 64 * 12 / 48 = 16.
  expected = [(12, 18), (40, 8), (12, 12), (9, 50), (12, 16)]
  assert shapes == [(*shape, 3) for shape in expected]


def test_without_a_cache_nothing_is_written(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  assert isinstance(cache.open_images(toy()), cache.Decoded)
  assert not list(tmp_path.iterdir())


def test_a_cache_is_found_again(tmp_path):
  split = toy(80)
  split = dataclasses.replace(split, digest='a')
  expected = [
    array.copy() for array in map(cache.Decoded(split).array, range(80))
  ]
  cache.open_images(split, cache=str(tmp_path))
  for row in range(80):
    split.source[row]['image'] = b''
  again = cache.open_images(split, cache=str(tmp_path))
  for row, array in enumerate(expected):
    np.testing.assert_array_equal(again.array(row), array)
  assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize('digests', [('', ''), ('a', 'b')])
def test_a_change_of_any_image_is_noticed(tmp_path, digests):
  before, after = (dataclasses.replace(toy(200), digest=x) for x in digests)
  after.source[1]['image'] = encoded(SIZES[1], 7)
  cache.open_images(before, cache=str(tmp_path))
  made = cache.open_images(after, cache=str(tmp_path))
  np.testing.assert_array_equal(made.array(1), cache.Decoded(after).array(1))


def relabelled(split):
  return Split(split.name, split.source, split.labels[::-1], {})


@pytest.mark.parametrize(
  'other',
  [
    lambda: (toy(seed=1), None),
    lambda: (relabelled(toy()), None),
    lambda: (toy(4), None),
    lambda: (toy(), 10),
  ],
  ids=['records', 'labels', 'number', 'short side'],
)
def test_another_data_set_has_another_cache(tmp_path, other):
  cache.open_images(toy(), cache=str(tmp_path))
  split, short_side = other()
  made = cache.open_images(split, cache=str(tmp_path), short_side=short_side)
  assert_same(made, cache.Decoded(split, short_side))
  assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize('end', ['.raw', '.npy'])
def test_what_is_not_whole_is_made_anew(tmp_path, end):
  cache.open_images(toy(), cache=str(tmp_path))
  (broken,) = tmp_path.glob(f'*{end}')
  if end == '.raw':
    os.truncate(broken, broken.stat().st_size - 1)
  else:
    broken.unlink()
  assert_same(
    cache.open_images(toy(), cache=str(tmp_path)), cache.Decoded(toy())
  )


def test_a_broken_image_is_named_and_leaves_no_cache(tmp_path):
  split = toy()
  split.source[3]['image'] = b'broken'
  with pytest.raises(UserError, match='image 3 of toy/a:train'):
    cache.open_images(split, cache=str(tmp_path), num_threads=2)
  assert not list(tmp_path.iterdir())


def test_auto_caches_what_fits(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
  pixels = 3 * sum(width * height for width, height in SIZES)
  usage = lambda free: lambda _: _Usage(free)
  monkeypatch.setattr(cache.shutil, 'disk_usage', usage(2 * pixels - 1))
  assert isinstance(cache.open_images(toy(), cache='auto'), cache.Decoded)
  monkeypatch.setattr(cache.shutil, 'disk_usage', usage(2 * pixels))
  assert isinstance(cache.open_images(toy(), cache='auto'), cache.Cached)
  assert len(list((tmp_path / 'hier_jax').iterdir())) == 2


class _Usage:
  def __init__(self, free):
    self.free = free


def test_a_folder_that_cannot_be_is_named(tmp_path):
  (tmp_path / 'file').touch()
  with pytest.raises(
    UserError, match=r"cannot cache .* set the cache to 'off'"
  ):
    cache.open_images(toy(), cache=str(tmp_path / 'file'))


def test_a_folder_at_home_and_none_far_away(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  cache.open_images(toy(), cache='~/pixels')
  assert len(list((tmp_path / 'pixels').iterdir())) == 2
  with pytest.raises(UserError, match='the cache gs://b/c is remote'):
    cache.open_images(toy(), cache='gs://b/c')
