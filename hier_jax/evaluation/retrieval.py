"""Exact retrieval figures of embeddings: Recall@K and MAP@R.

Works on plain arrays. Memory is O(block x gallery): no array of queries x
gallery is ever made.
"""

import functools
import math
import operator
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hier_jax.errors import UserError
from hier_jax.evaluation import checks

RECALL_AT = (1, 2, 4, 8)
# When a negative is ahead of a positive: as a comparison, and as the side on
# which `searchsorted` counts.
_TIES = {
  'pessimistic': (operator.ge, 'right'),
  'optimistic': (operator.gt, 'left'),
}
# XLA's CPU product of a single row runs another kernel, in which identical
# gallery rows can get scores that differ in the last bit and no longer tie.
_MIN_BLOCK = 8


class PerQuery(NamedTuple):
  """Results of each query, in the order of the queries, as NumPy arrays.

  Attributes:
    rank: `[n]` int32, rank of the best positive from 1; 0 where the gallery
      holds no positive.
    ap: `[n]` float32, AP@R in [0, 1]; 0 where the gallery holds no positive.
    num_positives: `[n]` int32, R: the positives that the gallery holds.
  """

  rank: np.ndarray
  ap: np.ndarray
  num_positives: np.ndarray


def metric_keys(recall_at: Sequence[int] = RECALL_AT) -> list[str]:
  """Keys of the means in the result of `retrieval_metrics`, in order."""
  return [f'recall@{k}' for k in recall_at] + ['map@r']


def retrieval_metrics(
  embeddings,
  labels,
  *,
  recall_at: Sequence[int] = RECALL_AT,
  **ranking,
) -> dict[str, float | int]:
  """Recall@K and MAP@R over the queries that have a positive.

  Recall@K is the share of queries whose best positive ranks K or better;
  MAP@R is the mean of AP@R.

  Args:
    embeddings: queries `[n, d]`, any floating dtype.
    labels: classes of the queries `[n]`, any dtype that sorts.
    recall_at: the K of Recall@K.
    **ranking: `gallery`, `gallery_labels`, `c`, `block` and `ties` of
      `per_query`.

  Returns:
    'recall@K' for every K and 'map@r', float64 means in [0, 1]; 'num_queries';
    'num_without_positive', how many of these have no positive in the gallery
    and are left out of the means.

  Raises:
    UserError: bad arguments (see `per_query`), a K that is not a positive
      integer, or no query that has a positive.
  """
  recall_at = [checks.positive_int('K of recall_at', k) for k in recall_at]
  result = per_query(embeddings, labels, **ranking)
  answerable = result.num_positives > 0
  if not answerable.any():
    raise UserError(
      f'none of the {len(answerable)} queries has a positive in the gallery; '
      'expected classes of two items or more: check the labels'
    )
  rank = result.rank[answerable]
  means = [np.mean(rank <= k, dtype=np.float64) for k in recall_at]
  means.append(np.mean(result.ap[answerable], dtype=np.float64))
  return {
    **dict(zip(metric_keys(recall_at), map(float, means), strict=True)),
    'num_queries': len(answerable),
    'num_without_positive': int(np.sum(~answerable)),
  }


def per_query(
  embeddings,
  labels,
  *,
  gallery=None,
  gallery_labels=None,
  c: float = 0.0,
  block: int = 512,
  ties: str = 'pessimistic',
) -> PerQuery:
  """Rank of the best positive and AP@R of every query.

  AP@R = 1/R sum_{k <= R} precision@k rel(k), where R is the number of the
  query's positives in the gallery.

  Args:
    embeddings: queries `[n, d]`, any floating dtype.
    labels: classes of the queries `[n]`, any dtype that sorts.
    gallery: `[m, d]`; None means the queries, each of which is then left out
      of its own ranking (by index). Nothing is left out of a given gallery.
    gallery_labels: `[m]`, given exactly where `gallery` is.
    c: 0 ranks by cosine similarity (a zero row has similarity 0 to all);
      c > 0 ranks by the hyperbolic distance of points of the Poincare ball of
      curvature -c and radius 1 / sqrt(c).
    block: queries scored at a time; peak memory is a few times
      `block * m * 4` bytes.
    ties: where a positive and a negative score the same in float32,
      'pessimistic' ranks the negative first, 'optimistic' the positive.
      Identical gallery rows always tie.

  Raises:
    UserError: rows with NaN or Inf, points outside the ball, wrong shapes,
      unequal dimensions, labels of another length than their rows, nothing to
      rank, c negative or not finite, unknown `ties`, block below 1.

  References:
    Musgrave et al., A Metric Learning Reality Check, arXiv 2003.08505.
  """
  if ties not in _TIES:
    raise UserError(f'`ties` is {ties!r}; expected one of {list(_TIES)}')
  block = checks.positive_int('block', block)
  c = checks.curvature('c', c)
  queries = checks.points('embeddings', embeddings, c)
  labels = checks.class_labels('labels', labels, len(queries))
  gallery, gallery_labels, own = _gallery(
    queries, labels, gallery, gallery_labels, c
  )
  codes, gallery_codes = _class_codes(labels, gallery_labels)
  per_class = np.bincount(gallery_codes, minlength=1 + codes.max())
  num_positives = (per_class[codes] - (own >= 0)).astype(np.int32)
  lifted, gallery_lifted = lift(queries, gallery, c=c)
  rank, ap = _rank_blocks(
    (lifted, codes, own, num_positives),
    (gallery_lifted, gallery_codes),
    top=max(1, int(num_positives.max())),
    block=max(_MIN_BLOCK, min(block, len(queries))),
    ties=ties,
  )
  return PerQuery(
    np.asarray(rank, np.int32), np.asarray(ap, np.float32), num_positives
  )


