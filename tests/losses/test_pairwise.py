"""Pairwise losses: float64 oracles, official vectors, edge cases."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import debug, losses
from tests.support import exact_geometry, sharded, vectors

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


def tables(z, x, c):
  """Similarities and distances in float64."""
  z, x = (np.asarray(a, np.float64) for a in (z, x))
  if c is not None:
    d = exact_geometry.dist(
      *exact_geometry.wide(z[:, None], x[None]), exact_geometry.curvature(c)
    )
    return -d.astype(float), d.astype(float)
  u, v = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (z, x))
  return u @ v.T, np.linalg.norm(u[:, None] - v[None], axis=-1)


def oracle(
  name,
  z,
  labels,
  c=None,
  mining=None,
  epsilon=None,
  squared=False,
  fixed=None,
  memory=None,
):
  """An anchor at a time, from the equations.

  Circle's weights are of the rows `fixed`; `memory` is rows and their labels.
  """
  old, old_labels = memory or (z[:0], labels[:0])
  table = lambda z: tables(z, np.concatenate([z, old]), c)
  s, d = table(z)
  weighed = s if fixed is None else table(fixed)[0]
  n, classes = len(z), np.concatenate([labels, old_labels])
  terms = []
  for i in range(n):
    p = [j for j in range(len(classes)) if classes[j] == labels[i] and j != i]
    q = np.flatnonzero(classes != labels[i]).tolist()
    if name == 'contrastive':
      terms += [d[i, j] ** 2 / 2 for j in p]
      terms += [max(0.5 - d[i, j], 0) ** 2 / 2 for j in q]
    elif name == 'lifted_structure':
      for j in p:
        pushed = np.append(d[i, q], d[labels != classes[j], j])
        push = np.log(np.sum(np.exp(1 - pushed)))
        terms.append(max(d[i, j] + push, 0) ** 2 / 2)
    elif name == 'multi_similarity':
      kept_p, kept_q = p, q
      if epsilon is not None:
        kept_p = [j for j in p if s[i, j] < max(s[i, q]) + epsilon]
        kept_q = [j for j in q if p and s[i, j] > min(s[i, p]) - epsilon]
      terms.append(
        np.log1p(np.sum(np.exp(-2 * (s[i, kept_p] - 0.5)))) / 2
        + np.log1p(np.sum(np.exp(50 * (s[i, kept_q] - 0.5)))) / 50
      )
    elif name == 'triplet' and p and q:
      e = d[i] ** 2 if squared else d[i]
      beyond = {j: [k for k in q if e[k] > e[j]] for j in p}
      triplets = {
        'all': [(e[j], e[k]) for j in p for k in q],
        'hard': [(max(e[p]), min(e[q]))],
        'semi_hard': [
          (e[j], min(e[beyond[j]]) if beyond[j] else max(e[q])) for j in p
        ],
      }[mining]
      terms += [max(far - near + 0.2, 0) for far, near in triplets]
    elif name == 'n_pair':
      terms += [np.log1p(np.exp((s[i, q] - s[i, j]) / 0.1).sum()) for j in p]
    elif name == 'sup_con' and p:
      others = np.delete(s[i], i) / 0.1
      terms.append(np.log(np.sum(np.exp(others))) - np.mean(s[i, p]) / 0.1)
    elif name == 'circle' and p and q:
      a, b = s[i, p], s[i, q]
      far, near = 1.4 - weighed[i, p], weighed[i, q] + 0.4
      pull = np.exp(-80 * np.maximum(far, 0) * (a - 0.6))
      push = np.exp(80 * np.maximum(near, 0) * (b - 0.4))
      terms.append(np.log1p(pull.sum() * push.sum()))
  return np.mean(terms)


def case(settings, n=24, classes=5):
  rng = np.random.default_rng(0)
  z = exact_geometry.ball(rng, n, 6, settings.get('c') or 1.0, 'mid')
  # The last class has one row, hence no positive.
  labels = np.append(rng.integers(0, classes, n - 1), classes)
  return z, labels


@pytest.mark.optimized
@every_loss
def test_losses_match_their_float64_oracles(name, settings):
  z, labels = case(settings)
  loss = functools.partial(getattr(losses, name), **settings)
  want = oracle(name, z, labels, **settings)
  for f in (loss, jax.jit(loss)):
    got = f(z, labels)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, want, rtol=1e-5)
  half = jnp.bfloat16(z)
  want = oracle(name, np.float32(half), labels, **settings)
  np.testing.assert_allclose(loss(half, labels), want, rtol=1e-5)


@pytest.mark.parametrize('name', ['s0', 'm0'])
def test_multi_similarity_matches_official_vectors(name):
  arrays = vectors.under(f'metric/MS/{name}')
  f = lambda z: losses.multi_similarity(z, arrays['T'])
  value, gradient = jax.jit(jax.value_and_grad(f))(arrays['X'])
  np.testing.assert_allclose(value, arrays['f64/loss'], rtol=1e-5)
  vectors.assert_near(gradient, arrays['f64/grad/X'], 2e-5)


def assert_slopes(gradient, oracle, z):
  """The gradient of z against differences of the oracle."""
  gradient = np.asarray(gradient, np.float64)
  rng = np.random.default_rng(1)
  for _ in range(5):
    step = 1e-6 * np.abs(z).min(1, keepdims=True) * rng.standard_normal(z.shape)
    ahead, behind = (oracle(z.astype(float) + k * step) for k in (1, -1))
    slope = np.sum(gradient * step)
    size = np.linalg.norm(gradient) * np.linalg.norm(step)
    assert abs(slope - (ahead - behind) / 2) <= 1e-4 * size


@every_loss
def test_gradients_are_slopes_of_the_oracle(name, settings):
  z, labels = case(settings)
  loss = functools.partial(getattr(losses, name), **settings)
  gradient = jax.jit(jax.grad(loss))(z, labels)
  fixed = functools.partial(oracle, name, fixed=z, **settings)
  assert_slopes(gradient, lambda x: fixed(x, labels), z)


def masked(name, settings):
  """Value and gradient by z, of z, labels and the rows that count."""
  loss = functools.partial(getattr(losses, name), **settings)
  return jax.value_and_grad(
    lambda z, labels, where: loss(z, labels, where=where)
  )


@every_loss
def test_rows_that_do_not_count_have_no_gradient(name, settings):
  z, labels = case(settings)
  f = masked(name, settings)
  where = np.arange(24) < 13
  value, gradient = f(z, labels, where)
  want = getattr(losses, name)(z[:13], labels[:13], **settings)
  np.testing.assert_allclose(value, want, rtol=2e-6)
  assert not np.any(gradient[13:])


@every_loss
def test_empty_and_one_class_batches_are_finite(name, settings):
  z, labels = case(settings)
  f = masked(name, settings)
  everything, nothing = np.ones(24, bool), np.zeros(24, bool)
  value, gradient = f(z, labels, nothing)
  assert value == 0
  assert not np.any(gradient)
  one_row = np.arange(24) == 3
  value, gradient = f(z, labels, one_row)
  assert value == 0
  assert not np.any(gradient)
  for batch in (0 * labels, np.arange(24)):
    chex.assert_tree_all_finite(f(z, batch, everything))
  same = np.broadcast_to(z[:1], z.shape)
  chex.assert_tree_all_finite(f(same, labels, everything))


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
  z, labels = case({})
  f = jax.value_and_grad(lambda z: getattr(losses, name)(z, labels, **settings))
  chex.assert_tree_all_finite(f(z))


@every_loss
def test_sharded_loss_is_that_of_one_device(name, settings):
  z, labels = case(settings)
  where = np.arange(24) % 5 > 0
  f = lambda z, labels, where, axis_name: getattr(losses, name)(
    z, labels, where=where, axis_name=axis_name, **settings
  )
  sharded.assert_like_one_device(f, (z, labels, where))


def test_unknown_mining_is_named():
  with pytest.raises(ValueError, match="mining is 'soft'"):
    losses.triplet(*case({}), mining='soft')


@pytest.mark.parametrize(('name', 'views'), [('s0', 2), ('m0', 3)])
def test_hyp_matches_official_vectors(name, views):
  arrays = vectors.under(f'metric/SupConHyp/{name}')
  # The official mean divides by the views that are paired with themselves too.
  share = (views - 1) / views
  z = arrays['X']
  labels = np.arange(len(z)).repeat(views)
  f = lambda z: share * losses.hyp(z, labels, views=views, c=0.1)
  value, gradient = jax.jit(jax.value_and_grad(f))(flat(z))
  np.testing.assert_allclose(value, arrays['f64/loss'], rtol=1e-4)
  vectors.assert_near(gradient, flat(arrays['f64/grad/X']), 1e-3)


def flat(z):
  return z.reshape(-1, z.shape[-1])


def hyp_oracle(z, c, t=0.2):
  n, v, _ = z.shape
  s, _ = tables(flat(z), flat(z), c)
  s = s.reshape(n, v, n, v) / t
  terms = []
  for a in range(v):
    for b in set(range(v)) - {a}:
      for i in range(n):
        rest = [s[i, a, j, a] for j in range(n) if j != i]
        bottom = np.sum(np.exp(np.append(s[i, a, :, b], rest)))
        terms.append(np.log(bottom) - s[i, a, i, b])
  return np.mean(terms)


@pytest.mark.optimized
@pytest.mark.parametrize('views', [2, 3])
@pytest.mark.parametrize('c', [None, 0.5])
def test_hyp_matches_its_float64_oracle_and_masks(c, views):
  rng = np.random.default_rng(2)
  z = exact_geometry.ball(rng, 8 * views, 6, c or 1.0, 'mid')
  samples, labels = z.reshape(8, views, 6), np.arange(8).repeat(views)
  f = jax.value_and_grad(
    lambda z, labels, where: losses.hyp(
      z, labels, views=views, c=c, where=where
    )
  )
  full, by_z = f(z, labels, None)
  np.testing.assert_allclose(full, hyp_oracle(samples, c), rtol=1e-5)
  # Classes may lie in any order, so long as views of a class keep theirs.
  order = np.argsort(rng.integers(0, 8, 8)[labels], kind='stable')
  again, by_moved = f(z[order], labels[order], None)
  np.testing.assert_allclose(again, full, rtol=1e-6)
  vectors.assert_near(by_moved, by_z[order], 1e-5)
  where = labels < 5
  value, gradient = f(z, labels, where)
  np.testing.assert_allclose(value, hyp_oracle(samples[:5], c), rtol=1e-5)
  assert not np.any(gradient[5 * views :])
  for few in (0 * labels > 0, labels == 2):
    chex.assert_tree_all_finite(f(z, labels, few))
  chex.assert_tree_all_finite(f(0 * z, labels, where))


def test_hyp_takes_a_class_of_four_rows_for_two():
  z = exact_geometry.ball(np.random.default_rng(4), 24, 6, 0.5, 'mid')
  labels = np.arange(12).repeat(2)
  twice = np.where(labels == 7, 3, labels)
  np.testing.assert_array_equal(
    losses.hyp(z, twice, c=0.5), losses.hyp(z, labels, c=0.5)
  )


def test_hyp_names_rows_that_are_no_pairs():
  z, labels = case({})
  with pytest.raises(ValueError, match=r'\(24, 6\).*views is 1.* 2 views'):
    losses.hyp(z, labels, views=1)
  with pytest.raises(ValueError, match='divide the 23 rows'):
    losses.hyp(z[1:], labels[1:])
  labels = np.r_[np.arange(11).repeat(2), 11, 12]
  message = r'labels\[22\] is 11.*without 2 rows'
  with pytest.raises(ValueError, match=message), debug.debug_checks():
    losses.hyp(z, labels)


@pytest.mark.parametrize('c', [None, 0.5])
def test_sharded_hyp_is_that_of_one_device(c):
  z = exact_geometry.ball(np.random.default_rng(3), 24, 6, c or 1.0, 'mid')
  f = lambda z, labels, where, axis_name: losses.hyp(
    z, labels, c=c, where=where, axis_name=axis_name
  )
  # Half of a class is on another device.
  labels = np.tile(np.arange(12), 2)
  sharded.assert_like_one_device(f, (z, labels, labels % 5 > 0))
