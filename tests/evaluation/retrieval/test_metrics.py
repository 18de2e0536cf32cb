"""Retrieval metrics against hand counts and a float64 full sort."""

import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation import (
  bootstrap_ci,
  paired_test,
  per_query,
  retrieval_metrics,
)
from tests.support.cases import thinned
from tests.support.numpy_rankings import (
  DISTANCES,
  assert_matches,
  cosine,
  hyperbolic,
  in_ball,
  oracle,
  sample,
)

CERTAIN = {
  'num_tied': 0,
  'num_unresolved': 0,
  'distance': 'cosine',
  'ties': 'pessimistic',
}


def on_circle(degrees):
  angle = np.radians(degrees)
  return np.stack([np.cos(angle), np.sin(angle)], -1).astype(np.float32)


def test_five_points_by_hand():
  # Neighbors of each, nearest first, with + for a positive:
  #   0: 10+ 16 40 65+   rank 1, R 2, AP (1) / 2
  #  10: 16 0+ 40 65+    rank 2, R 2, AP (1/2) / 2
  #  16: 10 0 40+ 65     rank 3, R 1, AP 0
  #  40: 16+ 65 10 0     rank 1, R 1, AP 1
  #  65: 40 16 10+ 0+    rank 3, R 2, AP 0
  x, y = on_circle([0, 10, 16, 40, 65]), list('aabba')
  result = per_query(x, y)
  np.testing.assert_array_equal(result.rank, [1, 2, 3, 1, 3])
  np.testing.assert_array_equal(result.ap, [0.5, 0.25, 0, 1, 0])
  np.testing.assert_array_equal(result.num_positives, [2, 2, 1, 1, 2])
  assert (result.rank.dtype, result.ap.dtype) == (np.int32, np.float32)
  np.testing.assert_array_equal(result.r_precision, [0.5, 0.5, 0, 1, 0])
  full_ap = [
    (1 + 2 / 4) / 2,
    (1 / 2 + 2 / 4) / 2,
    1 / 3,
    1,
    (1 / 3 + 2 / 4) / 2,
  ]
  np.testing.assert_array_equal(result.full_ap, np.float32(full_ap))
  np.testing.assert_allclose(
    result.reciprocal_rank, [1, 1 / 2, 1 / 3, 1, 1 / 3]
  )
  assert retrieval_metrics(x, y) == {
    'recall@1': 2 / 5,
    'recall@2': 3 / 5,
    'recall@4': 1.0,
    'recall@8': 1.0,
    'map@r': pytest.approx(0.35, rel=1e-12),
    'num_queries': 5,
    'num_without_positive': 0,
    **CERTAIN,
  }
  metrics = 'precision@2', 'map', 'mrr', 'r_precision', 'precision@3'
  assert retrieval_metrics(x, y, recall_at=(2,), metrics=metrics) == {
    'recall@2': 3 / 5,
    'precision@2': pytest.approx((1 + 1 + 0 + 1 + 0) / 10),
    'map': pytest.approx(np.mean(full_ap)),
    'mrr': pytest.approx((1 + 1 / 2 + 1 / 3 + 1 + 1 / 3) / 5),
    'r_precision': pytest.approx(2 / 5),
    'precision@3': pytest.approx((1 + 1 + 1 + 1 + 1) / 15),
    'num_queries': 5,
    'num_without_positive': 0,
    **CERTAIN,
  }
  assert list(retrieval_metrics(x, y, recall_at=(2,), metrics=metrics))[:6] == [
    'recall@2',
    *metrics,
  ]


def test_c_says_what_is_ranked_by():
  # The second is nearer by angle, the first in the plane.
  x, gallery = np.array([[0.9, 0.0]]), np.array([[0.8, 0.2], [0.1, 0.0]])
  given = {'gallery': gallery, 'gallery_labels': [0, 1]}
  ranks = {c: per_query(x, [0], **given, c=c).rank for c in (None, 0, 0.0)}
  assert ranks == {None: 2, 0: 1}
  named = {
    distance: retrieval_metrics(x, [0], **given, distance=distance)
    for distance in (None, 'cosine', 'euclidean')
  }
  assert named[None] == named['cosine'] == retrieval_metrics(x, [0], **given)
  assert named['euclidean'] == retrieval_metrics(x, [0], **given, c=0)
  assert named['cosine']['distance'] == 'cosine'
  assert named['euclidean']['distance'] == 'euclidean, c = 0'
  ball = retrieval_metrics(x, [0], **given, c=0.25)
  assert ball['distance'] == 'hyperbolic, c = 0.25'


