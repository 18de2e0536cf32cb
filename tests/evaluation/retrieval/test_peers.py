"""Retrieval metrics against those of other libraries, where installed."""

import numpy as np
import pytest

from hier_jax.evaluation import per_query, retrieval_metrics
from tests.support.numpy_rankings import cosine


@pytest.fixture(scope='module')
def data():
  rng = np.random.default_rng(0)
  y = np.concatenate([rng.integers(0, 30, 397), [98, 99]])
  x = rng.normal(size=(100, 12))[y] + 0.9 * rng.normal(size=(399, 12))
  return np.float32(x / np.linalg.norm(x, axis=1, keepdims=True)), y


@pytest.mark.parametrize('apart', [False, True])
def test_pytorch_metric_learning(data, apart):
  distances = pytest.importorskip('pytorch_metric_learning.distances')
  accuracy = pytest.importorskip(
    'pytorch_metric_learning.utils.accuracy_calculator'
  )
  inference = pytest.importorskip('pytorch_metric_learning.utils.inference')
  names = {
    'precision_at_1': 'recall@1',
    'r_precision': 'r_precision',
    'mean_average_precision_at_r': 'map@r',
    'mean_average_precision': 'map',
    'mean_reciprocal_rank': 'mrr',
  }
  x, y = data
  calculator = accuracy.AccuracyCalculator(
    include=tuple(names),
    knn_func=inference.CustomKNN(distances.CosineSimilarity()),
    k=None,
  )
  ours, theirs = {}, (x, y)
  if apart:
    x, y, ours = (
      x[:100],
      y[:100],
      {'gallery': x[100:], 'gallery_labels': y[100:]},
    )
    theirs = x, y, *ours.values()
  found = retrieval_metrics(
    x, y, recall_at=(1,), metrics=[*names.values()][1:], **ours
  )
  for name, value in calculator.get_accuracy(*theirs).items():
    # Two items that float32 cannot tell apart may stand the other way round.
    assert found[names[name]] == pytest.approx(value, rel=2e-5), name


def test_scikit_learn(data):
  metrics = pytest.importorskip('sklearn.metrics')
  x, y = data
  scores = cosine(x, x)
  others = ~np.eye(len(x), dtype=bool)
  positive = y == y[:, None]
  result = per_query(x, y)
  for i in np.flatnonzero(result.num_positives):
    of_query = positive[i, others[i]], scores[i, others[i]]
    ap = metrics.average_precision_score(*of_query)
    assert result.full_ap[i] == pytest.approx(ap, rel=1e-6)
  answerable = result.num_positives > 0
  off_diagonal = lambda a: a[others].reshape(len(x), -1)[answerable]
  found = retrieval_metrics(x, y, metrics=('map',))
  assert found['map'] == pytest.approx(
    metrics.label_ranking_average_precision_score(
      off_diagonal(positive), off_diagonal(scores)
    ),
    rel=1e-6,
  )