def lift(queries, gallery, *, c: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
  """Vectors whose inner products rank the gallery for every query.

  For a fixed query x the hyperbolic distance grows with
  |x - y|^2 / (1 - c |y|^2), which is an inner product in d + 2 dimensions:
  [x, |x|^2, 1] . w [-2y, 1, |y|^2] with w = 1 / (1 - c |y|^2). Cosine
  similarity is the inner product of the normalised rows.

  The vectors are made in float64 and relative to the mean of the gallery: that
  changes no order, and keeps float32 products apart where embeddings crowd far
  from the origin, as those of an untrained network do.

  Args:
    queries: `[n, d]`, inside the ball where c > 0.
    gallery: `[m, d]`, likewise.
    c: 0 for cosine similarity, c > 0 for the ball of curvature -c.

  Returns:
    NumPy float32 `(q, g)`: `[n, d]` and `[m, d]` for c = 0, else
    `[n, d + 2]` and `[m, d + 2]`. The larger `q @ g.T`, the nearer.
  """
  x = np.asarray(queries).astype(np.float64)
  y = np.asarray(gallery).astype(np.float64)
  if c == 0:
    q, g = _normalise(x), _normalise(y)
    g = g - g.mean(0)
  else:
    # In units of the ball's radius, so that no float32 square overflows.
    x, y = math.sqrt(c) * x, math.sqrt(c) * y
    w = 1 / (1 - _square_norm(y))
    centre = y.mean(0)
    x, y = x - centre, y - centre
    q = np.hstack([x, _square_norm(x), np.ones_like(x[:, :1])])
    g = w * np.hstack([2 * y, -np.ones_like(w), -_square_norm(y)])
  return q.astype(np.float32), g.astype(np.float32)


@functools.partial(jax.jit, static_argnames=('top', 'block', 'ties'))
def _rank_blocks(queries, gallery, *, top: int, block: int, ties: str):
  """Rank of the best positive `[n]` int32 and AP@R `[n]` float32.

  Args:
    queries: lifted vectors `[n, d]` float32, classes `[n]` int32, the gallery
      row that is the query itself or -1 `[n]` int32, and R `[n]` int32.
    gallery: lifted vectors `[m, d]` float32 and classes `[m]` int32.
    top: the largest R, at least 1.
    block: queries scored at a time.
    ties: a key of `_TIES`.
  """
  vectors, classes = gallery
  ahead, side = _TIES[ties]

  def one_query(query):
    vector, label, own, r = query
    scores = jnp.matmul(vectors, vector, precision=lax.Precision.HIGHEST)
    same = classes == label
    positive = same & (jnp.arange(len(scores)) != own)
    positives = jnp.where(positive, scores, -jnp.inf)
    negatives = jnp.where(same, -jnp.inf, scores)
    rank = 1 + jnp.sum(ahead(negatives, positives.max()))
    # The j-th best positive ranks j + the negatives ahead of it. Only ranks up
    # to R count, so R of each kind are enough: no sort of the whole gallery,
    # and ties fall as the policy says, not as top_k happens to leave them.
    best_positives, _ = lax.top_k(positives, top)
    best_negatives, _ = lax.top_k(negatives, top)
    j = jnp.arange(1, top + 1)
    ranks = j + jnp.searchsorted(-best_negatives, -best_positives, side=side)
    precision = jnp.where((j <= r) & (ranks <= r), j / ranks, 0)
    return jnp.where(r > 0, rank, 0), jnp.sum(precision) / jnp.maximum(r, 1)

  def to_blocks(x):
    padding = [(0, -len(x) % block)] + [(0, 0)] * (x.ndim - 1)
    return jnp.pad(x, padding).reshape(-1, block, *x.shape[1:])

  n = len(queries[0])
  blocks = jax.tree.map(to_blocks, queries)
  rank, ap = lax.map(jax.vmap(one_query), blocks)
  return rank.reshape(-1)[:n], ap.reshape(-1)[:n]


def _gallery(queries, labels, gallery, gallery_labels, c):
  """The checked gallery, its labels, and each query's own row in it or -1."""
  if (gallery is None) != (gallery_labels is None):
    raise UserError(
      'only one of `gallery` and `gallery_labels` is given; pass both or none'
    )
  if gallery is None:
    if len(queries) < 2:
      raise UserError(
        '`embeddings` has 1 row and no `gallery`; expected 2 rows or more'
      )
    return queries, labels, np.arange(len(queries), dtype=np.int32)
  gallery = checks.points('gallery', gallery, c)
  if gallery.shape[1] != queries.shape[1]:
    raise UserError(
      f'`gallery` has {gallery.shape[1]} dimensions and `embeddings` '
      f'{queries.shape[1]}; expected the same: embed both with one model'
    )
  gallery_labels = checks.class_labels(
    'gallery_labels', gallery_labels, len(gallery)
  )
  return gallery, gallery_labels, np.full(len(queries), -1, np.int32)


def _class_codes(labels, gallery_labels):
  """The classes of both as int32 from 0, equal where the labels are."""
  codes = np.unique(
    np.concatenate([labels, gallery_labels]), return_inverse=True
  )[1].astype(np.int32)
  return codes[: len(labels)], codes[len(labels) :]


def _square_norm(x):
  return np.sum(x * x, axis=-1, keepdims=True)


def _normalise(x):
  """Rows of unit length; a zero row stays zero."""
  # By the largest entry first: the square of a tiny row would underflow.
  largest = np.max(np.abs(x), axis=-1, keepdims=True)
  x = x / np.where(largest > 0, largest, 1)
  norm = np.sqrt(_square_norm(x))
  return x / np.where(norm > 0, norm, 1)