def test_hyperbolic_order_by_hand():
  # |x - y|^2 / (1 - |y|^2) is .16 / .75 = .21 for the first and
  # .065 / .035 = 1.86 for the second, which is nearer in the plane and by
  # angle is not.
  x, gallery = np.array([[0.9, 0.0]]), np.array([[0.5, 0.0], [0.95, 0.25]])
  for radius in (0.5, 1.0, 3.0):
    result = per_query(
      radius * x,
      [0],
      gallery=radius * gallery,
      gallery_labels=[0, 1],
      c=radius**-2,
    )
    assert result.rank == 1
  # A tiny c is the Euclidean order.
  result = per_query(x, [0], gallery=gallery, gallery_labels=[0, 1], c=1e-6)
  assert result.rank == 2


def test_statistics_count_the_queries_that_the_means_count():
  # The neighbors of test_five_points_by_hand and a class of its own, which
  # has no positive.
  x, y = on_circle([0, 10, 16, 40, 65, 200]), np.array(list('aabbac'))
  names = 'map@r', 'r_precision', 'mrr', 'map', 'precision@2'
  metrics = retrieval_metrics(x, y, recall_at=(1, 2), metrics=names)
  assert metrics['num_without_positive'] == 1
  result = per_query(x, y, recall_at=(1, 2), precision_at=(2,))
  values = result.values()
  assert set(values) == {'recall@1', 'recall@2', *names}
  np.testing.assert_array_equal(
    values['map@r'], [0.5, 0.25, 0, 1, 0, float('nan')]
  )
  for key, column in values.items():
    assert column.dtype == np.float64
    found = bootstrap_ci(column, num_resamples=50)
    assert (found.mean, found.num_values) == (metrics[key], 5)
  # Leaving the query out by hand changes nothing.
  clusters = np.array([0, 0, 1, 1, 0, 2])
  for given in ({}, {'clusters': clusters}):
    kept = {name: rows[:5] for name, rows in given.items()}
    first, second = values['map@r'], values['mrr']
    assert bootstrap_ci(first, **given) == bootstrap_ci(first[:5], **kept)
    assert paired_test(first, second, **given) == paired_test(
      first[:5], second[:5], **kept
    )
  best = per_query(x, y, recall_at=(1,), best_only=True).values()
  assert set(best) == {'recall@1', 'mrr'}
  np.testing.assert_array_equal(best['mrr'], values['mrr'])


@pytest.mark.parametrize(
  ('ties', 'rank', 'ap', 'full_ap'),
  [
    ('pessimistic', 3, 0.0, (1 / 3 + 2 / 4) / 2),
    ('optimistic', 1, 0.5, (1 + 2 / 4) / 2),
    ('mean', 2, 0.25, (1 / 2 + 2 / 4) / 2),
  ],
)
@pytest.mark.parametrize('c', [None, 0.5])
def test_ties_by_hand(ties, rank, ap, full_ap, c):
  # Three items tie ahead of the fourth; one of them and the fourth are
  # positives. Negatives first: - - + +; positives first: + - - +; half way the
  # first ranks 2.
  near, far = [0.5, 0.1], [-0.5, 0.3]
  result = per_query(
    np.array([[0.5, 0.0]]),
    [0],
    gallery=np.array([near, near, near, far]),
    gallery_labels=[1, 0, 1, 0],
    c=c,
    ties=ties,
  )
  assert (result.rank, result.ap, result.num_positives) == (rank, ap, 2)
  assert result.full_ap == np.float32(full_ap)
  assert result.rank.dtype == (np.float64 if ties == 'mean' else np.int32)


