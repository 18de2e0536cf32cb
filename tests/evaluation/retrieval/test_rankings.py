"""Points of the ball ranked by hyperbolic distance and by cosine."""

import numpy as np
import pytest

from hier_jax.evaluation import retrieval_metrics
from hier_jax.evaluation.retrieval import rankings


def points(c=0.1):
  """Rows inside the ball whose radii differ, and labels."""
  rng = np.random.default_rng(0)
  x = rng.normal(size=(60, 4))
  x *= rng.uniform(0.1, 0.95, (60, 1)) / np.linalg.norm(x, axis=1)[:, None]
  return x / c**0.5, rng.integers(0, 6, 60)


@pytest.mark.parametrize('with_gallery', [False, True])
def test_both_are_the_metrics_of_each(with_gallery):
  x, y = points()
  options = {'recall_at': [1, 5], 'metrics': ['map@r', 'mrr']}
  if with_gallery:
    options |= {'gallery': x[20:], 'gallery_labels': y[20:]}
    x, y = x[:20], y[:20]
  found = rankings.both(x, y, c=0.1, **options)
  ball, cosine = (retrieval_metrics(x, y, c=c, **options) for c in (0.1, None))
  means = {k: v for k, v in cosine.items() if k in (
    'recall@1', 'recall@5', 'map@r', 'mrr')}  # fmt: skip
  assert rankings.by_cosine(found) == means
  assert {k: v for k, v in found.items() if '/' not in k} == ball
  assert found['map@r'] != found['cosine/map@r']


@pytest.mark.parametrize('c', [None, 0, 0.0])
def test_there_is_one_ranking_outside_the_ball(c):
  x, y = points()
  assert rankings.both(x, y, c=c) == retrieval_metrics(x, y, c=c)


def test_ranking_by_cosine_is_told_where_it_differs():
  x, y = points()
  apart = rankings.both(x, y, c=0.1)
  assert rankings.distinct(apart) == apart
  sphere = x / np.linalg.norm(x, axis=1)[:, None]
  same = rankings.both(sphere, y, c=0.1)
  assert rankings.by_cosine(same)
  assert rankings.distinct(same) == retrieval_metrics(sphere, y, c=0.1)


@pytest.mark.parametrize(('cosine', 'told'), [(0.5, False), (0.5002, True)])
def test_rounding_makes_no_other_ranking(cosine, told):
  found = rankings.distinct({'map@r': 0.50005, 'cosine/map@r': cosine})
  assert ('cosine/map@r' in found) == told
