"""How well k-means clusters of embeddings agree with their classes."""

from __future__ import annotations

import importlib
import types

import numpy as np
from jaxtyping import Float, Shaped
from numpy.typing import ArrayLike

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks, _distances
from hier_jax.evaluation.retrieval import _spaces

LIBRARIES = ('scikit-learn', 'faiss')


def cluster_metrics(
  embeddings: Float[ArrayLike, 'n d'],
  labels: Shaped[ArrayLike, ' n'],
  *,
  distance: str = 'cosine',
  library: str = 'scikit-learn',
  seed: int = 0,
) -> dict[str, float | int]:
  """NMI and AMI of classes and of as many k-means clusters.

  Args:
    embeddings: `[n, d]`, any floating dtype.
    labels: class of each row `[n]`, any dtype that sorts.
    distance: 'cosine' scales the rows to length 1 first, 'euclidean' takes them
      as they are. Map points of the ball by `poincare.log0` before.
    library: the library whose k-means is run: 'scikit-learn', or 'faiss', which
      is faster.
    seed: seed of the random first centers.

  Returns:
    'nmi', the mutual information over the arithmetic mean of the two entropies;
    'ami', the same adjusted for chance; and 'num_clusters'. Both are NaN where
    all rows are of one class or each is of its own: any rows would agree.

  Raises:
    UserError: bad arguments, a library that is not installed.

  References:
    Vinh et al., Information Theoretic Measures for Clusterings Comparison,
    JMLR 2010.

  Example:
    >>> from hier_jax import evaluation
    >>> x = [[0.0], [0.1], [9.0], [9.1]]
    >>> labels = ['a', 'a', 'b', 'b']
    >>> found = evaluation.cluster_metrics(x, labels, distance='euclidean')
    >>> print(f"{found['nmi']:.3f}", found['num_clusters'])
    1.000 2
  """
  if distance not in ('cosine', 'euclidean'):
    raise UserError(
      f"`distance` is {distance!r}; expected 'cosine' or 'euclidean': k-means "
      'has no other means'
    )
  if library not in LIBRARIES:
    raise UserError(
      f'`library` is {library!r}; expected one of {list(LIBRARIES)}'
    )
  _checks.rng(seed)
  x = _spaces.points('embeddings', embeddings, distance, None)
  labels = _checks.class_labels('labels', labels, len(x))
  _checks.labeled('labels', labels)
  judge = _import('sklearn.metrics', 'scikit-learn')
  classes, codes = np.unique(labels, return_inverse=True)
  if len(classes) in (1, len(x)):
    return {'nmi': np.nan, 'ami': np.nan, 'num_clusters': len(classes)}
  x = _as_float32(x, distance)
  cluster = _faiss if library == 'faiss' else _scikit_learn
  clusters = cluster(x, len(classes), seed)
  return {
    'nmi': float(judge.normalized_mutual_info_score(codes, clusters)),
    'ami': float(judge.adjusted_mutual_info_score(codes, clusters)),
    'num_clusters': len(classes),
  }


def _as_float32(x: np.ndarray, distance: str) -> np.ndarray:
  """Rows that have the same clusters, where float32 can tell them apart."""
  x = x.astype(np.float64)
  if distance == 'cosine':
    x = _distances.normalize(x)
  else:
    x *= _spaces.to_unit(x)
    x -= x.mean(0)
  return x.astype(np.float32)


def _scikit_learn(x, num, seed):
  cluster = _import('sklearn.cluster', 'scikit-learn')
  return cluster.KMeans(num, n_init=1, random_state=seed).fit_predict(x)


def _faiss(x, num, seed):
  faiss = _import('faiss', 'faiss-cpu')
  # Every row, and no word about classes of less than 39.
  means = faiss.Kmeans(
    x.shape[1],
    num,
    niter=50,
    seed=seed,
    min_points_per_centroid=1,
    max_points_per_centroid=len(x),
  )
  means.train(x)
  return means.index.search(x, 1)[1][:, 0]


def _import(module: str, package: str) -> types.ModuleType:
  try:
    return importlib.import_module(module)
  except ImportError:
    raise UserError(
      f'{package} is not installed; clustering needs it: pip install {package}'
    ) from None
