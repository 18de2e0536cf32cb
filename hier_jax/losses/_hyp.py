"""Hyp's loss: the cross-entropy between the views of each class."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, Real

from hier_jax import debug, numerics
from hier_jax.losses import _batch, _sharding

__all__ = ['hyp']


def _views(
  labels: jax.Array, where: jax.Array, views: int, axis_name: str | None
) -> tuple[jax.Array, jax.Array]:
  """Places of rows within their classes, in the order of the whole batch.

  Returns:
    int32 `[n]`, which view of its sample each row of the batch is, and `[n]`,
    which of its class's samples that is: a class that has twice as many rows
    as there are views makes two.
  """
  labels, where = (_sharding.gather(a, axis_name) for a in (labels, where))
  place = jnp.arange(labels.shape[0], dtype=jnp.int32)
  before = (labels[:, None] == labels[None]) & where[None]
  before &= place[None] < place[:, None]
  rank = jnp.sum(before, 1, dtype=jnp.int32)
  return rank % views, rank // views


def hyp(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  *,
  temperature: float = 0.2,
  views: int = 2,
  c: Real[ArrayLike, ''] | None = 0.1,
  where: Bool[ArrayLike, ' b'] | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Pairwise cross-entropy of Hyp: each row finds the other row of its class.

  For a row i, the other row p of its class and similarities s, with t the
  temperature, -log(e^(s_ip / t) / sum_{a != i} e^(s_ia / t)).

  With more than two `views` of a class, the loss of each ordered pair of views
  is

    -log(e^(s_ip / t) / sum_{a != i of the views of i and p} e^(s_ia / t)),

  where the view of a row is its place among the rows of its class. The loss
  takes no memory: rows of past batches are not views of this batch's classes.

  Args:
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b]`; each class has `views` rows, anywhere in the whole batch.
      A class with twice as many rows counts as two classes.
    temperature: divisor t of the similarities.
    views: number of rows of each class, a static int of at least 2.
    c: curvature; the similarity is minus the distance. None for cosine.
    where: bool `[b]`, the rows that count; None for all. A row whose partners
      do not count still serves as a negative for others.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    scalar, the mean over ordered pairs. With v = `views`, the authors' program
    divides by v^2 instead of v (v - 1).

  Raises:
    ValueError: for fewer than two views, or if `views` does not divide the
      number of rows.

  References:
    Ermolov et al., "Hyperbolic Vision Transformers: Combining Improvements in
    Metric Learning" (CVPR 2022, arXiv 2203.10833), equation 6.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.eye(2).repeat(2, axis=0)
    >>> labels = jnp.array([0, 0, 1, 1])
    >>> loss = losses.hyp(z, labels, temperature=1.0, c=None)
    >>> print(f'{float(loss):.3f}')  # log(1 + 2 / e).
    0.551
  """
  numerics.check_positive(temperature=temperature)
  batch = _batch.make(z, labels, where=where, axis_name=axis_name)
  number, labels = batch.others.shape[0], jnp.asarray(labels)
  if views < 2 or number % views:
    raise ValueError(
      f'z has shape {jnp.shape(z)} and views is {views}: expected at least 2'
      f' views, which divide the {number} rows of the whole batch'
    )
  counts = _sharding.mask_of(where, z)
  view, sample = _views(labels, counts, views, axis_name)
  index, _ = _sharding.position(axis_name)
  itself = index * counts.shape[0] + jnp.arange(counts.size, dtype=jnp.int32)
  partner = batch.positive & (sample[itself][:, None] == sample[None])
  debug.check(
    lambda: ~counts | (jnp.sum(partner, 1) == views - 1),
    labels,
    f'labels{{place}} is {{value}}, a class without {views} rows in the batch',
  )
  logits = _batch.similarity(batch.anchors, batch.others, c) / temperature
  kept = (batch.positive | batch.negative)[:, None]
  of_view = view[None] == jnp.arange(views, dtype=jnp.int32)[:, None]
  rivals = _sharding.logsumexp(logits[:, None], kept & of_view[None], 2)
  own = jnp.take_along_axis(rivals, view[itself][:, None], 1)
  total = jnp.logaddexp(rivals, own)[:, view]
  return _sharding.masked_mean(total - logits, partner, axis_name)
