"""The study's networks on pixels."""

import io

import numpy as np
import pytest
from PIL import Image

from experiments.study import (
  arms,
  folds,
  images,
  regimes,
  runner,
  spaces,
  training,
)
from experiments.study.search import Target
from hier_jax.data import datasets

# Each class is a shade.
CLASSES, PER_CLASS, SIZE = 24, 4, 8
LABELS = np.arange(CLASSES).repeat(PER_CLASS)
SUBGROUP = np.arange(CLASSES) // 12


def png(label, rng):
  file = io.BytesIO()
  noise = rng.integers(0, 12, (SIZE, SIZE, 3))
  pixels = np.uint8(10 * label + noise)
  Image.fromarray(pixels).save(file, 'PNG')
  return {'image': file.getvalue(), 'path': f'{label}.png'}


def part(name, rows, records):
  labels = np.unique(LABELS[rows], return_inverse=True)[1].astype(np.int32)
  return datasets.Split(
    f'shades:{name}',
    [records[row] for row in rows],
    labels,
    {'index': rows, 'subgroup': SUBGROUP[LABELS[rows]]},
    numbers=np.unique(LABELS[rows]),
  )


def make(lost=()):
  """Test classes are odd ones in split A; those that are lost do not decode."""
  rng = np.random.default_rng(0)
  records = [png(label, rng) for label in LABELS]
  for row in np.flatnonzero(np.isin(LABELS, lost)):
    records[row] = {'image': b'lost', 'path': 'lost.png'}
  rows, test = np.arange(len(LABELS)), LABELS % 2 == 1
  # Not in the data set's order.
  train = rows[~test][::-1]
  of = [part('train', train, records), part('test', rows[test], records)]
  return images.joined({'A': of})


@pytest.fixture(autouse=True)
def _small(monkeypatch):
  whole = images.config

  def config(backbone):
    made = whole(backbone)
    made.model.image_size = SIZE
    made.data.update(batch_size=12, cache='off', short_side=None)
    made.eval.batch_size = 8
    return made

  monkeypatch.setattr(images, 'config', config)
  regime = regimes.Regime(4, epochs=2, backbone='resnet_test')
  monkeypatch.setitem(regimes.REGIMES, 'pixels', regime)
  monkeypatch.setattr(training, '_CHUNK', 2)


def job(arm='sup_con+alone', **more):
  point = spaces.defaults(arms.arm(arm).space) | {'images_per_class': 3} | more
  return Target('pixels', 'A', arm).job(point, 0)


def run_of(data, fold=0):
  found = folds.part(data, 'A', fold)
  split = data.split.select(found.train, 'fit')
  return images.Run(
    split, found.train_labels, data.subgroup[:9], 4, 'resnet_test'
  )


def test_images_are_joined_in_the_order_of_the_data_set():
  data = make()
  np.testing.assert_array_equal(data.labels, LABELS)
  np.testing.assert_array_equal(data.subgroup, SUBGROUP)
  np.testing.assert_array_equal(data.test['A'], np.arange(CLASSES) % 2 == 1)
  names = [data.split.source[row]['path'] for row in range(len(LABELS))]
  assert names == [f'{label}.png' for label in LABELS]


def test_batches_are_views_of_the_classes_that_they_say():
  run = run_of(make())
  np.testing.assert_array_equal(run.split.labels, run.labels)
  chunks = list(run.chunks(3, seed=0, number=2))
  assert len(chunks) == 2
  for pixels, labels in chunks:
    assert (pixels.shape, labels.shape) == ((1, 12, SIZE, SIZE, 3), (1, 12))
    assert pixels.dtype == np.uint8
    assert sorted(np.unique(labels, return_counts=True)[1]) == [3] * 4
  again = next(run.chunks(3, seed=0, number=5))
  np.testing.assert_array_equal(again[1], chunks[0][1])
  np.testing.assert_array_equal(again[0], chunks[0][0])


def test_rows_are_embedded_in_their_order():
  rows = np.array([40, 1, 17, 3, 30, 31, 32, 33, 8, 9])
  mean = lambda pixels: np.float32(pixels).mean((1, 2))
  z = make().embed(rows, mean, 'resnet_test')
  np.testing.assert_allclose(z[:, 0], 10 * LABELS[rows] + 5.5, atol=4)


@pytest.mark.slow
def test_network_never_reads_a_test_class():
  odd = np.arange(1, CLASSES, 2)
  whole, blind = (runner.Runner(make(lost)) for lost in ((), odd))
  asked = job(epochs=1.0)
  first, second = (r.run(asked) for r in (whole, blind))
  for name in ('metrics', 'loss', 'steps'):
    assert first[name] == second[name]
  assert not first['diverged']
  assert first['weights'] == images.NO_WEIGHTS[:12]


@pytest.mark.slow
def test_training_moves_the_network_and_its_statistics():
  arm = arms.arm('sup_con+alone')
  point = dict(job(epochs=1.0, lr=1e-2).point)
  found = training.train(arm, point, run_of(make()), dim=4, seed=0)
  still = training.train(
    arm, point | {'lr': 0.0, 'weight_decay': 0.0}, run_of(make()), dim=4, seed=0
  )
  kernels = [
    np.asarray(t.params['head']['params']['backbone']['conv1']['kernel'])
    for t in (found, still)
  ]
  assert not np.allclose(*kernels) and found.steps == 12
  mean = found.stats['batch_stats']['backbone']['bn1']['mean']
  assert np.any(np.asarray(mean)) and np.isfinite(found.loss)
