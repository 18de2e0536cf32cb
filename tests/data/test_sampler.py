"""Batches as a pure function of (seed, step)."""

import numpy as np
import pytest

from hier_jax.data.sampler import Sampler, Stream, generator
from hier_jax.errors import UserError

# Classes of 2, 3, 8 and 5 images, in no order.
LABELS = np.random.default_rng(0).permutation(
  np.repeat([0, 1, 2, 3], [2, 3, 8, 5])
)


def make(labels=LABELS, batch_size=6, images_per_class=2, seed=0, **options):
  return Sampler(
    labels,
    batch_size=batch_size,
    images_per_class=images_per_class,
    seed=seed,
    **options,
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


@pytest.mark.parametrize('kind', ['class', 'hierarchical'])
def test_a_class_that_comes_again_has_other_images(kind):
  labels = np.repeat(np.arange(3), [8, 9, 7])
  groups = {'groups': np.zeros(24, int)} if kind == 'hierarchical' else {}
  sampler = make(labels, 24, 3, kind=kind, **groups)
  assert 'takes 8 classes, but there are 3: each' in sampler.repetition
  for step in range(20):
    rows = sampler(step).reshape(8, 3)
    assert len(set(labels[rows[:3, 0]])) == 3
    for label in range(3):
      of_class = rows[labels[rows[:, 0]] == label].ravel()
      # Two turns of three, or three turns of as many as there are.
      expected = min(len(of_class), np.sum(labels == label))
      assert len(set(of_class)) == expected


def test_nothing_is_said_where_nothing_repeats():
  labels = np.repeat(np.arange(3), 8)
  assert make(labels, 9, 3).repetition is None
  assert make(labels, 12, 2).repetition is None
  assert make(labels, 12, 0).repetition is None
  assert make(labels, 12, 2, kind='official').repetition is not None


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


@pytest.mark.parametrize('few', [False, True])
def test_official_classes_are_those_of_the_program_whatever_the_seed(few):
  labels, step = np.repeat(np.arange(5 if few else 20), 3), 17
  first, other = (
    make(labels, 12, seed=seed, kind='official') for seed in (0, 1)
  )
  epoch, batch = divmod(step, first.steps_per_epoch)
  np.random.seed(10_000 * batch + epoch)
  expected = np.random.choice(labels[::3], 6, replace=few)
  for sampler in (first, other):
    np.testing.assert_array_equal(labels[sampler(step)][::2], expected)
  assert not np.array_equal(first(step), other(step))


def test_official_images_are_drawn_with_replacement():
  labels = np.repeat(np.arange(4), 3)
  sampler = make(labels, 8, kind='official')
  pairs = np.concatenate([sampler(s) for s in range(1000)]).reshape(-1, 2)
  np.testing.assert_array_equal(labels[pairs[:, 0]], labels[pairs[:, 1]])
  same = np.count_nonzero(pairs[:, 0] == pairs[:, 1])
  # A class of 3 gives one twice with probability 1/3; five sigma.
  n, p = len(pairs), 1 / 3
  assert abs(same - n * p) < 5 * np.sqrt(n * p * (1 - p))


# Classes 0 .. 19 of two images; groups of 10, 7, 2 and 1 classes.
GROUP = np.repeat([5, 9, -1, 2], [10, 7, 2, 1])
TREE = dict(labels=np.arange(40) // 2, groups=GROUP.repeat(2), batch_size=12)


def relatives(**options):
  return make(**{**TREE, 'kind': 'hierarchical', **options})


def test_hierarchical_takes_as_many_classes_of_each_group():
  sampler = relatives(num_groups=2)
  shared = 0
  for step in range(100):
    classes = sampler(step)[::2] // 2
    assert len(set(classes)) == 6
    groups, counts = np.unique(GROUP[classes], return_counts=True)
    if set(groups) == {5, 9}:
      assert counts.tolist() == [3, 3]
      shared += 1
    else:  # what small groups lack comes of the next
      assert counts.max() == 3 and len(groups) > 2
  assert shared


def test_hierarchical_fills_up_where_all_groups_are_small():
  # Six of each group would be 6 + 6 + 2 + 1 of the 18 asked for.
  sampler = relatives(batch_size=36, num_groups=3)
  for step in range(20):
    classes = sampler(step)[::2] // 2
    assert len(set(classes)) == 18
    counts = np.bincount(GROUP[classes] + 1, minlength=11)[[0, 3, 6, 10]]
    assert counts[:2].tolist() == [2, 1] and counts[2:].min() >= 6
  # More classes than there are: each once before any twice.
  counts = np.bincount(relatives(batch_size=48)(0)[::2] // 2)
  assert sorted(counts) == [1] * 16 + [2] * 4


def test_hierarchical_draws_classes_uniformly_from_one_group():
  sampler, steps = relatives(batch_size=2), 4000
  seen = np.bincount([sampler(s)[0] // 2 for s in range(steps)], minlength=20)
  p = 1 / 20
  assert np.abs(seen - steps * p).max() < 5 * np.sqrt(steps * p * (1 - p))


def test_hierarchical_depends_on_seed_and_step_alone():
  first, again, other = (relatives(seed=seed) for seed in (0, 0, 1))
  np.testing.assert_array_equal([first(s) for s in range(8)][7], again(7))
  assert not np.array_equal(first(7), first(8))
  assert not np.array_equal(first(7), other(7))


@pytest.mark.parametrize(
  ('options', 'words'),
  [
    (dict(kind='random'), ["'random'", 'class, official, hierarchical']),
    (dict(kind='official', images_per_class=0), ["'official'", 'is 0']),
    (dict(kind='hierarchical'), ['needs groups']),
    ({**TREE, 'kind': 'hierarchical', 'num_groups': 4}, ['4 groups', '6 cl']),
    ({**TREE, 'kind': 'hierarchical', 'num_groups': 6}, ['the 4 groups']),
    (
      dict(kind='hierarchical', groups=np.arange(18)),
      ['4 classes lie in more than one group: 0, 1, 2, 3;'],
    ),
    (dict(batch_size=7), ['7', '2 images per class']),
    (dict(batch_size=19, images_per_class=0), ['19', '18 images']),
    (dict(batch_size=0), ['batch size 0']),
    (dict(images_per_class=-1), ['-1']),
  ],
)
def test_mistakes_are_named(options, words):
  with pytest.raises(UserError) as error:
    make(**options)
  for word in words:
    assert word in str(error.value)


@pytest.mark.parametrize('kind', ['class', 'official', 'hierarchical'])
def test_a_single_image_is_repeated_until_there_are_enough(kind):
  labels = np.array([0, 1, 1, 2, 3, 3])
  sampler = make(labels, 12, 3, kind=kind, groups=labels // 2)
  for step in range(5):
    batch = sampler(step).reshape(4, 3)
    rows = {int(labels[x[0]]): sorted(x.tolist()) for x in batch}
    assert (labels[batch] == labels[batch[:, :1]]).all()
    assert rows[0] == [0, 0, 0] and rows[2] == [3, 3, 3]
    if kind != 'official':
      assert set(rows[1]) == {1, 2} and set(rows[3]) == {4, 5}


def test_single_images_are_fine_one_at_a_time():
  assert len(make(np.arange(9), 4, 1)(0)) == 4
