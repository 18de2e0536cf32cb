"""Learning rates of the groups, against RECIPE 6 by hand."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax.training.config.default import default_config
from hier_jax.training.step import optim
from tests.support import training_data, vectors

STEPS = 7  # an epoch


def rate_of(config, group):
  return optim.learning_rate(
    config.optim,
    group,
    batch_size=config.data.batch_size,
    steps_per_epoch=STEPS,
    epochs=10,
  )


def rates(group, steps, **settings):
  config = default_config()
  config.optim.update(settings)
  rate = rate_of(config, group)
  return np.array([rate(step) for step in steps], np.float64)


def test_groups_scale_the_rate():
  got = {
    group: float(rates(group, [0], lr=2e-5)[0])
    for group in default_config().optim.scales
  }
  assert got == pytest.approx(
    {
      'backbone': 0.0,
      'head': 2e-5,
      'hierarchical_proxies': 1e-3,
      'class_proxies': 0.2,
    }
  )


def test_rate_follows_the_batch():
  config = default_config()
  config.data.batch_size = 360
  config.optim.lr = 1e-5
  rate = rate_of(config, 'head')
  assert float(rate(0)) == pytest.approx(2e-5)


def test_warm_up_holds_the_backbone_alone():
  steps = [0, 2 * STEPS - 1, 2 * STEPS]
  backbone = rates('backbone', steps, warmup_epochs=2, lr=1.0)
  assert backbone.tolist() == [0, 0, 1]
  assert rates('head', steps, warmup_epochs=2, lr=1.0).tolist() == [1, 1, 1]


def test_step_schedule_matches_the_official_one():
  want = vectors.load()['sched/step']
  steps = np.arange(len(want))
  got = rates(
    'head', steps, schedule='step', step_every=3, step_factor=0.5, lr=1.0
  )
  np.testing.assert_allclose(got, want, rtol=1e-6)


def test_cosine_schedule_matches_the_official_one():
  want = vectors.load()['sched/cosine']
  got = rates('head', np.arange(len(want)), schedule='cosine', lr=1.0)
  np.testing.assert_allclose(got, want, rtol=1e-5)


def params():
  return {
    'model': {
      'backbone': {'patch_embed': jnp.ones(3), 'block0': jnp.ones(3)},
      'head': {'linear': jnp.ones(3)},
    },
    'loss': {'class_proxies': jnp.ones(3)},
  }


def test_adamw_by_hand_and_frozen_parts_stay():
  config = default_config()
  config.optim.update(
    lr=0.1, warmup_epochs=0, weight_decay=0.5, freeze=('patch_embed',)
  )
  config.optim.scales.class_proxies = 2.0
  optimizer = training_data.optimizer(config, STEPS)
  p, frozen = optim.split(params(), config.optim.freeze)
  assert optim.paths(frozen) == ['model/backbone/patch_embed']
  grads = jax.tree.map(lambda a: jnp.array([0.0, 1e-4, -2.0]), p)
  first = optimizer.init(p)
  assert not [
    path
    for path, _ in jax.tree_util.tree_leaves_with_path(first)
    if 'patch_embed' in str(path)
  ]
  updates, _ = optimizer.update(grads, first, p)
  # First step of Adam: g / (|g| + eps), eps 1e-4; decay 0.5 of 1, times rate.
  adam = np.array([0.0, 0.5, -2.0 / 2.0001])
  head = -0.1 * (adam + 0.5)
  # In float32, 1 - 0.999 is known to 3e-5, and Adam divides by its root.
  for got, want in (
    (updates['model']['head']['linear'], head),
    (updates['loss']['class_proxies'], 2 * head),
  ):
    np.testing.assert_allclose(got, want, rtol=3e-5)
  assert 'patch_embed' not in updates['model']['backbone']


def test_clips_come_before_adam():
  config = default_config()
  config.optim.update(clip_value=1.0, clip_norm=0.1)
  optimizer = training_data.optimizer(config, STEPS)
  p = params()
  grads = jax.tree.map(lambda a: jnp.array([0.0, 5.0, -1.0]), p)
  _, state = optimizer.update(grads, optimizer.init(p), p)
  inner = state[-1].inner_states['head'].inner_state[0]
  # Eight entries of +-1 after the clip by value: norm sqrt(8).
  want = 0.1 * np.array([0.0, 1.0, -1.0]) * 0.1 / np.sqrt(8)
  got = inner.mu['model']['head']['linear']
  np.testing.assert_allclose(got, want, rtol=1e-5)


def test_the_models_gradient_alone_is_scaled_and_before_the_clips():
  config = default_config()
  config.optim.update(grad_scale=0.5, clip_value=1.0)
  optimizer = training_data.optimizer(config, STEPS)
  p = params()
  grads = jax.tree.map(lambda a: jnp.array([0.2, 1.6, -5.0]), p)
  _, state = optimizer.update(grads, optimizer.init(p), p)
  means = [
    state[-1].inner_states[group].inner_state[0].mu
    for group in ('head', 'class_proxies')
  ]
  np.testing.assert_allclose(
    means[0]['model']['head']['linear'], [0.01, 0.08, -0.1], rtol=1e-6
  )
  np.testing.assert_allclose(
    means[1]['loss']['class_proxies'], [0.02, 0.1, -0.1], rtol=1e-6
  )


@pytest.mark.parametrize('freeze', [(), ('block0', '^loss/'), ('.',)])
def test_parts_make_the_whole(freeze):
  whole = params()
  trained, frozen = optim.split(whole, freeze)
  assert not set(optim.paths(trained)) & set(optim.paths(frozen))
  chex.assert_trees_all_equal(optim.merge(frozen, trained), whole)
  assert all(optim.group_of(p, freeze) == 'frozen' for p in optim.paths(frozen))


def test_empty_parts_remain():
  whole = {'model': {'head': jnp.ones(2)}, 'loss': {}}
  trained, frozen = optim.split(whole, ('head',))
  assert optim.merge(frozen, trained) == whole
  assert optim.merge(whole, trained) == whole


def test_norms_of_groups():
  grads = jax.tree.map(lambda a: jnp.array([2.0, -1.0, 2.0]), params())
  got = optim.group_norms(grads)
  # The backbone has two leaves.
  want = {'backbone': 18**0.5, 'head': 3.0, 'class_proxies': 3.0}
  assert got == pytest.approx(want, rel=1e-6)


def test_ema_begins_at_the_parameters_and_forgets_them():
  rng, decay = np.random.default_rng(0), 0.5
  values = rng.normal(size=(13, 3))
  ema, want = {'a': jnp.asarray(values[0], jnp.float32)}, values[0]
  for t, p in enumerate(values[1:]):
    ema = optim.update_ema(ema, {'a': jnp.asarray(p, jnp.float32)}, t, decay)
    keep = min(decay, (1 + t) / (10 + t))
    want = keep * want + (1 - keep) * p
  # (1 + t) / (10 + t) passes a half at t = 8.
  np.testing.assert_allclose(ema['a'], want, rtol=1e-6, atol=1e-6)


def test_parameter_of_no_group_is_named():
  with pytest.raises(ValueError, match="'model/neck/w' belongs to no group"):
    optim.group_of('model/neck/w')
