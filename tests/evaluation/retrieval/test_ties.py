"""Ties, and what float32 cannot tell apart, against exact arithmetic."""

import itertools
from fractions import Fraction

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation import Taxonomy, per_query, retrieval_metrics
from hier_jax.evaluation.hierarchy.graded import graded_per_query
from hier_jax.evaluation.retrieval import _passes
from tests.support.cases import thinned
from tests.support.numpy_rankings import assert_matches, oracle


def exact_scores(x, distance):
  """Integers that order as the distance does, or fractions, `[n, n]`."""
  x = np.asarray(x, object)
  dot = x @ x.T
  norm = np.diagonal(dot)
  if distance == 'euclidean':
    return 2 * dot - norm
  # sign(cos) cos^2, but for the query's norm.
  if not norm.all():
    raise ValueError('a zero row')
  ratio = np.vectorize(Fraction, otypes=[object])
  return ratio(dot * abs(dot), np.broadcast_to(norm, dot.shape))


def as_floats(scores):
  """Places in each row's order, equal where the scores are, `[n, n]`."""
  return np.stack([np.unique(row, return_inverse=True)[1] for row in scores])


def test_three_points_by_hand():
  # 1 and -1 are as far from 0; the negative -1 comes first.
  x = np.array([[0.0], [1], [-1], [3]])
  result = per_query(x, [0, 0, 1, 9], distance='euclidean')
  assert result.rank[0] == 2
  assert result.tied[0]


def codes(rng, n=400, d=16):
  return rng.choice([-1, 1], (n, d))


def off_center(rng):
  return np.array([9, 0, 0, 0, 0]) + rng.integers(-3, 4, (150, 5))


def large(rng):
  return 1000 * rng.integers(1, 9, (90, 3)) + 1


@pytest.mark.parametrize(
  ('draw_distance', 'ties'),
  thinned(
    list(
      itertools.product([codes, off_center, large], ['euclidean', 'cosine'])
    ),
    ['pessimistic', 'optimistic', 'mean'],
  ),
)
def test_integers_tie_exactly(draw_distance, ties):
  (draw, distance), rng = draw_distance, np.random.default_rng(0)
  x = draw(rng)
  y = rng.integers(0, 20, len(x))
  expected = oracle(
    as_floats(exact_scores(x, distance)), y, y, np.arange(len(x)), ties
  )
  assert_matches(
    per_query(np.float64(x), y, distance=distance, ties=ties), expected
  )


