"""Graded retrieval against hand counts and the definitions in loops."""

import math
import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation.hierarchy.graded import graded_per_query, ranked
from hier_jax.evaluation.retrieval.metrics import wanted
from hier_jax.evaluation.retrieval.per_query import PerQuery, per_query
from hier_jax.evaluation.taxonomy import Taxonomy

# Eight classes under four groups under two tops; class 8 is a top itself.
LEVELS = [[i // 4, i // 2] for i in range(8)] + [[-1, -1]]
TAXONOMY = Taxonomy.from_levels(LEVELS, level_names=['top', 'group', 'class'])
GRADED = ('h_ap', 'asi', 'ndcg')


def common(a, b):
  """Levels that two classes share, from LEVELS."""
  if a == b:
    return 3
  shared = [
    x == y and x >= 0 for x, y in zip(LEVELS[a], LEVELS[b], strict=True)
  ]
  return 2 if shared[1] else int(shared[0])


def ap(hits):
  found = [i for i, hit in enumerate(hits, 1) if hit]
  return sum(j / i for j, i in enumerate(found, 1)) / len(found)


def dcg(gains):
  return sum(g / math.log2(1 + k) for k, g in enumerate(gains, 1))


def h_ap(levels, depth, alpha):
  rel = [(x / depth) ** alpha / levels.count(x) if x else 0 for x in levels]
  total = 0
  for k, mine in enumerate(rel, 1):
    total += sum(min(mine, other) for other in rel[:k]) / k
  return total / sum(rel)


def asi(levels):
  relevant = sum(x > 0 for x in levels)
  ideal = sorted(levels, reverse=True)
  shares = []
  for k in range(1, relevant + 1):
    found = 0
    for level in set(levels) - {0}:
      found += min(levels[:k].count(level), ideal[:k].count(level))
    shares.append(found / k)
  return sum(shares) / relevant


def oracle(far, labels, gallery_labels, own, alpha=1.0, drop=False, sign=1):
  """A dict of lists: the metrics of each query by sorting the gallery."""
  rows = {key: [] for key in (*GRADED, 'rank', 'ap', 'level_ndcg', 'num')}
  rows['kin_ap'], rows['num_kin'] = [], []
  for i, label in enumerate(labels):
    items = [
      (far[i][j], sign * common(label, other))
      for j, other in enumerate(gallery_labels)
      if j != own[i]
    ]
    levels = [sign * level for _, level in sorted(items)]
    gains = [2**x - 1 for x in levels]
    any_relevant = any(levels)
    rows['h_ap'].append(h_ap(levels, 3, alpha) if any_relevant else 0)
    rows['asi'].append(asi(levels) if any_relevant else 0)
    best = dcg(sorted(gains, reverse=True))
    rows['ndcg'].append(dcg(gains) / best if any_relevant else 0)
    for key in ('rank', 'ap', 'level_ndcg', 'num'):
      rows[key].append([])
    others = [x for x in levels if x != 3]
    hits = [[x >= level for x in others] for level in (1, 2)]
    rows['kin_ap'].append([ap(found) if any(found) else 0 for found in hits])
    rows['num_kin'].append([sum(found) for found in hits])
    for level in (1, 2, 3):
      kept = [x for x in levels if not (drop and level < 3 and x == 3)]
      hits = [x >= level for x in kept]
      rows['num'][-1].append(sum(hits))
      rows['rank'][-1].append(1 + hits.index(True) if any(hits) else 0)
      rows['ap'][-1].append(ap(hits) if any(hits) else 0)
      best = dcg(sorted(hits, reverse=True))
      rows['level_ndcg'][-1].append(dcg(hits) / best if any(hits) else 0)
  return rows


def assert_matches(result, expected):
  for key in (*GRADED, 'ap', 'level_ndcg', 'kin_ap'):
    np.testing.assert_allclose(
      getattr(result, key), expected[key], rtol=1e-12, atol=1e-15, err_msg=key
    )
  np.testing.assert_array_equal(result.rank, expected['rank'])
  np.testing.assert_array_equal(result.num_positives, expected['num'])
  np.testing.assert_array_equal(result.num_kin, expected['num_kin'])
  assert result.rank.dtype == result.num_positives.dtype == np.int32


def euclidean(x, y):
  return [[math.dist(a, b) for b in y] for a in x]


def on_a_line(classes):
  """Arguments of a query of class 0 with these at 1, 2, ... from it."""
  return {
    'embeddings': [[0.0]],
    'labels': [0],
    'taxonomy': TAXONOMY,
    'gallery': np.arange(1.0, 1 + len(classes))[:, None],
    'gallery_labels': classes,
    'distance': 'euclidean',
  }


def test_by_hand():
  # Levels 1, 3, 0, 3 of 3: one at level 1, two at level 3.
  result = graded_per_query(**on_a_line([2, 0, 5, 0]))
  # rel is 1/3 for level 1 and 1/2 for level 3:
  # (1/3) / 1 + (1/3 + 1/2) / 2 + (1/3 + 1/2 + 1/2) / 4, over 4/3.
  assert result.h_ap == pytest.approx([(1 / 3 + 5 / 12 + 1 / 3) / (4 / 3)])
  # Ideal 3, 3, 1: nothing of {1}, one of {1, 3}, two of {1, 3, 0}.
  assert result.asi == pytest.approx([(0 + 1 / 2 + 2 / 3) / 3])
  gained = 1 + 7 / math.log2(3) + 7 / math.log2(5)
  ideal = 7 + 7 / math.log2(3) + 1 / 2
  assert result.ndcg == pytest.approx([gained / ideal])
  np.testing.assert_array_equal(result.rank, [[1, 2, 2]])
  np.testing.assert_array_equal(result.num_positives, [[3, 2, 2]])
  np.testing.assert_allclose(result.ap, [[(1 + 1 + 3 / 4) / 3, 0.5, 0.5]])
  best = 1 + 1 / math.log2(3)
  found = 1 / math.log2(3) + 1 / math.log2(5)
  np.testing.assert_allclose(result.level_ndcg[0, 1:], found / best)


def test_same_class_dropped_by_hand():
  # Without those of class 0 the ranking is 1, 0; nothing is left at level 2.
  result = graded_per_query(**on_a_line([0, 2, 0, 5]), drop_same_class=True)
  np.testing.assert_array_equal(result.rank, [[1, 0, 1]])
  np.testing.assert_array_equal(result.num_positives, [[1, 0, 2]])
  np.testing.assert_allclose(result.ap, [[1, 0, (1 + 2 / 3) / 2]])
  kept = graded_per_query(**on_a_line([0, 2, 0, 5]))
  for key in GRADED:
    np.testing.assert_array_equal(getattr(result, key), getattr(kept, key))


def test_best_ranking_is_1():
  result = graded_per_query(**on_a_line([0, 1, 2, 3, 4, 8]))
  for key in (*GRADED, 'ap', 'level_ndcg', 'rank'):
    np.testing.assert_allclose(getattr(result, key), 1, rtol=1e-14)


def test_best_ranking_by_level_need_not_be_so_by_relevance():
  # rel is 1/2 at level 3 and 2/3 at level 2: the third item should be first.
  result = graded_per_query(**on_a_line([0, 0, 1]))
  assert result.h_ap == pytest.approx([(1 / 2 + 1 / 2 + 5 / 9) / (5 / 3)])
  np.testing.assert_allclose([result.asi, result.ndcg], 1)


@pytest.mark.parametrize('drop', [False, True])
@pytest.mark.parametrize('alpha', [0.0, 1.0, 2.5])
def test_query_set_as_gallery(alpha, drop):
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(47, 3)), rng.integers(0, 9, 47)
  # A class of one item, and a class that lies higher.
  y = np.where(y == 7, 6, y)
  y[5] = 7
  result = graded_per_query(
    x, y, TAXONOMY, distance='euclidean', alpha=alpha, drop_same_class=drop,
    block=10,
  )  # fmt: skip
  expected = oracle(euclidean(x, x), y, y, np.arange(47), alpha, drop)
  assert_matches(result, expected)


@pytest.mark.parametrize('drop', [False, True])
def test_query_and_gallery_apart(drop):
  rng = np.random.default_rng(1)
  x, gallery = rng.normal(size=(20, 3)), rng.normal(size=(31, 3))
  y, gallery_y = rng.integers(0, 9, 20), rng.choice([0, 1, 2, 6], 31)
  result = graded_per_query(
    x, y, TAXONOMY, gallery=gallery, gallery_labels=gallery_y,
    distance='euclidean', drop_same_class=drop,
  )  # fmt: skip
  far = euclidean(x, gallery)
  assert_matches(result, oracle(far, y, gallery_y, [-1] * 20, drop=drop))
  # Nothing of the lone top is in the gallery.
  assert (result.num_positives[y == 8] == 0).all()
  assert (result.h_ap[y == 8] == 0).all()


@pytest.mark.parametrize(
  ('ties', 'sign'), [('pessimistic', 1), ('optimistic', -1)]
)
@pytest.mark.parametrize('distance', ['euclidean', 'cosine'])
def test_ties(distance, ties, sign):
  # Corners of a cube, several times each.
  rng = np.random.default_rng(2)
  x, y = rng.choice([-1.0, 1.0], (60, 3)), rng.integers(0, 9, 60)
  result = graded_per_query(
    x, y, TAXONOMY, distance=distance, ties=ties, block=7
  )
  expected = oracle(
    np.round(euclidean(x, x), 9), y, y, np.arange(60), sign=sign
  )
  assert_matches(result, expected)


@pytest.mark.parametrize('decimals', [1, 15])
def test_rows_of_a_larger_gallery(decimals):
  # Few kin, so that most items are counted and not sorted; many that tie.
  rng = np.random.default_rng(9)
  x = np.round(rng.normal(size=(400, 2)), decimals)
  y = np.where(rng.uniform(size=400) < 0.9, 8, rng.integers(0, 8, 400))
  rows = [*np.flatnonzero(y < 8)[[5, 3, 30, 3]], 7]
  result = graded_per_query(x, y, TAXONOMY, distance='euclidean', rows=rows)
  far = np.round(euclidean(x[rows], x), 9)
  assert_matches(result, oracle(far, y[rows], y, rows))
  whole = graded_per_query(x, y, TAXONOMY, distance='euclidean', block=100)
  for mine, all_of_them in zip(result, whole, strict=True):
    np.testing.assert_allclose(mine, all_of_them[rows], rtol=1e-13)


def test_items_nearly_as_far_tie_across_cells():
  # The cells begin at the farthest item, so that 1e-16 is over their edge.
  near, gallery = 1 + 1e-16 * np.arange(40), np.arange(2.0, 42)
  x = np.concatenate([near, gallery])[:, None]
  classes = [0, 8] * 40
  for ties, sign in (('pessimistic', 1), ('optimistic', -1)):
    result = graded_per_query(
      [[0.0]], [0], TAXONOMY, gallery=x, gallery_labels=classes,
      distance='euclidean', ties=ties,
    )  # fmt: skip
    far = [[1.0] * 40 + list(gallery)]
    assert_matches(result, oracle(far, [0], classes, [-1], sign=sign))


def test_all_in_one_point():
  y = [0, 0, 1, 2, 8]
  far = np.zeros((5, 5))
  for distance in ('cosine', 'euclidean'):
    result = graded_per_query(np.ones((5, 2)), y, TAXONOMY, distance=distance)
    assert_matches(result, oracle(far, y, y, np.arange(5)))


def test_hyperbolic_and_cosine():
  rng = np.random.default_rng(3)
  x = rng.normal(size=(40, 4))
  x *= 0.999 * rng.uniform(size=(40, 1)) / np.linalg.norm(x, axis=1)[:, None]
  y = rng.integers(0, 9, 40)
  for c in (None, 1.0):
    far = np.zeros((40, 40))
    for i in range(40):
      for j in range(40):
        a, b = x[i], x[j]
        if c:
          gaps = (1 - a @ a) * (1 - b @ b)
          far[i, j] = math.acosh(1 + 2 * (a - b) @ (a - b) / gaps)
        else:
          far[i, j] = -(a @ b) / math.sqrt((a @ a) * (b @ b))
    expected = oracle(far, y, y, np.arange(40))
    assert_matches(graded_per_query(x, y, TAXONOMY, c=c), expected)
  gap = 1 - np.sum(x**2, 1, keepdims=True)
  x = np.hstack([(2 - gap) / gap, 2 * x / gap])
  result = graded_per_query(x, y, TAXONOMY, c=1.0, distance='lorentz')
  assert_matches(result, expected)


def test_order_of_the_gallery_and_names_of_classes_do_not_matter():
  rng = np.random.default_rng(4)
  x, y = rng.normal(size=(50, 3)), rng.integers(0, 9, 50)
  order, rename = rng.permutation(50), rng.permutation(9)
  result = graded_per_query(x, y, TAXONOMY)
  levels = np.array(LEVELS)[np.argsort(rename)]
  moved = graded_per_query(
    x[order], rename[y][order], Taxonomy.from_levels(levels)
  )
  for mine, other in zip(result, moved, strict=True):
    np.testing.assert_allclose(mine[order], other, rtol=1e-13)


def test_dtypes():
  rng = np.random.default_rng(5)
  x = jnp.asarray(rng.normal(size=(30, 4)), jnp.bfloat16)
  y = rng.integers(0, 9, 30)
  expected = graded_per_query(np.asarray(x, np.float64), y, TAXONOMY)
  for same in (x, np.asarray(x), np.asarray(x, np.float32)):
    result = graded_per_query(same, jnp.asarray(y), TAXONOMY)
    for mine, other in zip(result, expected, strict=True):
      np.testing.assert_array_equal(mine, other)


def test_one_level_is_average_precision():
  rng = np.random.default_rng(6)
  x, y = rng.normal(size=(40, 3)), rng.integers(0, 5, 40)
  flat = Taxonomy.from_levels(np.zeros((5, 0), int))
  result = graded_per_query(x, y, flat, drop_same_class=True)
  np.testing.assert_allclose(result.h_ap, result.ap[:, 0], rtol=1e-13)
  np.testing.assert_allclose(result.ndcg, result.level_ndcg[:, 0], rtol=1e-13)
  assert not any('other_classes' in key for key in result.values(['id'], [1]))


def test_as_scikit_learn():
  metrics = pytest.importorskip('sklearn.metrics')
  rng = np.random.default_rng(7)
  x, y = rng.normal(size=(40, 3)), rng.integers(0, 8, 40)
  y[:8] = range(8)
  result = graded_per_query(x, y, TAXONOMY, distance='euclidean')
  far = np.array(euclidean(x, x))
  for i in range(40):
    rest = np.arange(40) != i
    level = np.array([common(y[i], other) for other in y])[rest]
    scores = -far[i, rest]
    for k in range(3):
      expected = metrics.average_precision_score(level > k, scores)
      assert result.ap[i, k] == pytest.approx(expected, rel=1e-9)
      expected = metrics.ndcg_score([level > k], [scores], ignore_ties=True)
      assert result.level_ndcg[i, k] == pytest.approx(expected, rel=1e-9)
    gains = [2.0**level - 1]
    expected = metrics.ndcg_score(gains, [scores], ignore_ties=True)
    assert result.ndcg[i] == pytest.approx(expected, rel=1e-9)


RANKINGS = ('map@r', 'r_precision', 'mrr', 'map', 'precision@3')


@pytest.mark.parametrize('apart', [False, True])
@pytest.mark.parametrize('decimals', [0, 15])
@pytest.mark.parametrize(
  'ties', ['pessimistic', 'optimistic', 'mean', 'expected']
)
def test_retrieval_of_the_same_ranking(ties, decimals, apart):
  rng = np.random.default_rng(10)
  x, y = np.round(rng.normal(size=(60, 2)), decimals), rng.integers(0, 9, 60)
  given = {'gallery': x[40:], 'gallery_labels': y[40:]} if apart else {}
  mine = (x[:40], y[:40]) if apart else (x, y)
  want = wanted((1, 5), RANKINGS, ties)
  order = 'optimistic' if ties == 'optimistic' else 'pessimistic'
  levels, found = ranked(*mine, TAXONOMY, c=0, ties=order, wanted=want, **given)
  expected = per_query(
    *mine, c=0, ties=ties, recall_at=(1, 5), precision_at=(3,), **given
  )
  for name in PerQuery._fields:
    one, other = getattr(found, name), getattr(expected, name)
    np.testing.assert_array_equal(one, other, err_msg=name)
  assert expected.tied.any() == (decimals == 0)
  alone = graded_per_query(*mine, TAXONOMY, c=0, ties=order, **given)
  for one, other in zip(levels, alone, strict=True):
    np.testing.assert_array_equal(one, other)


def test_retrieval_needs_a_class_for_each_label():
  x, names = np.arange(4.0)[:, None], {0: 'cat', 1: 'cat', 2: 'dog'}
  rows = [['pet'], ['pet']]
  named = Taxonomy.from_levels(rows, classes=['cat', 'dog']).labeled(names)
  want = wanted((1,), RANKINGS, 'pessimistic')
  assert ranked(x, [0, 1, 2, 2], named, c=0, wanted=want)[1] is None
  assert ranked(x, [0, 0, 2, 2], named, c=0, wanted=want)[1] is not None
  assert ranked(x, [0, 0, 2, 2], named, c=0)[1] is None


def test_values_of_each_query():
  y = [0, 0, 1, 2, 8]
  x = np.array([[0.0], [1.0], [2.5], [3.0], [9.0]])
  result = graded_per_query(x, y, TAXONOMY, distance='euclidean')
  values = result.values(TAXONOMY.level_names, (1, 2))
  nan = float('nan')
  assert list(values)[:7] == [
    *GRADED, 'top/recall@1', 'top/recall@2', 'top/map', 'top/ndcg',
  ]  # fmt: skip
  np.testing.assert_array_equal(values['top/recall@1'], [1, 1, 1, 1, nan])
  np.testing.assert_array_equal(values['class/recall@1'], [1, 1, nan, nan, nan])
  np.testing.assert_array_equal(values['group/recall@1'], [1, 1, 0, nan, nan])
  np.testing.assert_array_equal(values['group/recall@2'], [1, 1, 1, nan, nan])
  np.testing.assert_array_equal(np.isnan(values['h_ap']), [0, 0, 0, 0, 1])
  np.testing.assert_array_equal(values['class/map'][:2], [1, 1])
  kin = [key for key in values if key.endswith('map_other_classes')]
  assert kin == ['top/map_other_classes', 'group/map_other_classes']
  np.testing.assert_array_equal(np.isnan(values[kin[0]]), [0, 0, 0, 0, 1])


def test_memory_is_of_a_block_not_of_all_pairs():
  rng = np.random.default_rng(8)
  n, block = 2000, 16
  x, y = rng.normal(size=(n, 16)), rng.integers(0, 9, n)
  tracemalloc.start()
  graded_per_query(x, y, TAXONOMY, block=block, drop_same_class=True)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 40 * block * n * 8 < n * n * 8 / 3


X = np.float32([[0.1, 0.2], [0.3, 0.1], [0.2, 0.2]])
Y = [0, 0, 1]
NAN = np.float32([[0.1, np.nan], [0.3, 0.1], [np.inf, 0.2]])


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'embeddings': NAN}, r'`embeddings` .*NaN or Inf in 2 of 3 .*row 0, 2\)'),
    ({'c': 11.0}, r'outside the ball .*c = 11.0.* 1 of 3 rows \(row 1\)'),
    ({'c': -1.0}, '`c` is -1.0'),
    ({'labels': [0, 0]}, r'`labels` has shape \(2,\); expected \(3,\)'),
    ({'labels': [0, 9, 11]}, "`labels` holds 2 classes: '11', '9' that"),
    ({'labels': [0, np.nan, 1]}, '`labels` lacks 1 label: 1 of 3'),
    (
      {'gallery': X, 'gallery_labels': [0, 1, 99]},
      "`gallery_labels` holds 1 class: '99'",
    ),
    ({'gallery': X}, 'only one of `gallery` and `gallery_labels`'),
    (
      {'gallery': np.ones((3, 5)), 'gallery_labels': Y},
      '`gallery` has 5 dimensions and `embeddings` 2',
    ),
    ({'embeddings': X[:1], 'labels': [0]}, 'expected 2 rows or more'),
    ({'distance': 'euclid'}, "`distance` is 'euclid'"),
    ({'distance': 'hyperbolic'}, "`distance` is 'hyperbolic' at c = None"),
    ({'distance': 'lorentz', 'c': 1.0}, 'off the hyperboloid .* 3 of 3 rows'),
    ({'gallery_labels': Y}, 'only one of `gallery` and `gallery_labels`'),
    ({'alpha': -1.0}, '`alpha` is -1.0'),
    ({'alpha': float('nan')}, '`alpha` is nan'),
    ({'block': 0}, '`block` is 0'),
    ({'rows': []}, r'`rows` is float64 \(0,\)'),
    ({'rows': [0, 3]}, '`rows` go from 0 to 3; expected 0 to 2'),
    ({'ties': 'random'}, "`ties` is 'random'"),
  ],
)
def test_bad_input(arguments, message):
  given = {'embeddings': X, 'labels': Y, 'taxonomy': TAXONOMY, **arguments}
  with pytest.raises(UserError, match=message):
    graded_per_query(**given)
