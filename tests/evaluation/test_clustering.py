"""NMI and AMI of k-means clusters."""

import importlib.util

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.evaluation import clustering

needs = {
  'scikit-learn': pytest.mark.skipif(
    not importlib.util.find_spec('sklearn'), reason='no scikit-learn'
  ),
  'faiss': pytest.mark.skipif(
    not all(map(importlib.util.find_spec, ('sklearn', 'faiss'))),
    reason='no faiss',
  ),
}
each_library = pytest.mark.parametrize(
  'library', [pytest.param(name, marks=mark) for name, mark in needs.items()]
)


@each_library
@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
def test_clusters_that_are_classes(library, distance):
  rng = np.random.default_rng(0)
  y = np.repeat(list('abcde'), 20)
  centers = np.repeat(10 * np.eye(5), 20, 0)
  # Length is all that cosine must not see.
  x = centers + 0.1 * rng.normal(size=(100, 5))
  if distance == 'cosine':
    x *= rng.uniform(0.01, 1, (100, 1))
  found = [
    clustering.cluster_metrics(
      x, y, distance=distance, library=library, seed=seed
    )
    for seed in range(8)
  ]
  # One of several starts finds them; all know how many there are.
  assert max(result['nmi'] for result in found) == pytest.approx(1)
  assert max(result['ami'] for result in found) == pytest.approx(1)
  assert {result['num_clusters'] for result in found} == {5}


@each_library
def test_chance(library):
  rng = np.random.default_rng(0)
  x, y = rng.normal(size=(600, 4)), rng.integers(0, 60, 600)
  found = clustering.cluster_metrics(x, y, library=library, seed=3)
  again = clustering.cluster_metrics(x, y, library=library, seed=3)
  assert found == again
  assert found['nmi'] > 0.4
  assert abs(found['ami']) < 0.05


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    ({'distance': 'hyperbolic'}, "`distance` is 'hyperbolic'"),
    ({'library': 'scipy'}, "`library` is 'scipy'"),
    ({'labels': [0, np.nan]}, 'lacks the label of 1 of 2 rows'),
    ({'embeddings': [[0.0], [np.inf]]}, 'NaN or Inf in 1 of 2 rows'),
  ],
)
def test_bad_input(options, message):
  given = {'embeddings': [[0.0], [1.0]], 'labels': [0, 1]} | options
  with pytest.raises(UserError, match=message):
    clustering.cluster_metrics(**given)


def test_missing_library_is_named(monkeypatch):
  def missing(name):
    raise ImportError(name)

  monkeypatch.setattr(clustering.importlib, 'import_module', missing)
  with pytest.raises(UserError, match='pip install scikit-learn'):
    clustering.cluster_metrics([[0.0], [1.0]], [0, 1])


@each_library
@pytest.mark.parametrize('labels', ['aaaa', 'abcd', 'a'])
def test_classes_that_any_rows_agree_with(library, labels):
  x = np.random.default_rng(0).normal(size=(len(labels), 3))
  found = clustering.cluster_metrics(x, list(labels), library=library)
  assert np.isnan([found['nmi'], found['ami']]).all()
  assert found['num_clusters'] == len(set(labels))


@needs['scikit-learn']
@pytest.mark.parametrize('distance', ['cosine', 'euclidean'])
@pytest.mark.parametrize('scale', [1e-200, 1e200])
def test_scale_does_not_matter(distance, scale):
  rng = np.random.default_rng(0)
  y = np.arange(40) // 10
  x = 10 * np.eye(4)[y] + 0.1 * rng.normal(size=(40, 4))
  whole = clustering.cluster_metrics(x, y, distance=distance)
  found = clustering.cluster_metrics(scale * x, y, distance=distance)
  assert found == pytest.approx(whole)


@needs['scikit-learn']
def test_rows_far_from_the_origin_are_told_apart():
  y = np.arange(40) // 20
  x = 1e9 + y[:, None] + 0.01 * np.random.default_rng(0).normal(size=(40, 2))
  found = clustering.cluster_metrics(x, y, distance='euclidean')
  assert found['nmi'] == pytest.approx(1)