@pytest.mark.parametrize(
  ('distance', 'ties'),
  thinned(list(DISTANCES), ['pessimistic', 'optimistic', 'mean']),
)
def test_every_distance(distance, ties):
  rng = np.random.default_rng(0)
  c = 0.5 if distance in ('hyperbolic', 'lorentz') else None
  x, y = sample(rng, distance, 131, 16, c), rng.integers(0, 20, 131)
  # Each row twice more: with itself a query ties under any label.
  x, y = np.concatenate([x] * 3), rng.permutation(np.concatenate([y] * 3))
  y[7] = 99
  at = 1, 3, 50
  result = per_query(
    x, y, c=c, distance=distance, ties=ties, precision_at=at, block=100, tile=64
  )
  expected = oracle(
    DISTANCES[distance](x, x, c), y, y, np.arange(393), ties, at
  )
  assert_matches(result, expected)
  assert result.num_repeated is None
  best = per_query(x, y, c=c, distance=distance, ties=ties, best_only=True)
  np.testing.assert_array_equal(best.rank, result.rank)
  np.testing.assert_array_equal(best.num_positives, result.num_positives)
  assert best.ap is best.full_ap is best.r_precision is best.precision is None


@pytest.mark.parametrize(
  ('c', 'block'), [(None, 64), (None, 512), (0.1, 64), (1, 1), (1, 64), (4, 64)]
)
def test_query_set_as_gallery(c, block):
  rng = np.random.default_rng(0)
  x, y = in_ball(rng, 131, 16, c or 1), rng.integers(0, 20, 131)
  scores = hyperbolic(x, x, c) if c else cosine(x, x)
  assert_matches(
    per_query(x, y, c=c, block=block), oracle(scores, y, y, np.arange(131))
  )


@pytest.mark.parametrize('distance', DISTANCES)
def test_query_and_gallery_apart(distance):
  rng = np.random.default_rng(1)
  c = 1.0 if distance in ('hyperbolic', 'lorentz') else None
  x = sample(rng, distance, 37, 8, c)
  gallery = sample(rng, distance, 83, 8, c)
  # A query that is in the gallery too stays there: nothing is left out.
  gallery[5] = x[3]
  y, gallery_y = rng.integers(0, 12, 37), rng.integers(3, 15, 83)
  scores = DISTANCES[distance](x, gallery, c)
  expected = oracle(scores, y, gallery_y, np.full(37, -1))
  given = {'gallery': gallery, 'gallery_labels': gallery_y, 'c': c}
  given['distance'] = distance
  assert_matches(per_query(x, y, **given, block=16), expected)

  rank, ap, r = (expected[name] for name in ('rank', 'ap', 'num_positives'))
  metrics = retrieval_metrics(x, y, **given, recall_at=(1, 10, 1000))
  assert metrics['num_without_positive'] == np.sum(r == 0) > 0
  assert metrics['num_queries'] == 37
  for k in (1, 10, 1000):
    assert metrics[f'recall@{k}'] == np.mean(rank[r > 0] <= k)
  assert metrics['map@r'] == pytest.approx(np.mean(ap[r > 0]), rel=1e-6)
  quick = retrieval_metrics(x, y, **given, recall_at=(1, 10), metrics=('mrr',))
  assert quick['mrr'] == pytest.approx(np.mean(1 / rank[r > 0]), rel=1e-12)
  assert quick['recall@10'] == metrics['recall@10']


@pytest.mark.parametrize('c', [None, 1.0])
def test_duplicates_tie(c):
  rng = np.random.default_rng(2)
  x = np.repeat(in_ball(rng, 33, 33, c or 1), 3, 0)[rng.permutation(99)]
  y = rng.integers(0, 6, 99)
  scores = hyperbolic(x, x, c) if c else cosine(x, x)
  expected = oracle(scores, y, y, np.arange(99))
  # The last block is left with one query.
  assert_matches(per_query(x, y, c=c, block=49), expected)


def test_duplicates_tie_for_a_single_query():
  # 98 equal rows ahead of another 3: half negatives, so the positive is 50th.
  rng = np.random.default_rng(7)
  near, far = rng.normal(size=(2, 33)).astype(np.float32)
  gallery = np.stack([near] * 98 + [far] * 3)
  labels = np.array([0, 1] * 49 + [0] * 3)
  for row in (near, near + 0.3 * far):
    result = per_query(row[None], [0], gallery=gallery, gallery_labels=labels)
    assert result.rank == 50