@pytest.mark.parametrize(
  ('distance', 'ties'),
  thinned(['euclidean', 'cosine'], ['pessimistic', 'optimistic']),
)
def test_both_tables_rank_alike(distance, ties):
  rng = np.random.default_rng(1)
  x, y = np.float32(codes(rng)), rng.integers(0, 40, 400)
  tree = Taxonomy.from_levels(np.arange(40)[:, None] // 5)
  flat = per_query(x, y, distance=distance, ties=ties)
  deep = graded_per_query(x, y, tree, distance=distance, ties=ties)
  np.testing.assert_array_equal(deep.rank[:, -1], flat.rank)
  np.testing.assert_allclose(deep.ap[:, -1], flat.full_ap, rtol=1e-6)


@pytest.mark.parametrize(
  'distance', ['cosine', 'euclidean', 'hyperbolic', 'lorentz']
)
def test_images_by_symmetry_tie(distance):
  # All permutations and reflections of a point are as far from 0 and, without
  # the latter, from a point with equal coordinates.
  rng = np.random.default_rng(2)
  c = 0.7 if distance in ('hyperbolic', 'lorentz') else None
  point = rng.uniform(0.1, 0.3, 6)
  orders = list(itertools.permutations(range(6)))[::7]
  images = point[np.array(orders)]
  equal = np.full((1, 6), 0.2)
  queries = equal
  if distance != 'cosine':
    queries = np.concatenate([equal, 0 * equal])
  if distance == 'lorentz':
    lifted = lambda x: np.hstack(
      [np.sqrt(1 / c + np.sum(x * x, 1, keepdims=True)), x]
    )
    queries, images = lifted(queries), lifted(images)
  labels = np.arange(len(images)) % 2
  given = {'gallery': images, 'gallery_labels': labels, 'c': c}
  for ties, rank in (('pessimistic', 1 + np.sum(labels)), ('optimistic', 1)):
    found = per_query(
      queries, np.zeros(len(queries)), **given, distance=distance, ties=ties
    )
    np.testing.assert_array_equal(found.rank, rank)
    assert found.tied.all()


def orders_of_ties(scores, positive):
  """Bools `[orders, m]` of the ranking, by all orders of what ties."""
  for order in itertools.permutations(range(len(scores))):
    if np.all(np.diff(scores[list(order)]) <= 0):
      yield positive[list(order)]


@pytest.mark.slow
def test_expected_is_the_mean_over_all_orders():
  # Distances 0 (3 items), 1 (2), 2 (2): positives in every group.
  far = np.array([0, 0, 0, 1, 1, 2, 2])
  at = 1, 2, 3, 6
  for positive in itertools.product([False, True], repeat=7):
    positive = np.array(positive)
    if not positive.any():
      continue
    r = positive.sum()
    rows = []
    for ranked in orders_of_ties(-far, positive):
      ranks = 1 + np.flatnonzero(ranked)
      precision = np.arange(1, 1 + r) / ranks
      rows.append(
        [
          ranks[0],
          1 / ranks[0],
          np.sum(precision[ranks <= r]) / r,
          np.sum(ranks <= r) / r,
          np.mean(precision),
          *(ranks[0] <= k for k in at),
          *(np.sum(ranks <= k) / k for k in at),
        ]
      )
    found = per_query(
      np.zeros((1, 1)),
      [1],
      gallery=far[:, None].astype(float),
      gallery_labels=positive.astype(int),
      distance='euclidean',
      ties='expected',
      recall_at=at,
      precision_at=at,
    )
    names = 'rank', 'reciprocal_rank', 'ap', 'r_precision', 'full_ap'
    ours = [float(getattr(found, name)[0]) for name in names]
    ours += [*found.recall[0], *found.precision[0]]
    np.testing.assert_allclose(ours, np.mean(rows, 0), rtol=1e-6, atol=1e-7)


def test_expected_recall_of_duplicates():
  # Pairs of identical images under two labels, as in Cars: a query that ties
  # with its positive and a negative finds it in half of the orders.
  rng = np.random.default_rng(3)
  x = np.repeat(rng.normal(size=(50, 8)), 3, 0)
  y = np.tile([0, 0, 1], 50) + 2 * np.repeat(np.arange(50), 3)
  y[2::3] = 1000
  found = {
    ties: retrieval_metrics(x, y, ties=ties, recall_at=(1,), metrics=())
    for ties in ('pessimistic', 'expected', 'optimistic')
  }
  # Those labeled 1000 tie with two negatives and find none.
  at_1 = {ties: row['recall@1'] for ties, row in found.items()}
  assert at_1 == {
    'pessimistic': 0,
    'expected': pytest.approx(100 * 0.5 / 150, rel=1e-12),
    'optimistic': 100 / 150,
  }
  assert found['expected']['ties'] == 'expected'
  assert found['expected']['num_tied'] == 100


def test_expected_has_no_level():
  tree = Taxonomy.from_levels([[0], [0], [1]])
  with pytest.raises(UserError, match="`ties` is 'expected'; expected one of"):
    graded_per_query(np.eye(3), [0, 1, 2], tree, ties='expected')


def far_clusters(rng, n=60, d=16):
  """Two clusters far apart, each with a structure of 1e-4."""
  y = rng.integers(0, 6, n)
  x = 1e-4 * (rng.normal(size=(6, d))[y] + 0.3 * rng.normal(size=(n, d)))
  return x + np.where(y % 2, 1.0, -1.0)[:, None], y


def test_structure_that_float32_cannot_tell():
  x, y = far_clusters(np.random.default_rng(4))
  scores = -np.linalg.norm(x[:, None] - x, axis=-1)
  expected = oracle(scores, y, y, np.arange(60))
  result = per_query(x, y, distance='euclidean')
  assert_matches(result, expected)
  assert not result.tied.any()
  assert not result.unresolved.any()


def test_what_float64_has_no_time_for_is_counted_and_bounded(monkeypatch):
  x, y = far_clusters(np.random.default_rng(5))
  exact = retrieval_metrics(x, y, distance='euclidean')
  monkeypatch.setattr(_passes, '_MOST_EXACT', 0)
  least, most = (
    retrieval_metrics(x, y, distance='euclidean', ties=ties)
    for ties in ('pessimistic', 'optimistic')
  )
  assert exact['num_unresolved'] == 0
  assert least['num_unresolved'] == most['num_unresolved'] > 30
  for key in ('recall@1', 'map@r'):
    assert least[key] < exact[key] <= most[key]


BIG = 2**53


@pytest.mark.parametrize(
  ('labels', 'gallery_labels'),
  [
    (np.array([BIG, 1], np.int64), np.array([BIG + 1, BIG, 1], np.uint64)),
    (np.array([BIG, 1], object), np.array([BIG + 1, BIG, 1], np.int64)),
    (np.array([BIG, 1.0]), np.array([BIG + 1, BIG, 1], np.int64)),
    (np.array(['a', 'b']), np.array(['c', 'a', 'b'], object)),
    (np.array([b'a', b'b']), np.array([b'c', b'a', b'b'], object)),
    (np.array([True, False]), np.array([False, True, False])),
  ],
)
def test_labels_are_identity(labels, gallery_labels):
  x = np.array([[0.0, 0], [9, 0]])
  gallery = np.array([[0.1, 0], [0.2, 0], [9, 1]])
  found = per_query(
    x,
    labels,
    gallery=gallery,
    gallery_labels=gallery_labels,
    distance='euclidean',
  )
  np.testing.assert_array_equal(found.rank, [2, 1])


@pytest.mark.parametrize(
  ('labels', 'gallery_labels', 'message'),
  [
    ([b'a', b'b'], ['a', 'b', 'c'], '`labels` are bytes .*`gallery_labels` te'),
    ([1, 2], ['1', '2', '3'], '`labels` are numbers .* text'),
    ([True, False], [1, 0, 1], '`labels` are bools .* numbers'),
    (np.array(['a', 1], object), ['a', 'b', 'c'], 'mixes numbers and text'),
  ],
)
def test_labels_that_cannot_be_compared(labels, gallery_labels, message):
  with pytest.raises(UserError, match=message):
    per_query(
      np.eye(2), labels, gallery=np.eye(3)[:, :2], gallery_labels=gallery_labels
    )


def test_queries_as_their_own_gallery_are_refused():
  x, y = np.random.default_rng(6).normal(size=(9, 3)), np.arange(9) % 3
  tree = Taxonomy.from_levels([[0], [0], [1]])
  given = {'gallery': x.copy(), 'gallery_labels': y}
  with pytest.raises(UserError, match='same 9 rows as the queries'):
    per_query(x, y, **given)
  with pytest.raises(UserError, match='same 9 rows as the queries'):
    graded_per_query(x, y, tree, **given)
