"""What the step draws at random: nothing that depends on the devices."""

import jax
import numpy as np
import pytest

from hier_jax.models import embedder
from hier_jax.training import optim, parallel
from hier_jax.training import state as state_lib
from hier_jax.training import step as step_lib
from tests import training_data


def _losses(devices, drop_path, steps=3):
  config = training_data.config(
    **{'model.drop_path': drop_path, 'loss.hier_weight': 0.0}
  )
  model = embedder.create(**config.model.to_dict(), axis_name=parallel.AXIS)
  optimizer = optim.optimizer(config, steps_per_epoch=3)
  state = state_lib.create(config, model, optimizer, num_classes=16)
  step = parallel.map_step(
    step_lib.make_train_step(config, model, optimizer),
    devices=jax.local_devices()[:devices],
  )
  rng = np.random.default_rng(0)
  batch = {
    'image': rng.integers(0, 256, (16, 8, 8, 3)).astype(np.uint8),
    'label': rng.permutation(16)[:8].repeat(2).astype(np.int32),
  }
  found = []
  for _ in range(steps):
    state, metrics = step(state, batch)
    found.append(float(metrics['loss']))
  return np.array(found)


@pytest.fixture(scope='module')
def dropped():
  return _losses(1, 0.5)


def test_drop_path_does_not_depend_on_the_number_of_devices(dropped):
  np.testing.assert_allclose(_losses(4, 0.5), dropped, rtol=1e-5)


def test_drop_path_changes_the_loss(dropped):
  assert np.abs(_losses(1, 0.0) - dropped).min() > 1e-3
