"""Batches as a pure function of (seed, step)."""

import numpy as np
import pytest

from hier_jax.data.sampler import Sampler, Stream, generator
from hier_jax.errors import UserError

# Classes of 2, 3, 8 and 5 images, in no order.
LABELS = np.random.default_rng(0).permutation(
  np.repeat([0, 1, 2, 3], [2, 3, 8, 5])
)


def make(labels=LABELS, batch_size=6, images_per_class=2, seed=0):
  return Sampler(
    labels,
    batch_size=batch_size,
    images_per_class=images_per_class,
    seed=seed,
  )


def test_batch_holds_distinct_classes_and_distinct_images():
  for step in range(50):
    rows = make()(step)
    assert rows.dtype == np.int64 and rows.shape == (6,)
    labels = LABELS[rows].reshape(3, 2)
    np.testing.assert_array_equal(labels[:, 0], labels[:, 1])
    assert len(set(labels[:, 0])) == 3
    assert len(set(rows)) == 6


def test_small_class_gives_all_its_images_before_repeating():
  sampler = make(batch_size=16, images_per_class=4)
  for step in range(20):
    rows = sampler(step).reshape(4, 4)
    distinct = {LABELS[r[0]]: len(set(r)) for r in rows}
    assert distinct == {0: 2, 1: 3, 2: 4, 3: 4}


def test_fewer_classes_than_asked_for_are_taken_in_turn():
  sampler = make(batch_size=12, images_per_class=2)
  counts = np.bincount(LABELS[sampler(0)])
  assert sorted(counts) == [2, 2, 4, 4]


def test_classes_and_images_are_drawn_uniformly():
  labels = np.repeat(np.arange(5), 4)
  sampler = make(labels, batch_size=4, images_per_class=2)
  steps = 4000
  seen = np.bincount(
    np.concatenate([sampler(s) for s in range(steps)]), minlength=20
  )
  # An image is in a batch with probability 2/5 * 2/4; five sigma.
  p = 0.2
  assert np.abs(seen - steps * p).max() < 5 * np.sqrt(steps * p * (1 - p))


def test_batch_depends_on_seed_and_step_alone():
  labels = np.repeat(np.arange(50), 4)
  first, again = (make(labels, 20) for _ in range(2))
  late = again(7)
  np.testing.assert_array_equal([first(s) for s in range(8)][7], late)
  assert not np.array_equal(first(7), first(8))
  other = make(labels, 20, seed=1)
  assert not np.array_equal(labels[first(7)], labels[other(7)])


@pytest.mark.parametrize('images_per_class', [0, 2])
def test_batches_stay_what_recorded_runs_had(images_per_class):
  expected = {0: [1, 6, 0, 3], 2: [4, 5, 10, 11]}[images_per_class]
  sampler = make(np.arange(12) // 3, 4, images_per_class, seed=3)
  np.testing.assert_array_equal(sampler(5), expected)


def test_labels_need_not_be_contiguous():
  labels = np.array([7, 7, 40, 40, 40, 9, 9])
  rows = make(labels, 6)(0)
  assert sorted(labels[rows]) == [7, 7, 9, 9, 40, 40]


def test_plain_shuffling_permutes_each_epoch_and_drops_the_rest():
  sampler = make(np.arange(10), 3, 0)
  assert sampler.steps_per_epoch == 3
  first, second = (
    np.concatenate([sampler(3 * epoch + i) for i in range(3)])
    for epoch in range(2)
  )
  assert len(set(first)) == len(set(second)) == 9
  assert not np.array_equal(first, second)
  assert not np.array_equal(first[:3], make(np.arange(10), 3, 0, seed=1)(0))


def test_steps_per_epoch():
  assert make().steps_per_epoch == 3
  assert make(batch_size=40).steps_per_epoch == 1


def test_streams_of_a_seed_differ():
  draws = {
    generator(seed, stream, step, slot).integers(2**63)
    for seed in (0, 1)
    for stream in Stream
    for step in (0, 1)
    for slot in (0, 1)
  }
  assert len(draws) == 2 * 3 * 2 * 2


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    (dict(batch_size=7), ['7', '2 images per class']),
    (dict(batch_size=19, images_per_class=0), ['19', '18 images']),
    (dict(batch_size=0), ['batch size 0']),
    (dict(images_per_class=-1), ['-1']),
    (
      dict(labels=np.array([0, 1, 1, 2, 3, 3]), batch_size=2),
      ['2 classes', ': 0, 2;'],
    ),
    (dict(labels=np.arange(9), batch_size=2), ['9', '0, 1, 2, 3, 4, ...']),
  ],
)
def test_mistakes_are_named(options, words):
  with pytest.raises(UserError) as error:
    make(**options)
  for word in words:
    assert word in str(error.value)


def test_single_images_are_fine_one_at_a_time():
  assert len(make(np.arange(9), 4, 1)(0)) == 4
