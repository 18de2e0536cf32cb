"""Reciprocal neighbors and the triplets drawn from them."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax import mining
from tests.support import vectors

# Two close pairs on a line, and a point nobody is near to.
POSITIONS = np.float32([0, 1, 10, 11, 100])
LINE = -np.abs(POSITIONS[:, None] - POSITIONS[None])


def brute_force(similarity, k):
  """Reciprocal neighbors by sets, one row at a time."""
  n = len(similarity)
  near = [set(np.argsort(-row, kind='stable')[:k]) for row in similarity]
  return [{j for j in near[i] if i in near[j] and j != i} for i in range(n)]


def test_neighbors_in_sets_are_those_of_each():
  rng = np.random.default_rng(0)
  similarities = []
  for n in (9, 14):
    x = rng.standard_normal((n, 3)).astype(np.float32)
    similarities.append(np.exp(-np.abs(x @ x.T - np.diag(x @ x.T))))
  found = mining.neighbors_in_sets([jnp.asarray(s) for s in similarities], 4)
  for similarity, got in zip(similarities, found, strict=True):
    want = mining.reciprocal_neighbors(jnp.asarray(similarity), 4)
    chex.assert_trees_all_equal(got, want)
  with pytest.raises(ValueError, match=r'k = 10 .* of 9 rows'):
    mining.neighbors_in_sets([jnp.asarray(s) for s in similarities], 10)


def test_numbers_below_a_size_are_those_of_randint():
  keys = jax.random.split(jax.random.key(1), (3, 2))
  sizes = jnp.int32([[1, 7], [0, 2**31 - 1], [50, 70_000]])
  draw = lambda key, size: jax.random.randint(key, (4,), 0, size, jnp.int32)
  want = jax.vmap(jax.vmap(draw))(keys, sizes)
  np.testing.assert_array_equal(mining._below(keys, sizes, 4), want)


@pytest.mark.parametrize('k', [1, 2, 5, 40])
def test_reciprocal_neighbors_match_brute_force(k):
  x = np.random.default_rng(k).standard_normal((40, 3)).astype(np.float32)
  similarity = -np.linalg.norm(x[:, None] - x[None], axis=-1)
  neighbors, count = jax.jit(mining.reciprocal_neighbors, static_argnums=1)(
    similarity, k
  )
  for row, size, want in zip(
    np.asarray(neighbors), count, brute_force(similarity, k), strict=True
  ):
    assert size == len(want)
    assert list(row) == sorted(want) + [40] * (k - len(want))


def test_reciprocal_neighbors_by_hand():
  neighbors, count = mining.reciprocal_neighbors(LINE, 2)
  assert count.tolist() == [1, 1, 1, 1, 0]
  assert neighbors[:, 0].tolist() == [1, 0, 3, 2, 5]


@pytest.mark.parametrize('case', ['tiny', 'small', 'small_c1'])
@pytest.mark.parametrize('term', ['data', 'proxy'])
def test_official_neighbor_sets(case, term):
  arrays = vectors.under(f'hier/{case}')
  k = int(arrays['meta'][0])
  batch = len(arrays['z'])
  d = arrays['f64/dist'].astype(np.float64)
  if term == 'data':
    y = arrays['y']
    similarity = np.exp(-d[:batch, :batch]) + (y[:, None] == y[None])
  else:
    similarity = np.exp(-d[batch:, batch:])
  n = len(similarity)
  packed = arrays[f'f64/{term}/pos_packed']
  want = np.unpackbits(packed, axis=1)[:, :n].astype(bool)
  neighbors, count = mining.reciprocal_neighbors(
    similarity.astype(np.float32), k
  )
  got = np.zeros((n, n + 1), bool)
  got[np.arange(n)[:, None], neighbors] = True
  sure = arrays[f'f64/{term}/topk_gap'] > 1e-5
  assert sure.sum() > n / 2
  # A row is sure when its own neighbors and those of all others are.
  rows = sure & np.all(sure | ~want, axis=1)
  assert np.array_equal(got[rows, :n], want[rows])
  assert np.array_equal(
    np.asarray(count)[rows], arrays[f'f64/{term}/n_pos'][rows]
  )


def draw(similarity, k, per_anchor, **kwargs):
  n = len(similarity)

  @jax.jit
  def sample(key):
    neighbors, count = mining.reciprocal_neighbors(similarity, k)
    return mining.sample_triplets(
      key, neighbors, count, n, per_anchor=per_anchor, **kwargs
    )

  return sample(jax.random.key(0))


@pytest.mark.parametrize('self_negatives', [False, True])
def test_draws_are_uniform_over_what_is_allowed(self_negatives):
  x = np.random.default_rng(7).standard_normal((12, 2)).astype(np.float32)
  similarity = -np.linalg.norm(x[:, None] - x[None], axis=-1)
  per_anchor = 20_000
  got = draw(similarity, 6, per_anchor, self_negatives=self_negatives)
  sets = brute_force(similarity, 6)
  anchors = np.arange(12).repeat(per_anchor)
  assert np.array_equal(got.anchor, anchors)
  assert sum(len(s) >= 2 for s in sets) > 6
  for i, positives in enumerate(sets):
    mine = anchors == i
    weight = 1.0 if len(positives) >= 2 else 0.0
    assert np.all(np.asarray(got.weight)[mine] == weight)
    if not weight:
      continue
    rest = set(range(12)) - positives - (set() if self_negatives else {i})
    for drawn, allowed in ((got.positive, positives), (got.negative, rest)):
      counts = np.bincount(np.asarray(drawn)[mine], minlength=12)
      expected = per_anchor / len(allowed)
      assert set(np.flatnonzero(counts)) == allowed
      chi_square = np.sum((counts[list(allowed)] - expected) ** 2 / expected)
      # 11 degrees of freedom at most: exceeded once in a hundred thousand.
      assert chi_square < 44


def test_no_anchor_qualifies():
  got = draw(LINE, 2, 3)
  assert jnp.sum(got.weight) == 0
  chex.assert_trees_all_equal(got.positive, got.anchor)


def test_no_negative_is_left():
  got = draw(jnp.zeros((4, 4)), 4, 3)
  assert jnp.sum(got.weight) == 0


def test_all_rows_equal_is_finite_and_in_range():
  got = draw(jnp.zeros((9, 9)), 4, 5)
  assert jnp.all((got.negative >= 0) & (got.negative < 9))
  assert jnp.all((got.positive >= 0) & (got.positive < 9))


@pytest.mark.parametrize('devices', [1, 2, 4])
def test_rows_spread_over_devices_draw_the_same(devices):
  n, k = 21, 5
  x = np.random.default_rng(3).standard_normal((n, 3)).astype(np.float32)
  similarity = -np.linalg.norm(x[:, None] - x[None], axis=-1)
  share = -(-n // devices)
  padded = np.pad(similarity, ((0, devices * share - n), (0, 0)))

  def step(rows):
    first = jax.lax.axis_index('i') * share
    neighbors, count = mining.reciprocal_neighbors(
      rows, k, first=first, axis_name='i'
    )
    return count, mining.sample_triplets(
      jax.random.key(0), neighbors, count, n, per_anchor=4, first=first
    )

  count, got = jax.pmap(step, 'i')(padded.reshape(devices, share, n))
  want = draw(similarity, k, 4)
  for field, whole in zip(got, want, strict=True):
    np.testing.assert_array_equal(field.ravel()[: 4 * n], whole)
  # Padding is nobody's neighbor and no anchor.
  assert not jnp.any(count.ravel()[n:])
  assert not jnp.any(got.weight.ravel()[4 * n :])
  assert jnp.all(got.anchor < n)


def test_k_out_of_range_is_named():
  with pytest.raises(ValueError, match=r'k = 6 .* 5 rows'):
    mining.reciprocal_neighbors(LINE, 6)
  for k in (0, -1, 2.5, None):
    with pytest.raises(ValueError, match=f'k is {k}, expected a Python'):
      mining.reciprocal_neighbors(LINE, k)


def test_number_of_triplets_is_an_integer_above_0():
  neighbors, count = mining.reciprocal_neighbors(LINE, 2)
  draw = functools.partial(
    mining.sample_triplets, jax.random.key(0), neighbors, count, 5
  )
  for wrong in (0, 2.5):
    with pytest.raises(ValueError, match=f'per_anchor is {wrong}, expected'):
      draw(per_anchor=wrong)


def test_wrong_shapes_are_named():
  with pytest.raises(
    ValueError, match=r'similarity has shape \(5,\), expected'
  ):
    mining.reciprocal_neighbors(LINE[0], 2)
  neighbors, count = mining.reciprocal_neighbors(LINE, 2)
  for rows, counts in ((5, 4), (4, 5)):
    message = rf'\({rows}, 2\) and count \({counts},\), expected'
    with pytest.raises(ValueError, match=message):
      mining.sample_triplets(
        jax.random.key(0), neighbors[:rows], count[:counts], 5, per_anchor=1
      )