@pytest.mark.parametrize('c', [None, 0.02])
def test_crowded_far_from_the_origin(c):
  rng = np.random.default_rng(3)
  x = np.float32(1 + 3e-3 * rng.normal(size=(40, 16)))
  y = rng.integers(0, 8, 40)
  scores = hyperbolic(x, x, c) if c else cosine(x, x)
  assert_matches(per_query(x, y, c=c), oracle(scores, y, y, np.arange(40)))


def test_one_class_and_singletons():
  x = on_circle([0, 8, 20, 120])
  result = per_query(x, [7, 7, 7, 7])
  np.testing.assert_array_equal(result.rank, [1, 1, 1, 1])
  np.testing.assert_array_equal(result.ap, [1, 1, 1, 1])
  # The singleton is out of the means but in the gallery of the others:
  #   0: 8+ 20 120+    8: 0+ 20 120+    120: 20 8+ 0+
  metrics = retrieval_metrics(x, [7, 7, 9, 7], recall_at=(1,))
  assert metrics == {
    'recall@1': 2 / 3,
    'map@r': pytest.approx((0.5 + 0.5 + 0.25) / 3, rel=1e-12),
    'num_queries': 4,
    'num_without_positive': 1,
    **CERTAIN,
  }
  with pytest.raises(UserError, match='none of the 4 queries has a positive'):
    retrieval_metrics(x, [1, 2, 3, 4])


def test_zero_and_tiny_rows():
  x = np.float32([[1, 0], [0, 0], [1, 0.1], [1e-30, 1e-31]])
  result = per_query(x, [0, 0, 1, 1])
  # By angle: 0 -> 2, 3 (tie), 1; the zero row ties with all: worst rank;
  # 2 and 3 have the same direction.
  np.testing.assert_array_equal(result.rank, [3, 3, 1, 1])
  collapsed = per_query(np.zeros((5, 3), np.float32), [0, 0, 1, 1, 1])
  np.testing.assert_array_equal(collapsed.rank, [4, 4, 3, 3, 3])


@pytest.mark.parametrize('c', [None, 1.0])
def test_dtypes(c):
  rng = np.random.default_rng(4)
  x = jnp.asarray(in_ball(rng, 50, 8, 1.1), jnp.bfloat16)
  y = rng.integers(0, 9, 50)
  expected = per_query(np.asarray(x, np.float64), y, c=c)
  for same in (x, x.astype(jnp.float32), np.asarray(x)):
    result = per_query(same, jnp.asarray(y), c=c)
    np.testing.assert_array_equal(result.rank, expected.rank)
    np.testing.assert_array_equal(result.ap, expected.ap)


def test_float64_points_beyond_float32_of_the_boundary():
  # In float32 all of these lie on the boundary.
  x = on_circle([0, 1, 2, 3]).astype(np.float64)
  x /= np.linalg.norm(x, axis=1, keepdims=True)
  x *= 1 - np.array([[1e-9], [1e-12], [1e-10], [1e-9]])
  y = np.array([0, 1, 0, 1])
  expected = oracle(hyperbolic(x, x, 1.0), y, y, np.arange(4))
  assert_matches(per_query(x, y, c=1.0), expected)


@pytest.mark.parametrize('labels', [list('abcab'), [b'x', b'y', b'z'] * 2])
def test_labels_of_any_kind(labels):
  x = on_circle(np.arange(len(labels)) ** 2)
  codes = np.unique(labels, return_inverse=True)[1]
  np.testing.assert_array_equal(per_query(x, labels).ap, per_query(x, codes).ap)


