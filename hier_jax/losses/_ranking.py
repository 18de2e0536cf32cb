"""Losses that rank by sigmoids: smooth stand-ins for AP and Recall@k.

Each takes embeddings `[b, d]` and labels. Each row is a query. Its gallery is
all other rows and the rows of the memory, ranked by a score: the cosine with
`c=None`, else minus `poincare.dist`, which takes points of the ball for c > 0
and is Euclidean at c = 0. Rows where `where` is false do not count, nor do
queries without an item of their class in the gallery. If nothing counts, the
loss and its gradient are 0. `_items` says what these losses cost.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, Real

from hier_jax import numerics
from hier_jax.losses import _items, _sharding
from hier_jax.losses._memory import Memory

__all__ = ['recall_at_k', 'smooth_ap']


def _smooth_counts(
  scores: jax.Array,
  temperature: jax.Array,
  among: Sequence[jax.Array],
  item: jax.Array,
) -> list[jax.Array]:
  """sum_j sigmoid((s_j - s_item) / temperature), `[b, 1]`.

  For each table of `among`, which says over which j; never over the item.
  """
  above = jax.nn.sigmoid((scores - _items.of_item(scores, item)) / temperature)
  count = lambda j: jnp.sum(jnp.where(j & ~item, above, 0), 1, keepdims=True)
  return [count(j) for j in among]


def _smooth_precision(
  scores: jax.Array,
  temperature: jax.Array,
  tables: tuple[jax.Array, jax.Array],
  item: jax.Array,
) -> jax.Array:
  """rank(i, P) / rank(i, G), with a slope of exactly 0 where P is all of G."""
  own, others = _smooth_counts(scores, temperature, tables, item)
  return 1 / (1 + others / (1 + own))


def smooth_ap(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  *,
  temperature: float = 0.01,
  c: Real[ArrayLike, ''] | None = None,
  where: Bool[ArrayLike, ' b'] | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Smooth-AP: 1 - the mean average precision, with ranks made of sigmoids.

  With the scores s of a query, P the items of its class and all its gallery G,

    AP = 1/|P| sum_{i in P} rank(i, P) / rank(i, G),
    rank(i, S) = 1 + sum_{j in S, j != i} sigmoid((s_j - s_i) / temperature).

  The query is not part of its own gallery; in the authors' program it is.

  Args:
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b]`, the class of each row.
    temperature: divisor of the differences of scores, tau of the paper.
    c: curvature; the score is then minus the distance. None for cosine.
    where: bool `[b]`, the rows that count; None for all.
    memory: `losses.Memory` whose rows join the gallery; None for none.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    scalar, the mean over queries of 1 - AP.

  References:
    Brown et al., "Smooth-AP: Smoothing the Path Towards Large-Scale Image
    Retrieval" (ECCV 2020, arXiv 2007.12163), section 3.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.eye(3)  # The positive and the negative tie: rank 1.5.
    >>> loss = losses.smooth_ap(z, jnp.array([0, 0, 1]))
    >>> print(f'{float(loss):.3f}')
    0.333
  """
  numerics.check_positive(temperature=temperature)
  scores, positive, gallery = _items.scored(
    z, labels, c, where, memory, axis_name
  )
  precision = _items.over_items(
    _smooth_precision,
    scores,
    temperature,
    (positive, gallery & ~positive),
    positive,
  )
  count = jnp.sum(positive, 1)
  return _sharding.masked_mean(
    1 - precision[:, 0] / jnp.maximum(count, 1), count > 0, axis_name
  )


def _smooth_recall(
  scores: jax.Array,
  options: tuple[jax.Array, ...],
  gallery: jax.Array,
  item: jax.Array,
) -> jax.Array:
  temperature, rank_temperature, ks = options
  (above,) = _smooth_counts(scores, temperature, (gallery,), item)
  return jax.nn.sigmoid((ks[None] - 1 - above) / rank_temperature[None])


def recall_at_k(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  *,
  ks: Sequence[int] | Any = (1, 2, 4, 8, 16),
  temperature: float = 0.01,
  rank_temperature: ArrayLike | Sequence[float] = 1.0,
  c: Real[ArrayLike, ''] | None = None,
  where: Bool[ArrayLike, ' b'] | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Recall@k surrogate: 1 - a smooth recall, the mean of those at several k.

  With the scores s of a query and P the items of its class,

    recall = min(k, sum_{i in P} sigmoid((k - rank(i)) / rank_temperature))
             / min(k, |P|),
    rank(i) = 1 + sum_{j != i} sigmoid((s_j - s_i) / temperature).

  An item of rank k counts one half, sigmoid(0). Dividing by min(k, |P|) and
  bounding by k keep a recall in 0..1; both come from the authors' program,
  which sets rank_temperature = ks. SiMix is not included.

  Args:
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b]`, the class of each row.
    ks: the numbers k of retrieved items, each at least 1.
    temperature: divisor of the differences of scores, tau_2 of the paper.
    rank_temperature: divisor of the differences of ranks, tau_1 of the paper:
      one number, or one for each k.
    c: see `smooth_ap`.
    where: see `smooth_ap`.
    memory: see `smooth_ap`.
    axis_name: see `smooth_ap`.

  Returns:
    scalar, the mean over queries and k of 1 - recall.

  Raises:
    ValueError: for no k, a k below 1, or a number of rank temperatures that is
      neither 1 nor the number of k.

  References:
    Patel, Tolias and Matas, "Recall@k Surrogate Loss with Large Batches and
    Similarity Mixup" (CVPR 2022, arXiv 2108.11179), section 3.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> loss = losses.recall_at_k(z, jnp.array([0, 0, 1]), ks=(1,))
    >>> print(f'{float(loss):.3f}')  # Rank 1 at k = 1 counts by half.
    0.500
  """
  numerics.check_positive(
    temperature=temperature, rank_temperature=rank_temperature
  )
  if not ks or not all(k >= 1 for k in ks):
    raise ValueError(f'ks is {ks!r}, expected one or more k of at least 1')
  if np.shape(rank_temperature) not in ((), (len(ks),)):
    raise ValueError(
      f'rank_temperature has shape {np.shape(rank_temperature)}, expected a'
      f' number or {len(ks)} of them, one for each k'
    )
  scores, positive, gallery = _items.scored(
    z, labels, c, where, memory, axis_name
  )
  rank_temperature = jnp.asarray(rank_temperature, scores.dtype)
  rank_temperature = jnp.broadcast_to(rank_temperature, (len(ks),))
  ks = jnp.asarray(ks, scores.dtype)
  found = _items.over_items(
    _smooth_recall,
    scores,
    (temperature, rank_temperature, ks),
    gallery,
    positive,
    width=ks.size,
  )
  count = jnp.sum(positive, 1, keepdims=True).astype(scores.dtype)
  most = jnp.minimum(ks[None], jnp.maximum(count, 1))
  recall = jnp.mean(jnp.minimum(found, ks[None]) / most, 1)
  return _sharding.masked_mean(1 - recall, count[:, 0] > 0, axis_name)
