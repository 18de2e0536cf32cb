"""What a step draws, what it leaves alone, and its EMA of parameters."""

import jax
import numpy as np
import pytest
from flax import traverse_util

from hier_jax.training.distributed import mapping
from tests.support import training_data


def _made(**settings):
  """Config, step and first state without HIER, and a batch."""
  return training_data.made_step(**{'loss.hier_weight': 0.0, **settings})


def _losses(devices, drop_path, steps=3):
  _, step, state, batch = _made(**{'model.drop_path': drop_path})
  step = mapping.map_step(step, devices=jax.local_devices()[:devices])
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


def _flat(tree):
  return traverse_util.flatten_dict(jax.device_get(tree), sep='/')


def test_frozen_parts_stay_and_the_ema_follows_the_others():
  freeze = ('patch_embed', 'head/linear/bias')
  config, step, state, batch = _made(
    **{'optim.freeze': freeze, 'optim.ema_decay': 0.2}
  )
  step = mapping.map_step(step, devices=jax.local_devices()[:1])
  first = _flat(state.params)
  frozen = {k for k in first if any(part in k for part in freeze)}
  assert len(frozen) == 3
  want = _flat(state.ema)
  assert want.keys() == first.keys() - frozen
  for t in range(4):
    state, metrics = step(state, batch)
    keep = min(0.2, (1 + t) / (10 + t))
    params = _flat(state.params)
    want = {k: keep * m + (1 - keep) * params[k] for k, m in want.items()}
  for path, value in _flat(state.ema).items():
    np.testing.assert_allclose(value, want[path], rtol=1e-5, atol=1e-6)
  for path, value in _flat(state.eval_params).items():
    same = first if path in frozen else _flat(state.ema)
    np.testing.assert_array_equal(value, same[path])
    assert np.array_equal(params[path], first[path]) == (path in frozen)
  # Two moments of each parameter that is trained, and no more.
  moments = [a for a in jax.tree.leaves(state.opt_state) if a.ndim]
  trained = [a for k, a in params.items() if k not in frozen]
  assert sum(a.size for a in moments) == 2 * sum(a.size for a in trained)
  groups = [
    metrics[f'grad_norm/{k}'] for k in config.optim.scales if 'hier' not in k
  ]
  assert all(norm > 0 for norm in groups)
  np.testing.assert_allclose(
    metrics['grad_norm'], np.linalg.norm(groups), rtol=1e-6
  )


def test_a_frozen_backbone_has_no_backward_pass():
  def operations(freeze):
    _, step, state, batch = _made(**{'optim.freeze': freeze})
    mapped = jax.vmap(step, in_axes=(None, 0), axis_name=mapping.AXIS)
    batch = jax.tree.map(lambda a: a[None], batch)
    return jax.jit(mapped).lower(state, batch).cost_analysis()['flops']

  # Two thirds of a step are the backward pass, by and large the backbone's.
  assert operations(('model/backbone/',)) < operations(()) / 2
