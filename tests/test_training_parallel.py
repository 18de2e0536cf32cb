"""Batches on their way to the devices."""

import jax
import numpy as np
import pytest

from hier_jax.training import parallel


def host_batches(log, n=5):
  for i in range(n):
    log.append(i)
    yield {'image': np.full((8, 3), i, np.uint8), 'label': np.arange(8)}


@pytest.mark.parametrize('depth', [1, 2, 9])
def test_prefetched_batches_come_in_order_and_spread(depth):
  made = []
  batches = parallel.prefetch(host_batches(made), depth=depth)
  first = next(batches)
  # One is handed out, and the others wait.
  assert len(made) == min(depth, 5)
  for i, batch in enumerate([first, *batches]):
    assert isinstance(batch['image'], jax.Array)
    assert batch['image'].shape == (4, 2, 3)
    assert len(batch['image'].sharding.device_set) == 4
    np.testing.assert_array_equal(batch['image'], i)
    np.testing.assert_array_equal(batch['label'].reshape(-1), np.arange(8))
  assert i == 4


@pytest.mark.parametrize('devices', [1, 4])
def test_a_step_takes_prefetched_batches_as_those_of_the_host(devices):
  devices = jax.local_devices()[:devices]
  step = parallel.map_step(
    lambda state, batch: (
      state + 1,
      jax.lax.psum(batch['image'].astype(int).sum(), parallel.AXIS),
    ),
    devices=devices,
  )
  placed = parallel.prefetch(host_batches([]), devices=devices)
  for ours, theirs in zip(placed, host_batches([]), strict=True):
    (_, a), (_, b) = (step(np.zeros(()), batch) for batch in (ours, theirs))
    assert a == b == theirs['image'].sum()
