"""Batches: the same whatever the processes, threads and starting step."""

import io
import threading
import time

import numpy as np
import pytest
from PIL import Image

from hier_jax.data import cache, pipeline, transforms
from hier_jax.data.datasets import Split
from hier_jax.data.sampler import Sampler, Stream, generator
from hier_jax.errors import UserError

SIZE = 4


def encoded(value):
  file = io.BytesIO()
  Image.new('RGB', (SIZE, SIZE), (value, 0, 255 - value)).save(file, 'PNG')
  return file.getvalue()


def toy(n):
  """A split whose image i is of colour (i, 0, 255 - i), two a class."""
  return Split(
    name='toy',
    source=[{'image': encoded(i)} for i in range(n)],
    labels=np.arange(n, dtype=np.int32) // 2,
    fields={},
  )


PLAIN = transforms.TrainView(SIZE, scale=None, flip=0.0)
RANDOM = transforms.TrainView(
  SIZE, affine=transforms.Affine(30, 0.2, 0.2, 0.2), brightness=0.3
)


ON_DEVICE = transforms.DeviceView(transforms.TrainView(3), SIZE)


def train(
  view=RANDOM, *, n=120, batch_size=80, seed=5, kind='class', **options
):
  split = toy(n)
  sampler = Sampler(
    split.labels,
    batch_size=batch_size,
    images_per_class=2,
    seed=1,
    kind=kind,
    groups=split.labels % 3,
    num_groups=2,
  )
  options = {'num_steps': 3, 'num_threads': 2, **options}
  batches = pipeline.train_batches(split, sampler, view, seed=seed, **options)
  return list(batches), sampler


def assert_same(left, right):
  assert len(left) == len(right)
  for a, b in zip(left, right, strict=True):
    assert a.keys() == b.keys()
    for key in a:
      np.testing.assert_array_equal(a[key], b[key], strict=True)


