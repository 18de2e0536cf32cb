"""What is looked at before the first step."""

import pytest

from hier_jax.errors import UserError
from hier_jax.training.logs import progress
from hier_jax.training.run import loop
from hier_jax.training.step import state as state_lib
from tests.support import training_data

pytestmark = pytest.mark.usefixtures('colors', 'programs')


def test_a_first_batch_that_cannot_be_is_named(tmp_path, monkeypatch):
  said = []
  monkeypatch.setattr(
    progress.Progress, 'say', lambda _, text: said.append(text)
  )
  create = state_lib.create
  monkeypatch.setattr(
    state_lib,
    'create',
    lambda *args, num_classes=16: create(*args[:3], num_classes=10),
  )
  config = training_data.config()
  with pytest.raises(UserError, match=r'labels\[\d+\] is 1\d, .* in 0\.\.9'):
    loop.train(config, tmp_path / 'run')
  assert not any('compil' in line for line in said)
