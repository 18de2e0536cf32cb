"""Pairwise and triplet losses: float64 oracles, official vectors, edge cases.

A case has one program, which all tests but those of devices share.
"""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import losses
from tests.support import pair_losses, sharded, vectors
from tests.support.pair_losses import ALL, program

HYPERBOLIC = (
  'contrastive',
  'lifted_structure',
  'multi_similarity',
  'n_pair',
  'sup_con',
)
CASES = [
  *((name, {}) for name in (*HYPERBOLIC, 'circle')),
  *((name, {'c': 0.5}) for name in HYPERBOLIC),
  ('multi_similarity', {'epsilon': 0.1}),
  ('triplet', {'mining': 'all'}),
  ('triplet', {'mining': 'hard', 'squared': True}),
  ('triplet', {'mining': 'semi_hard'}),
  ('triplet', {'mining': 'semi_hard', 'c': 0.5}),
]
every_loss = pytest.mark.parametrize(('name', 'settings'), CASES)


def remembered(settings, filled=19):
  """A batch, the rows before it, and a memory that holds those and room."""
  z, labels = pair_losses.case(settings, n=24 + filled)
  old = z[24:], labels[24:]
  memory = losses.enqueue(pair_losses.no_memory(), *old)
  return z[:24], labels[:24], old, memory


@pytest.mark.optimized
@every_loss
def test_values_and_gradients_match_the_float64_oracle(name, settings):
  z, labels = pair_losses.case(settings)
  oracle = functools.partial(
    pair_losses.oracle, name, labels=labels, **settings
  )
  value, gradient = program(name, **settings)(z, labels)
  assert value.dtype == np.float32
  np.testing.assert_allclose(value, oracle(z), rtol=1e-5)
  pair_losses.assert_slopes(gradient, functools.partial(oracle, fixed=z), z)
  # Outside of `jit`, of half precision and without a mask and a memory.
  half = jnp.bfloat16(z)
  value = getattr(losses, name)(half, labels, **settings)
  assert value.dtype == jnp.float32
  np.testing.assert_allclose(value, oracle(np.float32(half)), rtol=1e-5)


@pytest.mark.optimized
@every_loss
def test_rows_of_a_memory_are_compared_with(name, settings):
  z, labels, old, memory = remembered(settings)
  oracle = functools.partial(
    pair_losses.oracle, name, labels=labels, **settings
  )
  want = oracle(z, memory=old)
  assert abs(want - oracle(z)) > 1e-3 * want
  value, gradient = program(name, **settings)(z, labels, memory=memory)
  np.testing.assert_allclose(value, want, rtol=1e-5)
  oracle = functools.partial(oracle, fixed=z, memory=old)
  pair_losses.assert_slopes(gradient, oracle, z)


@pytest.mark.optimized
@every_loss
def test_rows_that_do_not_count_change_nothing(name, settings):
  z, labels, old, memory = remembered(settings)
  f = program(name, **settings)
  for n, seen, rows in ((13, None, None), (17, memory, old)):
    where = np.arange(24) < n
    value, gradient = f(z, labels, where, seen)
    want = pair_losses.oracle(name, z[:n], labels[:n], memory=rows, **settings)
    np.testing.assert_allclose(value, want, rtol=1e-5)
    assert np.any(gradient[:n])
    assert not np.any(gradient[n:])
    # Whatever they are.
    others = np.where(where[:, None], z, z[::-1])
    again = f(others, np.where(where, labels, labels[0]), where, seen)
    chex.assert_trees_all_equal(again, (value, gradient))


@pytest.mark.optimized
@every_loss
def test_empty_and_one_class_batches_are_finite(name, settings):
  z, labels, _, memory = remembered(settings)
  f = program(name, **settings)
  one_row = np.arange(24) == 3
  for where, seen in ((~ALL, None), (one_row, None), (~ALL, memory)):
    value, gradient = f(z, labels, where, seen)
    assert value == 0
    assert not np.any(gradient)
  # Memories of one class, the own or another, and of the batch itself.
  own, other = (memory._replace(labels=0 * memory.labels + k) for k in (0, 99))
  itself = losses.enqueue(memory, z, labels)
  for seen in (None, own, other, itself):
    for batch in (0 * labels, np.arange(24), labels):
      chex.assert_tree_all_finite(f(z, batch, memory=seen))
  same = np.broadcast_to(z[:1], z.shape)
  chex.assert_tree_all_finite(f(same, labels))


@pytest.mark.optimized
@pytest.mark.parametrize(
  ('name', 'settings'),
  [
    ('multi_similarity', {'beta': 1000.0, 'alpha': 1000.0}),
    ('n_pair', {'temperature': 1e-3}),
    ('sup_con', {'temperature': 1e-3}),
    ('circle', {'scale': 1000.0}),
    ('lifted_structure', {'margin': 1000.0}),
  ],
)
def test_large_logits_stay_finite(name, settings):
  z, labels = pair_losses.case({})
  f = program(name)
  large = f(z, labels, **settings)
  chex.assert_tree_all_finite(large)
  assert large[0] != f(z, labels)[0]


@pytest.mark.parametrize('name', ['s0', 'm0'])
def test_multi_similarity_matches_official_vectors(name):
  arrays = vectors.under(f'metric/MS/{name}')
  f = lambda z: losses.multi_similarity(z, arrays['T'])
  value, gradient = jax.jit(jax.value_and_grad(f))(arrays['X'])
  np.testing.assert_allclose(value, arrays['f64/loss'], rtol=1e-5)
  vectors.assert_near(gradient, arrays['f64/grad/X'], 2e-5)


def spread(name, devices, *marks, **settings):
  return pytest.param(name, settings, devices, marks=marks)


# Each loss, and each number of devices; quick are the three ways of adding up.
@pytest.mark.parametrize(
  ('name', 'settings', 'devices'),
  [
    spread('lifted_structure', 4, c=0.5),
    spread('triplet', 2, mining='all'),
    spread('sup_con', 8),
    spread('contrastive', 2, pytest.mark.slow, c=0.5),
    spread('multi_similarity', 4, pytest.mark.slow, epsilon=0.1),
    spread('n_pair', 8, pytest.mark.slow, c=0.5),
    spread('circle', 4, pytest.mark.slow),
    spread('triplet', 4, pytest.mark.slow, mining='hard', squared=True),
    spread('triplet', 8, pytest.mark.slow, mining='semi_hard', c=0.5),
  ],
)
def test_sharded_loss_is_that_of_one_device(name, settings, devices):
  z, labels, _, memory = remembered(settings)
  where = np.arange(24) % 5 > 0
  f = lambda z, labels, where, axis_name: getattr(losses, name)(
    z, labels, where=where, memory=memory, axis_name=axis_name, **settings
  )
  sharded.assert_like_one_device(f, (z, labels, where), numbers=(devices,))


def test_unknown_mining_is_named():
  with pytest.raises(ValueError, match="mining is 'soft'"):
    losses.triplet(*pair_losses.case({}), mining='soft')
