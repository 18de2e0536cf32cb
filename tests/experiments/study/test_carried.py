"""State over the steps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments.study import __main__ as study
from experiments.study import added, carried, contexts
from experiments.study.carried import Step
from hier_jax import poincare

KEY = jax.random.key(0)
RNG = np.random.default_rng(0)
LABELS = np.array([0, 2, 2, 0, 3, 2])
ROWS = RNG.standard_normal((6, 3)).astype(np.float32)
Z = poincare.to_ball(jnp.asarray(ROWS), c=0.1)
HEAD = {'kernel': jnp.asarray(RNG.standard_normal((3, 3)), jnp.float32)}


def params_of(head):
  return {'head': head, 'added': {'hier_proxies': jnp.eye(4, 3)}}


def advanced(kind, state, head=HEAD, count=0, **more):
  """(state, parameters) after a step."""
  step = Step({}, state, jnp.int32(count), **more)
  return kind.advance(
    KEY, Z, jnp.asarray(LABELS), params_of(head), {'tau': 0.1}, 0.1, step
  )


def units(x):
  x = np.asarray(x, np.float64)
  return x / np.linalg.norm(x, axis=1, keepdims=True)


def test_running_means_are_of_the_classes_that_a_batch_holds():
  before = RNG.standard_normal((5, 3)).astype(np.float32)
  before[3] = 0
  got = jax.jit(carried.running_means)(before, Z, LABELS)
  want = before.astype(np.float64)
  for label in (0, 2, 3):
    new = units(Z)[label == LABELS].mean(0)
    want[label] = new if label == 3 else 0.9 * before[label] + 0.1 * new
  np.testing.assert_allclose(got, want, rtol=1e-5, atol=1e-6)
  slope = jax.grad(lambda z: jnp.sum(carried.running_means(before, z, LABELS)))
  assert not np.any(slope(Z))


def test_teacher_follows_the_head():
  begun = carried.TEACHER.init(params_of(HEAD), 5, 6, 3)
  np.testing.assert_array_equal(begun['kernel'], HEAD['kernel'])
  want = np.asarray(begun['kernel'], np.float64)
  teacher = begun
  for count in (0, 1, 2000):
    head = {'kernel': HEAD['kernel'] + count + 1}
    teacher, params = advanced(carried.TEACHER, teacher, head, count)
    keep = min(0.99, (1 + count) / (10 + count))
    want = keep * want + (1 - keep) * np.asarray(head['kernel'], np.float64)
    assert params['head'] is head
  np.testing.assert_allclose(teacher['kernel'], want, rtol=1e-5)


def test_memory_holds_the_last_two_batches():
  state = carried.MEMORY.init(params_of(HEAD), 5, len(LABELS), 3)
  assert not np.any(state.filled) and len(state.filled) == 12
  state, _ = advanced(carried.MEMORY, state)
  np.testing.assert_array_equal(state.embeddings[:6], Z)
  np.testing.assert_array_equal(state.labels[:6], LABELS)
  assert np.flatnonzero(state.filled).tolist() == list(range(6))


def test_proxies_without_use_are_put_at_data():
  usage = carried.USAGE.init(params_of(HEAD), 5, 6, 3)
  np.testing.assert_array_equal(usage, np.full(4, 0.25, np.float32))
  # Of the usage, .98 stays: of these the last alone stays below a tenth of 1/4.
  usage = jnp.array([0.5, 0.2, 0.2, 0.0])
  far = params_of(HEAD)
  far['added']['hier_proxies'] = jnp.diag(jnp.ones(4))[:, :3].at[3].set(-2.3)
  step = Step({}, usage, jnp.int32(0))
  usage, params = carried.USAGE.advance(
    KEY, Z, LABELS, far, {'tau': 0.01}, 0.1, step
  )
  before, after = (p['added']['hier_proxies'] for p in (far, params))
  np.testing.assert_array_equal(before[:3], after[:3])
  tangent = 0.5 * np.asarray(poincare.log0(Z, c=0.1))
  assert np.abs(tangent - np.asarray(after[3])).max(1).min() < 1e-6
  assert float(usage[3]) == 0.25 and params['head'] is HEAD


def test_means_of_a_teacher_are_of_its_embeddings():
  kind = carried.TEACHER_MEANS
  state = kind.init(params_of(HEAD), 5, 6, 3)
  other = {'kernel': 3 * HEAD['kernel']}
  embed = lambda head: jnp.asarray(ROWS) @ head['kernel']
  state, _ = advanced(kind, state, other, embed=embed)
  # The teacher as it was before the step.
  z = units(ROWS @ np.asarray(HEAD['kernel']))
  want = np.stack([z[i == LABELS].mean(0) for i in (0, 2, 3)])
  np.testing.assert_allclose(state['means'][jnp.array([0, 2, 3])], want, 1e-5)
  keep = 1 / 10
  np.testing.assert_allclose(
    state['teacher']['kernel'], (keep + 3 * (1 - keep)) * HEAD['kernel'], 1e-5
  )


@pytest.mark.parametrize('teacher', [False, True])
def test_levels_are_told_once_every_class_has_a_mean(teacher):
  make = carried.teacher_means_of if teacher else carried.means_of
  kind = make(contexts.pseudo_levels)
  means = RNG.standard_normal((9, 4)).astype(np.float32)
  state = lambda m: {'means': m, 'teacher': HEAD} if teacher else m
  want = contexts.pseudo_levels(means, np.arange(9))['levels']
  flat = contexts.flat_levels(None, np.arange(9), None)['levels']
  got = kind.context(state(means))['levels']
  np.testing.assert_array_equal(got, want)
  assert (got.shape, got.dtype) == (flat.shape, flat.dtype)
  assert [len(np.unique(column)) for column in flat.T] == [9] * flat.shape[1]
  means[4] = 0
  assert kind.context(state(means)) == {}


def test_arms_with_a_state_are_explained():
  text = (study.HERE / 'VARIANTS.md').read_text()
  for name, entry in added.ADDED.items():
    assert entry.carried is None or f'`{name}`' in text
