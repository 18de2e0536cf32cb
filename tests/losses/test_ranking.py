"""Ranking losses: float64 oracles, true scores of retrieval, edge cases."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import losses
from hier_jax.losses import _memory as memory
from tests.support import exact_geometry, vectors

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
ALL = np.ones(24, bool)


def score_table(z, others, c):
  """Scores of rows of z and of others in float64."""
  z, others = np.asarray(z, np.float64), np.asarray(others, np.float64)
  if c is not None:
    d = exact_geometry.dist(
      *exact_geometry.wide(z[:, None], others[None]),
      exact_geometry.curvature(c),
    )
    return -d.astype(float)
  unit = lambda x: x / np.linalg.norm(x, axis=1, keepdims=True)
  return unit(z) @ unit(others).T


def sigmoid(x):
  return 0.5 * (1 + np.tanh(x / 2))


def bound(t, temperature, slope, delta):
  """The bound of the Heaviside function, piece by piece."""
  if t < 0:
    return sigmoid(t / temperature)
  if t <= delta:
    return sigmoid(t / temperature) + 0.5
  return slope * (t - delta) + sigmoid(delta / temperature) + 0.5


def smooth_ap_of(s, level, temperature=0.01, **_):
  items, others = np.flatnonzero(level), range(len(s))
  rank = lambda i, among: (
    1 + sum(sigmoid((s[j] - s[i]) / temperature) for j in among if j != i)
  )
  return 1 - np.mean([rank(i, items) / rank(i, others) for i in items])


def recall_of(s, level, ks=(1, 2, 4, 8, 16), temperature=0.01, **options):
  spread = np.broadcast_to(options.get('rank_temperature', 1.0), len(ks))
  items, others = np.flatnonzero(level), range(len(s))
  rank = lambda i: (
    1 + sum(sigmoid((s[j] - s[i]) / temperature) for j in others if j != i)
  )
  recalls = []
  for k, t in zip(ks, spread, strict=True):
    found = sum(sigmoid((k - rank(i)) / t) for i in items)
    recalls.append(min(found, k) / min(k, len(items)))
  return 1 - np.mean(recalls)


def hap_of(
  s, level, temperature=0.01, slope=100.0, delta=0.05, alpha=1.0, depth=1, **_
):
  items, others = np.flatnonzero(level), range(len(s))
  rel = {i: (level[i] / depth) ** alpha / sum(level == level[i]) for i in items}
  total = 0
  for i in items:
    rank, hrank = 1, rel[i]
    for j in others:
      if j == i:
        continue
      if level[j] < level[i]:
        rank += bound(s[j] - s[i], temperature, slope, delta)
      else:
        rank += s[j] >= s[i]
      if j in rel and s[j] >= s[i]:
        hrank += min(rel[i], rel[j])
    total += hrank / rank
  return 1 - total / sum(rel.values())


def roadmap_of(s, level, weight=0.1, margins=(0.9, 0.6), **options):
  near, far = margins
  pull = np.mean(np.maximum(near - s[level > 0], 0))
  push = np.sum(np.maximum(s[level == 0] - far, 0)) / max(sum(level == 0), 1)
  return (1 - weight) * hap_of(s, level, **options) + weight * (pull + push)


ORACLES = {
  'smooth_ap': smooth_ap_of,
  'recall_at_k': recall_of,
  'sup_ap': hap_of,
  'roadmap': roadmap_of,
  'hap': hap_of,
}


def oracle(name, z, labels, remembered=None, c=None, of=None, **settings):
  """The mean over queries, a query at a time; `of` for another loss of one."""
  labels = np.asarray(labels).reshape(len(z), -1)
  others, classes = np.asarray(z, np.float64), labels
  if remembered is not None:
    others = np.concatenate([others, remembered[0]])
    classes = np.concatenate(
      [classes, remembered[1].reshape(-1, labels.shape[1])]
    )
  found = []
  for i in range(len(z)):
    rest = np.arange(len(others)) != i
    s = score_table(z[i : i + 1], others[rest], c)[0]
    level = np.cumprod(classes[rest] == labels[i], 1).sum(1)
    if level.any():
      depth = {'depth': labels.shape[1]} if name == 'hap' else {}
      found.append((of or ORACLES[name])(s, level, **depth, **settings))
  return np.mean(found)


def case(name, c=None, n=24, classes=5, seed=0):
  rng = np.random.default_rng(seed)
  z = exact_geometry.ball(rng, n, 6, c or 1.0, 'mid')
  # The last class has one row, hence no positive.
  labels = np.append(rng.integers(0, classes, n - 1), 2 * classes)
  if name == 'hap':
    labels = np.stack([labels // 2, labels], 1)
  return z, labels


@functools.cache
def program(name, **settings):
  """Value and gradient by z, of z, labels, the rows that count and a memory."""
  loss = functools.partial(getattr(losses, name), **settings)
  f = jax.jit(
    jax.value_and_grad(
      lambda z, labels, where, memory: loss(
        z, labels, where=where, memory=memory
      )
    )
  )
  return lambda z, labels, where=ALL, memory=None: f(z, labels, where, memory)


@pytest.mark.optimized
@every_loss
def test_losses_match_their_float64_oracles(name, settings):
  z, labels = case(name, settings.get('c'))
  want = oracle(name, z, labels, **settings)
  eager = getattr(losses, name)(z, labels, **settings)
  for got in (eager, program(name, **settings)(z, labels)[0]):
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=VALUE)
  half = jnp.bfloat16(z)
  want = oracle(name, np.float32(half), labels, **settings)
  got = getattr(losses, name)(half, labels, **settings)
  np.testing.assert_allclose(got, want, rtol=VALUE)


@every_loss
def test_gradients_are_slopes_of_the_oracle(name, settings):
  z, labels = case(name, settings.get('c'))
  gradient = np.float64(program(name, **settings)(z, labels)[1])
  rng = np.random.default_rng(1)
  for _ in range(3):
    step = 1e-6 * np.abs(z).min(1, keepdims=True) * rng.standard_normal(z.shape)
    ahead, behind = (
      oracle(name, z.astype(float) + sign * step, labels, **settings)
      for sign in (1, -1)
    )
    slope = np.sum(gradient * step)
    size = np.linalg.norm(gradient) * np.linalg.norm(step)
    assert abs(slope - (ahead - behind) / 2) <= 1e-5 * size


@pytest.mark.parametrize('name', ['smooth_ap', 'recall_at_k', 'sup_ap', 'hap'])
def test_a_temperature_has_a_gradient(name):
  z, labels = case(name)
  f = lambda t: getattr(losses, name)(z, labels, temperature=t)
  ahead, behind = (
    oracle(name, z, labels, temperature=t) for t in (0.1 + 1e-6, 0.1 - 1e-6)
  )
  np.testing.assert_allclose(
    jax.jit(jax.grad(f))(0.1), (ahead - behind) / 2e-6, rtol=1e-4
  )


@some_losses
def test_rows_that_do_not_count_have_no_gradient(name, settings):
  z, labels = case(name, settings.get('c'))
  where = np.arange(24) % 2 == 0
  value, gradient = program(name, **settings)(z, labels, where)
  want = oracle(name, z[where], labels[where], **settings)
  np.testing.assert_allclose(value, want, rtol=VALUE)
  assert np.any(gradient[where])
  assert not np.any(gradient[~where])


@some_losses
def test_empty_and_one_class_batches_are_finite(name, settings):
  z, labels = case(name, settings.get('c'))
  f = program(name, **settings)
  apart = np.arange(24).reshape(24, *[1] * (labels.ndim - 1)) + 0 * labels
  for batch, where in (
    (labels, ~ALL),
    (labels, np.arange(24) == 3),
    (apart, ALL),
  ):
    value, gradient = f(z, batch, where)
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


@each_loss
def test_large_logits_stay_finite(name):
  z, labels = case(name)
  f = lambda z: getattr(losses, name)(z, labels, temperature=1e-3)
  value, gradient = jax.value_and_grad(f)(z)
  chex.assert_tree_all_finite(gradient)
  # Ten times less temperature has ten times the rounding.
  want = oracle(name, z, labels, temperature=1e-3)
  np.testing.assert_allclose(value, want, rtol=10 * VALUE)


def remembered_rows(name, c=None):
  """A memory of 7 rows of which 5 are filled, and those 5."""
  z, labels = case(name, c, n=7, seed=5)
  filled = np.arange(7) < 5
  state = memory.Memory(
    jnp.asarray(z), jnp.asarray(labels), jnp.asarray(filled), jnp.int32(5)
  )
  return state, (z[:5], labels[:5])


@some_losses
def test_rows_of_a_memory_join_the_gallery(name, settings):
  z, labels = case(name, settings.get('c'))
  state, rows = remembered_rows(name, settings.get('c'))
  value, gradient = program(name, **settings)(z, labels, memory=state)
  want = oracle(name, z, labels, rows, **settings)
  np.testing.assert_allclose(value, want, rtol=VALUE)
  assert np.any(gradient)


@some_losses
def test_sharded_loss_is_that_of_one_device(name, settings):
  z, labels = case(name, settings.get('c'))
  where = np.arange(24) != 7
  state, _ = remembered_rows(name, settings.get('c'))
  value, gradient = program(name, **settings)(z, labels, where, state)
  f = lambda z, labels, where: getattr(losses, name)(
    z, labels, where=where, memory=state, axis_name='i', **settings
  )
  spread = lambda a: jnp.asarray(a).reshape(4, -1, *a.shape[1:])
  # Each device's gradient by its own rows holds all devices' losses.
  step = jax.pmap(jax.value_and_grad(f), 'i')
  values, gradients = step(spread(z), spread(labels), spread(where))
  np.testing.assert_allclose(values, np.full(4, value), rtol=VALUE)
  vectors.assert_near(gradients.reshape(z.shape) / 4, gradient, GRADIENT)


# ---- what the losses stand in for -------------------------------------------


def circle(*degrees):
  angles = np.deg2rad(degrees)
  return np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32)


def test_losses_of_three_rows_by_hand():
  # The rows at 0 and 50 degrees are each other's item, second to that at 20.
  z, labels = circle(0, 20, 50), np.array([0, 1, 0])
  near, nearer, far = np.cos(np.deg2rad([20, 30, 50]))
  np.testing.assert_allclose(losses.smooth_ap(z, labels), 0.5, rtol=1e-6)
  recall = losses.recall_at_k(z, labels, ks=(1, 2))
  half = (1 / (1 + np.exp(1.0)) + 0.5) / 2
  np.testing.assert_allclose(recall, 1 - half, rtol=1e-6)
  flat = 1 / (1 + np.exp(-5.0)) + 0.5
  ranks = [2 + 100 * (s - far - 0.05) + flat - 1 for s in (near, nearer)]
  want = 1 - np.mean(1 / np.array(ranks))
  np.testing.assert_allclose(losses.sup_ap(z, labels), want, rtol=1e-6)
  calibration = 0.9 - far + np.mean([near - 0.6, nearer - 0.6])
  got = losses.roadmap(z, labels, weight=0.25)
  np.testing.assert_allclose(got, 0.75 * want + 0.25 * calibration, rtol=1e-6)


def test_hierarchical_loss_of_four_rows_by_hand():
  # Of the row at 0 degrees: that at 60 shares both labels, those at 10 and 30
  # the first. Only that row is a query, the others being of a memory.
  z, labels = circle(0, 10, 30, 60), np.array([[0, 0], [0, 1], [0, 2], [0, 0]])
  state = memory.Memory(*map(jnp.asarray, (z[1:], labels[1:], [True] * 3, 0)))
  s = np.cos(np.deg2rad([10, 30, 60]))
  flat = 1 / (1 + np.exp(-5.0)) + 0.5
  above = 100 * (s[:2] - s[2] - 0.05) + flat
  # Relevance 1/4, 1/4 and 1; both before the last are of lower level than it.
  want = 1 - (0.25 + 2 * 0.25 / 2 + 1.5 / (1 + sum(above))) / 1.5
  got = losses.hap(z[:1], labels[:1], memory=state)
  np.testing.assert_allclose(got, want, rtol=1e-6)


@each_loss
def test_a_perfect_ranking_has_no_loss(name):
  # The first two classes are closest, and of one class above in hap.
  z, labels = (
    circle(0, 1, 2, 90, 91, 92, 230, 231, 232),
    np.repeat([0, 1, 2], 3),
  )
  labels = np.stack([labels // 2, labels], 1) if name == 'hap' else labels
  settings = {'rank_temperature': 0.01, 'ks': (4,)}
  settings = settings if name == 'recall_at_k' else {}
  # Nothing but the rounding of means of precisions, all 1.
  assert abs(getattr(losses, name)(z, labels, **settings)) <= 1e-6


def true_ap(s, level, **_):
  order = np.argsort(-s)
  hit = level[order] > 0
  return 1 - np.mean((np.cumsum(hit) / np.arange(1, len(s) + 1))[hit])


def true_recall(s, level, ks=(1, 2, 4, 8, 16), **_):
  hit = level[np.argsort(-s)] > 0
  # The item at rank k counts by half.
  found = [hit[: k - 1].sum() + 0.5 * hit[k - 1] for k in ks]
  return 1 - np.mean(np.array(found) / np.minimum(ks, hit.sum()))


def true_hap(s, level, alpha=1.0, depth=1, **_):
  rel = np.zeros(len(s))
  for i in np.flatnonzero(level):
    rel[i] = (level[i] / depth) ** alpha / np.sum(level == level[i])
  rel = rel[np.argsort(-s)]
  precision = [
    np.minimum(rel[: k + 1], rel[k]).sum() / (k + 1) for k in range(len(s))
  ]
  return 1 - np.sum(np.array(precision)[rel > 0]) / rel.sum()


def test_cold_losses_are_those_of_the_true_ranking():
  z, labels = case('smooth_ap', n=16)
  # No two scores of a query are closer than 1e-4, a hundred temperatures.
  for i in range(16):
    assert np.diff(np.sort(score_table(z[i : i + 1], z, None)[0])).min() > 1e-4
  got = losses.smooth_ap(z, labels, temperature=1e-6)
  want = oracle('smooth_ap', z, labels, of=true_ap)
  np.testing.assert_allclose(got, want, rtol=1e-6)
  got = losses.recall_at_k(
    z, labels, ks=(1, 2, 5), temperature=1e-6, rank_temperature=1e-3
  )
  want = oracle('recall_at_k', z, labels, of=true_recall, ks=(1, 2, 5))
  np.testing.assert_allclose(got, want, rtol=1e-6)


@pytest.mark.parametrize('seed', range(8))
@pytest.mark.parametrize(
  ('name', 'true'), [('sup_ap', true_ap), ('hap', true_hap)]
)
def test_bounded_losses_are_upper_bounds(name, true, seed):
  z, labels = case(name, seed=seed)
  least = oracle(name, z, labels, of=true)
  for settings in ({}, {'temperature': 0.1}, {'slope': 0.0, 'delta': 0.0}):
    assert getattr(losses, name)(z, labels, **settings) >= least - 1e-6


def test_hierarchical_loss_of_one_level_is_sup_ap():
  z, labels = case('sup_ap')
  for alpha in (0.5, 2.0):
    np.testing.assert_allclose(
      losses.hap(z, labels[:, None], alpha=alpha),
      losses.sup_ap(z, labels),
      rtol=1e-6,
    )


def test_labels_may_be_numbered_anew_below_each_parent():
  z, fine = case('sup_ap', classes=8)
  labels = np.stack([fine // 4, fine // 2, fine], 1)
  anew = np.stack([fine // 4, fine // 2 % 2, fine % 2], 1)
  want = oracle('hap', z, labels)
  for numbers in (labels, anew):
    np.testing.assert_allclose(losses.hap(z, numbers), want, rtol=VALUE)


def test_weights_of_roadmap_are_those_of_its_parts():
  z, labels = case('roadmap')
  rank, both, calibration = (
    losses.roadmap(z, labels, weight=w) for w in (0.0, 0.1, 1.0)
  )
  np.testing.assert_allclose(rank, losses.sup_ap(z, labels), rtol=1e-6)
  np.testing.assert_allclose(both, 0.9 * rank + 0.1 * calibration, rtol=1e-6)


def test_recalls_stay_below_one():
  # 30 items at one rank of 15.5 would be 18 found within the first 16.
  z, labels = np.ones((31, 2), np.float32), np.zeros(31, int)
  assert losses.recall_at_k(z, labels, ks=(16,), rank_temperature=1.0) == 0


# ---- programs ---------------------------------------------------------------


@pytest.mark.optimized
@each_loss
def test_memory_is_far_below_that_of_all_triples(name):
  n = 256
  z, labels = jnp.zeros((n, 16)), jnp.zeros((n, 2), jnp.int32)
  labels = labels if name == 'hap' else labels[:, 0]
  f = jax.jit(jax.value_and_grad(getattr(losses, name)))
  held = f.lower(z, labels).compile().memory_analysis().temp_size_in_bytes
  # Some 10 float32 tables [n, n]; all triples of floats are 256 of them.
  assert held <= 16 * n * n * 4


@each_loss
def test_any_number_of_items_is_one_trace(name):
  z, labels = case(name)
  f = jax.jit(chex.assert_max_traces(getattr(losses, name), n=1))
  for batch in (labels, 0 * labels, labels % 2):
    np.testing.assert_allclose(
      f(z, batch), oracle(name, z, batch), rtol=VALUE, atol=1e-6
    )


def test_bad_input_is_named():
  z, labels = case('sup_ap')
  for ks in ((), (0, 1)):
    with pytest.raises(ValueError, match='ks is'):
      losses.recall_at_k(z, labels, ks=ks)
  with pytest.raises(ValueError, match='rank_temperature has shape'):
    losses.recall_at_k(z, labels, rank_temperature=(1.0, 2.0))
  with pytest.raises(ValueError, match='margins must be given'):
    losses.roadmap(z, labels, c=0.5)
  with pytest.raises(ValueError, match='rank'):
    losses.hap(z, labels)
  with pytest.raises(ValueError, match='rank'):
    losses.sup_ap(z, labels[:, None])
