"""The triplet loss, and which triplets of a batch it is taken over."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, Real

from hier_jax import numerics
from hier_jax.losses import _batch, _sharding
from hier_jax.losses._memory import Memory

__all__ = ['triplet']


def _batch_hard(
  distance: jax.Array, positive: jax.Array, negative: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Per anchor `[b, 1]`: farthest positive, nearest negative, which count."""
  far = numerics.largest(jnp.where(positive, distance, -1), 1)
  near = -numerics.largest(jnp.where(negative, -distance, -jnp.inf), 1)
  counts = jnp.any(positive, 1) & jnp.any(negative, 1)
  return far[:, None], jnp.where(counts, near, 0)[:, None], counts[:, None]


def _semi_hard(
  distance: jax.Array, positive: jax.Array, negative: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Per pair `[b, n]`: the nearest negative beyond the positive, or the last.

  The negatives are sorted, so that nothing of size b n^2 is made.
  """
  ordered = jnp.sort(jnp.where(negative, distance, jnp.inf), 1)
  beyond = jax.vmap(lambda row, d: jnp.searchsorted(row, d, side='right'))
  last = jnp.sum(negative, 1, keepdims=True) - 1
  place = jnp.maximum(jnp.minimum(beyond(ordered, distance), last), 0)
  chosen = jnp.take_along_axis(ordered, place, 1)
  # NaN is sorted last, where it would be taken for no negative.
  chosen = jnp.where(jnp.isnan(ordered[:, -1:]), jnp.nan, chosen)
  return distance, chosen, positive & (last >= 0)


def triplet(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  *,
  margin: float = 0.2,
  mining: str = 'semi_hard',
  squared: bool = False,
  c: Real[ArrayLike, ''] | None = None,
  where: Bool[ArrayLike, ' b'] | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Triplet loss: the mean of [d(a, p) - d(a, n) + margin]+.

  Args:
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b]`, the class of each row.
    margin: how much farther the negative should be than the positive, alpha of
      the paper.
    mining: 'all' takes all triplets. 'semi_hard' takes, for each positive pair,
      the nearest negative that is farther than the positive, or else the
      farthest negative (Schroff et al.). 'hard' takes, for each anchor, its
      farthest positive and nearest negative (Hermans et al., equation 5).
    squared: whether d is the squared distance, as Schroff et al. have it.
    c: curvature of the distance; None for the Euclidean distance of directions.
    where: bool `[b]`, the rows that count; None for all.
    memory: `Memory` of past batches, whose rows are compared with as well; None
      for none.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    scalar, the mean over the triplets taken, including those whose loss is 0.

  Raises:
    ValueError: for an unknown `mining`.

  References:
    Schroff, Kalenichenko and Philbin, "FaceNet" (CVPR 2015, arXiv 1503.03832),
    equation 3; Hermans, Beyer and Leibe, "In Defense of the Triplet Loss for
    Person Re-Identification" (arXiv 1703.07737).

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.eye(3)  # All distances are equal: the margin remains.
    >>> loss = losses.triplet(z, jnp.array([0, 0, 1]), margin=0.2)
    >>> print(f'{float(loss):.3f}')
    0.200
  """
  numerics.check_finite(margin=margin)
  z, others, positive, negative = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  distance = _batch.distance(z, others, c)
  distance = distance**2 if squared else distance
  if mining == 'all':
    return _all_triplets(distance, positive, negative, margin, axis_name)
  pick = {'semi_hard': _semi_hard, 'hard': _batch_hard}.get(mining)
  if pick is None:
    raise ValueError(
      f"mining is {mining!r}, expected 'all', 'semi_hard' or 'hard'"
    )
  far, near, counts = pick(distance, positive, negative)
  excess = jax.nn.relu(far - near + margin)
  return _sharding.masked_mean(excess, counts, axis_name)


def _all_triplets(
  distance: jax.Array,
  positive: jax.Array,
  negative: jax.Array,
  margin: ArrayLike,
  axis_name: str | None,
) -> jax.Array:
  """The mean over all triplets, an anchor at a time, `[n, n]`."""

  def one(row: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
    d, positives, negatives = row
    used = positives[:, None] & negatives[None]
    excess = jax.nn.relu(d[:, None] - d[None] + margin)
    return jnp.sum(jnp.where(used, excess, 0))

  sums = lax.map(jax.checkpoint(one), (distance, positive, negative))
  number = lambda where: jnp.sum(where.astype(sums.dtype), 1)
  count = jnp.sum(number(positive) * number(negative))
  summed, count = (
    _sharding.total(a, axis_name) for a in (jnp.sum(sums), count)
  )
  return summed / jnp.maximum(count, 1)