def test_batches_are_what_the_sampler_drew():
  batches, sampler = train(PLAIN)
  assert len(batches) == 3
  for step, batch in enumerate(batches):
    rows = sampler(step)
    assert set(batch) == {'image', 'label', 'index'}
    assert batch['image'].shape == (80, SIZE, SIZE, 3)
    assert batch['image'].dtype == np.uint8
    assert batch['label'].dtype == np.int32
    assert batch['index'].dtype == np.int64
    np.testing.assert_array_equal(batch['index'], rows)
    np.testing.assert_array_equal(batch['label'], rows // 2)
    np.testing.assert_array_equal(batch['image'][:, 0, 0, 0], rows)
    np.testing.assert_array_equal(batch['image'][:, 0, 0, 2], 255 - rows)


@pytest.mark.parametrize('count', [2, 4])
@pytest.mark.parametrize(
  ('view', 'kind'),
  [(RANDOM, 'class'), (PLAIN, 'official'), (ON_DEVICE, 'hierarchical')],
)
def test_processes_together_make_the_batch_of_one(count, view, kind):
  whole, _ = train(view, kind=kind)
  parts = [
    train(view, kind=kind, process_index=p, process_count=count)[0]
    for p in range(count)
  ]
  joined = [
    {key: np.concatenate([part[key] for part in step]) for key in step[0]}
    for step in zip(*parts, strict=True)
  ]
  assert_same(joined, whole)


def test_starting_late_is_skipping():
  whole, _ = train()
  late, _ = train(start_step=2, num_steps=1)
  assert_same(late, whole[2:])
  far, _ = train(start_step=10**9, num_steps=1)
  assert len(far) == 1


def test_a_cache_changes_nothing(tmp_path):
  images = cache.open_images(toy(120), cache=str(tmp_path))
  for view in (RANDOM, ON_DEVICE):
    assert_same(train(view, images=images)[0], train(view)[0])


def test_device_views_are_the_crops_of_host_views():
  batches, sampler = train(ON_DEVICE)
  side = ON_DEVICE.size
  for step, batch in enumerate(batches):
    assert batch['image'].shape == (80, side, side, 3)
    assert batch['extent'].dtype == np.int32 and batch['flip'].dtype == bool
    for slot, row in enumerate(sampler(step)):
      rng = generator(5, Stream.VIEW, step, slot)
      left, top, right, bottom = ON_DEVICE.view.box(SIZE, SIZE, rng)
      height, width = batch['extent'][slot]
      assert (height, width) == (bottom - top, right - left)
      image = batch['image'][slot]
      np.testing.assert_array_equal(image[:height, :width, 0], row)
      assert not image[height:].any() and not image[:, width:].any()
      assert batch['flip'][slot] == (rng.random() < 0.5)


class Counting:
  """A source that counts what is read."""

  def __init__(self, records):
    self.records, self.read, self.lock = records, 0, threading.Lock()

  def __len__(self):
    return len(self.records)

  def __getitem__(self, index):
    with self.lock:
      self.read += 1
    return self.records[index]


def test_no_more_is_made_than_fits_the_buffer():
  split = toy(96)
  source = Counting(split.source)
  sampler = Sampler(split.labels, batch_size=96, images_per_class=2, seed=1)
  batches = pipeline.train_batches(
    Split('toy', source, split.labels, {}),
    sampler,
    PLAIN,
    seed=0,
    num_steps=1000,
    num_threads=2,
    buffer_size=2,
  )
  next(batches)
  before = -1
  while source.read != before:
    before = source.read
    time.sleep(0.2)
  # The batch taken, two ahead, and a chunk that each thread holds ready.
  assert 3 * 96 <= source.read <= 3 * 96 + 2 * pipeline._CHUNK


@pytest.mark.parametrize('threads', [0, 1, 5])
def test_threads_change_nothing(threads):
  assert_same(
    train(num_threads=threads, buffer_size=1)[0], train(num_threads=2)[0]
  )


def test_views_follow_seed_step_and_slot():
  (first, *_), _ = train()
  (other, *_), _ = train(seed=6)
  np.testing.assert_array_equal(first['index'], other['index'])
  assert not np.array_equal(first['image'], other['image'])
  # Two images only, in every slot and step: each view is its own.
  batches, _ = train(n=2, batch_size=8, num_steps=2)
  views = np.concatenate([b['image'] for b in batches])
  assert len(np.unique(views.reshape(16, -1), axis=0)) == 16


def evaluate(n=10, batch_size=4, **options):
  view = transforms.EvalView(SIZE)
  options = {'num_threads': 2, **options}
  return list(
    pipeline.eval_batches(toy(n), view, batch_size=batch_size, **options)
  )


def test_eval_is_in_order_and_padded():
  batches = evaluate()
  index = np.stack([b['index'] for b in batches])
  expected = [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, -1, -1]]
  np.testing.assert_array_equal(index, expected)
  for batch in batches:
    assert batch['mask'].dtype == bool
    np.testing.assert_array_equal(batch['mask'], batch['index'] >= 0)
    np.testing.assert_array_equal(batch['label'], batch['index'] // 2)
    assert batch['label'].dtype == np.int32
    image = batch['image'][batch['mask']]
    np.testing.assert_array_equal(
      image[:, 0, 0, 0], batch['index'][batch['mask']]
    )
    np.testing.assert_array_equal(batch['image'][~batch['mask']], 0)


def test_eval_processes_have_the_same_number_of_batches():
  # 9 images, 4 a batch: the last batch has one image, of process 0.
  parts = [evaluate(9, process_index=p, process_count=2) for p in range(2)]
  assert [len(part) for part in parts] == [3, 3]
  index = [[b['index'].tolist() for b in part] for part in parts]
  assert index == [[[0, 1], [4, 5], [8, -1]], [[2, 3], [6, 7], [-1, -1]]]
  assert not parts[1][2]['mask'].any()
  assert parts[1][2]['image'].shape == (2, SIZE, SIZE, 3)


def test_eval_of_full_batches_needs_no_padding():
  batches = evaluate(8)
  assert len(batches) == 2
  assert all(batch['mask'].all() for batch in batches)


@pytest.mark.parametrize('call', [train, evaluate])
def test_processes_must_divide_the_batch(call):
  with pytest.raises(UserError, match='20 is not divisible by 3 processes'):
    call(batch_size=20, process_count=3)
  with pytest.raises(UserError, match='process 2 is not one of 2'):
    call(batch_size=20, process_index=2, process_count=2)


@pytest.mark.parametrize('threads', [0, 2])
def test_broken_image_is_named(threads):
  split = toy(6)
  split.source[4]['image'] = b'broken'
  batches = pipeline.eval_batches(
    split, transforms.EvalView(SIZE), batch_size=2, num_threads=threads
  )
  next(batches), next(batches)
  with pytest.raises(UserError, match='image 4 of toy'):
    next(batches)
