"""What all ranking losses have in common: oracles, masks, memories, devices."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import losses
from tests.support import ranking_losses, vectors
from tests.support.ranking_losses import ALL, case, evaluate, oracle

MARGINS = (-0.5, -1.5)
CASES = [
  ('smooth_ap', {}),
  ('smooth_ap', {'temperature': 0.1, 'c': 0.5}),
  ('recall_at_k', {}),
  ('recall_at_k', {'ks': (1, 3), 'rank_temperature': (1.0, 3.0)}),
  ('recall_at_k', {'ks': (2,), 'temperature': 0.1, 'c': 0.5}),
  ('sup_ap', {}),
  ('sup_ap', {'temperature': 0.1, 'slope': 2.0, 'delta': 0.3, 'c': 0.5}),
  ('roadmap', {}),
  ('roadmap', {'weight': 0.7, 'margins': MARGINS, 'c': 0.5}),
  ('hap', {}),
  ('hap', {'alpha': 2.0, 'temperature': 0.1, 'c': 0.5}),
]
every_loss = pytest.mark.parametrize(('name', 'settings'), CASES)
# One of each, and one of distances.
some_losses = pytest.mark.parametrize(
  ('name', 'settings'), [CASES[i] for i in (0, 2, 5, 7, 8, 9)]
)
each_loss = pytest.mark.parametrize(
  'name', ['smooth_ap', 'recall_at_k', 'sup_ap', 'roadmap', 'hap']
)
# A float32 score is off by some 1e-7, and a sigmoid of the difference of two by
# that over 4 temperature; of a rank, which is a sum of those, it is less still.
VALUE = 1e-5
# The sigmoid's slope is off by as much over the temperature itself.
GRADIENT = 3e-5


@pytest.mark.optimized
@every_loss
def test_values_and_gradients_match_the_float64_oracle(name, settings):
  z, labels = case(name, settings.get('c'))
  value, gradient, _ = evaluate(name, z, labels, **settings)
  assert value.dtype == np.float32
  want = oracle(name, z, labels, **settings)
  np.testing.assert_allclose(value, want, rtol=VALUE)
  rng = np.random.default_rng(1)
  gradient = np.float64(gradient)
  for _ in range(3):
    step = 1e-6 * np.abs(z).min(1, keepdims=True) * rng.standard_normal(z.shape)
    ahead, behind = (
      oracle(name, z.astype(float) + sign * step, labels, **settings)
      for sign in (1, -1)
    )
    slope = np.sum(gradient * step)
    size = np.linalg.norm(gradient) * np.linalg.norm(step)
    assert abs(slope - (ahead - behind) / 2) <= 1e-5 * size
  # Outside of `jit`, of half precision and without a mask and a memory.
  half = jnp.bfloat16(z)
  value = getattr(losses, name)(half, labels, **settings)
  assert value.dtype == jnp.float32
  want = oracle(name, np.float32(half), labels, **settings)
  np.testing.assert_allclose(value, want, rtol=VALUE)


@pytest.mark.optimized
@pytest.mark.parametrize('name', ['smooth_ap', 'recall_at_k', 'sup_ap', 'hap'])
def test_a_temperature_has_a_gradient(name):
  z, labels = case(name)
  _, _, slopes = evaluate(name, z, labels, temperature=0.1)
  ahead, behind = (
    oracle(name, z, labels, temperature=t) for t in (0.1 + 1e-6, 0.1 - 1e-6)
  )
  want = (ahead - behind) / 2e-6
  np.testing.assert_allclose(slopes['temperature'], want, rtol=1e-4)


@pytest.mark.optimized
@some_losses
def test_rows_that_do_not_count_have_no_gradient(name, settings):
  z, labels = case(name, settings.get('c'))
  where = np.arange(24) % 2 == 0
  value, gradient, _ = evaluate(name, z, labels, where, **settings)
  want = oracle(name, z[where], labels[where], **settings)
  np.testing.assert_allclose(value, want, rtol=VALUE)
  assert np.any(gradient[where])
  assert not np.any(gradient[~where])


@pytest.mark.optimized
@some_losses
def test_empty_and_one_class_batches_are_finite(name, settings):
  z, labels = case(name, settings.get('c'))
  f = lambda *args: evaluate(name, *args, **settings)
  apart = np.arange(24).reshape(24, *[1] * (labels.ndim - 1)) + 0 * labels
  for batch, where in (
    (labels, ~ALL),
    (labels, np.arange(24) == 3),
    (apart, ALL),
  ):
    value, gradient, _ = f(z, batch, where)
    assert value == 0
    assert not np.any(gradient)
  one_class = f(z, 0 * labels)
  chex.assert_tree_all_finite(one_class)
  if name in ('smooth_ap', 'sup_ap', 'hap'):
    # Nothing but the rounding of means of precisions, all 1.
    assert abs(one_class[0]) <= 1e-6
    assert not np.any(one_class[1])
  for same in (np.broadcast_to(z[:1], z.shape), 0 * z):
    chex.assert_tree_all_finite(f(same, labels))


@pytest.mark.optimized
@each_loss
def test_large_logits_stay_finite(name):
  z, labels = case(name)
  value, gradient, _ = evaluate(name, z, labels, temperature=1e-3)
  chex.assert_tree_all_finite(gradient)
  # Ten times less temperature has ten times the rounding.
  want = oracle(name, z, labels, temperature=1e-3)
  np.testing.assert_allclose(value, want, rtol=10 * VALUE)


@pytest.mark.optimized
@some_losses
def test_rows_of_a_memory_join_the_gallery(name, settings):
  z, labels = case(name, settings.get('c'))
  state, rows = ranking_losses.remembered_rows(name, settings.get('c'))
  value, gradient, _ = evaluate(name, z, labels, memory=state, **settings)
  want = oracle(name, z, labels, rows, **settings)
  np.testing.assert_allclose(value, want, rtol=VALUE)
  assert np.any(gradient)


@pytest.mark.optimized
@each_loss
def test_a_query_has_any_number_of_items(name):
  z, labels = case(name)
  for batch in (0 * labels, labels % 2):
    value, _, _ = evaluate(name, z, batch)
    want = oracle(name, z, batch)
    np.testing.assert_allclose(value, want, rtol=VALUE, atol=1e-6)


@pytest.mark.parametrize(
  ('name', 'settings'),
  [
    CASES[0],
    pytest.param(*CASES[2], marks=pytest.mark.slow),
    pytest.param(*CASES[7], marks=pytest.mark.slow),
    CASES[10],
  ],
)
def test_sharded_loss_is_that_of_one_device(name, settings):
  z, labels = case(name, settings.get('c'))
  where = np.arange(24) != 7
  state, _ = ranking_losses.remembered_rows(name, settings.get('c'))
  value, gradient, _ = evaluate(name, z, labels, where, state, **settings)
  f = lambda z, labels, where: getattr(losses, name)(
    z, labels, where=where, memory=state, axis_name='i', **settings
  )
  spread = lambda a: jnp.asarray(a).reshape(4, -1, *a.shape[1:])
  # Each device's gradient by its own rows holds all devices' losses.
  step = jax.pmap(jax.value_and_grad(f), 'i')
  values, gradients = step(spread(z), spread(labels), spread(where))
  np.testing.assert_allclose(values, np.full(4, value), rtol=VALUE)
  vectors.assert_near(gradients.reshape(z.shape) / 4, gradient, GRADIENT)


# `hap` ranks as `sup_ap` and `roadmap` do, by more tables.
@pytest.mark.optimized
@pytest.mark.parametrize('name', ['smooth_ap', 'recall_at_k', 'hap'])
def test_memory_is_far_below_that_of_all_triples(name):
  n = 256
  z, labels = jnp.zeros((n, 16)), jnp.zeros((n, 2), jnp.int32)
  labels = labels if name == 'hap' else labels[:, 0]
  f = jax.jit(jax.value_and_grad(getattr(losses, name)))
  held = f.lower(z, labels).compile().memory_analysis().temp_size_in_bytes
  # Some 10 float32 tables [n, n]; all triples of floats are 256 of them.
  assert held <= 16 * n * n * 4
