"""Hyp's loss: official vectors, a float64 oracle, and devices."""

import chex
import jax
import numpy as np
import pytest

from hier_jax import debug, losses
from tests.support import exact_geometry, pair_losses, sharded, vectors


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
  s, _ = pair_losses.tables(flat(z), flat(z), c)
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
@pytest.mark.parametrize(('c', 'views'), [(None, 3), (0.5, 2)])
def test_hyp_matches_its_float64_oracle_and_masks(c, views):
  rng = np.random.default_rng(2)
  z = exact_geometry.ball(rng, 8 * views, 6, c or 1.0, 'mid')
  samples, labels = z.reshape(8, views, 6), np.arange(8).repeat(views)
  f = jax.jit(
    jax.value_and_grad(
      lambda z, labels, where: losses.hyp(
        z, labels, views=views, c=c, where=where
      )
    )
  )
  everything = labels >= 0
  full, by_z = f(z, labels, everything)
  np.testing.assert_allclose(full, hyp_oracle(samples, c), rtol=1e-5)
  # Classes may lie in any order, so long as views of a class keep theirs.
  order = np.argsort(rng.integers(0, 8, 8)[labels], kind='stable')
  again, by_moved = f(z[order], labels[order], everything)
  np.testing.assert_allclose(again, full, rtol=1e-6)
  vectors.assert_near(by_moved, by_z[order], 1e-5)
  # A class of four rows is two.
  twice = f(z, labels // 2 * 2, everything)
  chex.assert_trees_all_equal(twice, (full, by_z))
  where = labels < 5
  value, gradient = f(z, labels, where)
  np.testing.assert_allclose(value, hyp_oracle(samples[:5], c), rtol=1e-5)
  assert not np.any(gradient[5 * views :])
  for few in (~everything, labels == 2):
    chex.assert_tree_all_finite(f(z, labels, few))
  chex.assert_tree_all_finite(f(0 * z, labels, where))


def test_hyp_names_rows_that_are_no_pairs():
  z, labels = pair_losses.case({})
  with pytest.raises(ValueError, match=r'\(24, 6\).*views is 1.* 2 views'):
    losses.hyp(z, labels, views=1)
  with pytest.raises(ValueError, match='divide the 23 rows'):
    losses.hyp(z[1:], labels[1:])
  labels = np.r_[np.arange(11).repeat(2), 11, 12]
  message = r'labels\[22\] is 11.*without 2 rows'
  with pytest.raises(ValueError, match=message), debug.debug_checks():
    losses.hyp(z, labels)


def test_sharded_hyp_is_that_of_one_device():
  z = exact_geometry.ball(np.random.default_rng(3), 24, 6, 0.5, 'mid')
  f = lambda z, labels, where, axis_name: losses.hyp(
    z, labels, c=0.5, where=where, axis_name=axis_name
  )
  # Half of a class is on another device.
  labels = np.tile(np.arange(12), 2)
  sharded.assert_like_one_device(f, (z, labels, labels % 5 > 0), numbers=(4,))
