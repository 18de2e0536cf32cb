"""What is checked before anything is compiled or written."""

import functools

import jax
import numpy as np
import pytest

from hier_jax import models
from hier_jax.errors import UserError
from hier_jax.models.weights import pretrained
from hier_jax.training.distributed import mapping
from hier_jax.training.run import dry_run, loop
from tests.support import training_data

pytestmark = pytest.mark.usefixtures('colors')


@pytest.mark.parametrize(
  'run', [loop.train, dry_run.describe], ids=['train', 'dry_run']
)
def test_weights_are_checked_before_anything_is_compiled_or_written(
  tmp_path, monkeypatch, run
):
  monkeypatch.setattr(loop.workdirs, 'claimed', lambda *_: 1 / 0)
  monkeypatch.setattr(mapping, 'compile_step', lambda *_, **__: 1 / 0)
  model = models.create(**training_data.config().model.to_dict())
  shapes = jax.eval_shape(
    functools.partial(model.init, train=False),
    jax.random.key(0),
    jax.ShapeDtypeStruct((1, 8, 8, 3), np.uint8),
  )
  backbone = jax.tree.map(lambda a: np.zeros(a.shape), shapes['params'])
  wrong = tmp_path / 'wrong.safetensors'
  pretrained.save(
    wrong,
    {'params': backbone['backbone'] | {'norm': {}}},
    architecture='vit_test_patch4',
  )
  for name, message in (
    ('vit_huge', "pretrained is 'vit_huge': vit_huge is no file"),
    (str(tmp_path / 'none.safetensors'), 'none.safetensors does not exist'),
    (str(wrong), 'does not fit the backbone: 2 missing'),
    ('hub', "pretrained is 'hub': there are no published weights"),
  ):
    with pytest.raises(UserError, match=message):
      run(training_data.config(pretrained=name), tmp_path / 'run')
  assert not (tmp_path / 'run').exists()
