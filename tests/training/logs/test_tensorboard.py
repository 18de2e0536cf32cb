"""A run's records in TensorBoard."""

import pytest

from hier_jax.errors import UserError
from hier_jax.training.config import checks
from hier_jax.training.logs import tensorboard
from tests.support import events, training_data


def test_tensorboard_shows_no_step_twice(tmp_path):
  for start, steps, loss in ((-1, range(4), 1.0), (1, range(2, 5), 2.0)):
    board = tensorboard.TensorBoard(tmp_path / 'board', step=start)
    for step in steps:
      board.write({'kind': 'train', 'step': step, 'loss': loss, 'hier/x': 0.5})
  for name, step in (('raw pixels', 0), ('step 4', 4)):
    record = {'kind': 'eval', 'name': name, 'step': step, 'num_queries': 3}
    board.write(record | {'map@r': 0.25, 'recall@1': None})
  assert events.shown(tmp_path / 'board') == {
    'train/loss': [(0, 1.0), (1, 1.0), (2, 2.0), (3, 2.0), (4, 2.0)],
    'hier/x': [(step, 0.5) for step in range(5)],
    'raw pixels/map@r': [(0, 0.25)],
    'eval/map@r': [(4, 0.25)],
  }


def test_missing_tensorboardx_is_named_before_anything_starts(monkeypatch):
  config = training_data.config(tensorboard=True)
  checks.validate(config)
  monkeypatch.setattr(
    tensorboard.importlib.util, 'find_spec', lambda name: None
  )
  with pytest.raises(UserError, match=r"pip install 'hier_jax\[tensorboard\]'"):
    checks.validate(config)
  checks.validate(training_data.config())