X = np.float32([[0.1, 0.2], [0.3, 0.1], [0.2, 0.2]])
Y = [0, 0, 1]
NAN = np.float32([[0.1, np.nan], [0.3, 0.1], [np.inf, 0.2]])


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'embeddings': NAN}, r'`embeddings` .*NaN or Inf in 2 of 3 .*row 0, 2\)'),
    (
      {'gallery': NAN, 'gallery_labels': Y},
      r'`gallery` .*NaN or Inf in 2 of 3 .*row 0, 2\)',
    ),
    ({'c': 11.0}, r'outside the ball .*c = 11.0.* 1 of 3 rows \(row 1\)'),
    ({'embeddings': np.ones((9, 2)), 'c': 0.5}, r'9 of 9 .*0, 1, 2, 3, 4, \.'),
    ({'c': -1.0}, '`c` is -1.0'),
    ({'c': float('nan')}, '`c` is nan'),
    ({'labels': [0, 0]}, r'`labels` has shape \(2,\); expected \(3,\)'),
    ({'labels': [[0, 0, 1]]}, r'`labels` has shape \(1, 3\)'),
    ({'labels': None}, r'`labels` has shape \(\); expected \(3,\)'),
    (
      {'labels': [0, np.nan, np.nan]},
      r'`labels` lacks the label of 2 of 3 rows \(row 1, 2\)',
    ),
    (
      {'labels': np.array(['a', None, 'a'], object)},
      r'`labels` lacks the label of 1 of 3 rows \(row 1\)',
    ),
    (
      {'gallery': X, 'gallery_labels': [np.nan, 1, 2]},
      r'`gallery_labels` lacks the label of 1 of 3 rows \(row 0\)',
    ),
    (
      {'gallery': X, 'gallery_labels': [0]},
      r'`gallery_labels` has shape \(1,\); expected \(3,\)',
    ),
    ({'gallery': X}, 'only one of `gallery` and `gallery_labels`'),
    ({'gallery_labels': Y}, 'only one of `gallery` and `gallery_labels`'),
    (
      {'gallery': np.ones((3, 5)), 'gallery_labels': Y},
      '`gallery` has 5 dimensions and `embeddings` 2',
    ),
    ({'embeddings': X[0]}, r'shape \(2,\)'),
    ({'embeddings': X[:0], 'labels': []}, r'shape \(0, 2\)'),
    ({'embeddings': X[:1], 'labels': [0]}, 'expected 2 rows or more'),
    ({'embeddings': np.ones((3, 2), int)}, 'dtype int64'),
    ({'recall_at': (1, 0)}, '`K of recall_at` is 0'),
    ({'recall_at': (1.5,)}, '`K of recall_at` is 1.5'),
    ({'block': 0}, '`block` is 0'),
    ({'tile': -1}, '`tile` is -1'),
    ({'ties': 'random'}, "`ties` is 'random'"),
    ({'product': 'float16'}, "`product` is 'float16'"),
    ({'distance': 'l1'}, "`distance` is 'l1'"),
    ({'distance': 'cosine', 'c': 1.0}, "`distance` is 'cosine' at c = 1.0"),
    ({'distance': 'lorentz'}, "`distance` is 'lorentz' at c = None"),
    ({'distance': 'cosine', 'c': 0.0}, "`distance` is 'cosine' at c = 0.0"),
    (
      {'distance': 'euclidean', 'c': 1.0},
      "`distance` is 'euclidean' at c = 1.0",
    ),
    (
      {'distance': 'hyperbolic', 'c': 0},
      "`distance` is 'hyperbolic' at c = 0.0",
    ),
    ({'c': 'auto'}, "`c` is 'auto'; expected None .*, 0 .* or the positive c"),
    (
      {'distance': 'lorentz', 'c': 1.0},
      r'`embeddings` lies off the hyperboloid .*c = 1.0.* 3 of 3 rows',
    ),
    ({'recall_at': 1}, '`recall_at` is 1; expected a list'),
    ({'metrics': 5}, '`metrics` is 5; expected a list of names'),
    ({'metrics': [1]}, '`metrics` has 1; expected any of'),
    ({'metrics': ('map@k',)}, "`metrics` has 'map@k'"),
    ({'metrics': ('precision@0',)}, "`metrics` has 'precision@0'"),
  ],
)
def test_bad_input(arguments, message):
  with pytest.raises(UserError, match=message):
    retrieval_metrics(**{'embeddings': X, 'labels': Y, **arguments})
