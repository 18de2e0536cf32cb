"""Losses over the pairs of a batch.

Each takes embeddings `[b, d]` and labels, and compares rows by a similarity:
the cosine with `c=None`, else minus `poincare.dist`, which takes points of the
ball for c > 0 and is Euclidean at c = 0. Each row is an anchor and is compared
with all other rows and with the rows of the memory. Rows where `where` is false
do not count, nor do anchors without the pairs that a loss needs. If nothing
counts, the loss and its gradient are 0.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike
from jaxtyping import Array, Bool, Float, Integer, Real

from hier_jax import numerics
from hier_jax.losses import _batch, _sharding
from hier_jax.losses._memory import Memory

__all__ = [
  'circle',
  'contrastive',
  'lifted_structure',
  'multi_similarity',
  'n_pair',
  'sup_con',
]


def contrastive(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  *,
  margin: float = 0.5,
  c: Real[ArrayLike, ''] | None = None,
  where: Bool[ArrayLike, ' b'] | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Contrastive loss: d^2 / 2 of positives, [margin - d]+^2 / 2 of negatives.

  Args:
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b]`, the class of each row.
    margin: distance at which negatives are left alone.
    c: curvature of the distance; None for the Euclidean distance of directions.
    where: bool `[b]`, the rows that count; None for all.
    memory: `Memory` of past batches, whose rows are compared with as well; None
      for none.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    scalar, the mean over all pairs.

  References:
    Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an
    Invariant Mapping" (CVPR 2006), equation 4.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.array([[1.0, 0.0], [0.0, 1.0]])  # Distance sqrt(2).
    >>> loss = losses.contrastive(z, jnp.array([0, 0]))
    >>> print(f'{float(loss):.3f}')
    1.000
  """
  numerics.check_finite(margin=margin)
  z, others, positive, negative = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  distance = _batch.distance(z, others, c)
  short = jax.nn.relu(margin - distance)
  energy = jnp.where(positive, distance**2, short**2) / 2
  return _sharding.masked_mean(energy, positive | negative, axis_name)


def lifted_structure(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  *,
  margin: float = 1.0,
  c: Real[ArrayLike, ''] | None = None,
  where: Bool[ArrayLike, ' b'] | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Lifted structured loss.

  Half the mean over positive pairs of [J]+^2, where

    J_ij = d_ij + log(sum_{k not of i} e^(margin - d_ik)
                      + sum_{l not of j} e^(margin - d_jl)),

  i and l among the batch's rows, j and k also among the memory's.

  Args:
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b]`, the class of each row.
    margin: how much farther negatives should be than positives, alpha of the
      paper.
    c: curvature of the distance; None for the Euclidean distance of directions.
    where: bool `[b]`, the rows that count; None for all.
    memory: `Memory` of past batches, whose rows are compared with as well; None
      for none.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    the loss, a scalar.

  References:
    Oh Song et al., "Deep Metric Learning via Lifted Structured Feature
    Embedding" (CVPR 2016, arXiv 1511.06452), equation 4.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> labels = jnp.array([0, 0, 1])
    >>> loss = losses.lifted_structure(z, labels)
    >>> print(f'{float(loss):.3f}')
    0.039
  """
  numerics.check_finite(margin=margin)
  z, others, positive, negative = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  distance = _batch.distance(z, others, c)
  of_anchor = _sharding.logsumexp(margin - distance, negative)
  of_other = _sharding.logsumexp(
    margin - distance, negative, axis=0, axis_name=axis_name
  )
  pushed = jnp.logaddexp(of_anchor[:, None], of_other[None])
  # Written so that a NaN stays in the loss.
  used = positive & ~(pushed <= jnp.finfo(pushed.dtype).min)
  excess = jax.nn.relu(jnp.where(used, distance + pushed, 0))
  return _sharding.masked_mean(excess**2, used, axis_name) / 2


def multi_similarity(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  *,
  alpha: float = 2.0,
  beta: float = 50.0,
  base: float = 0.5,
  epsilon: float | None = None,
  c: Real[ArrayLike, ''] | None = None,
  where: Bool[ArrayLike, ' b'] | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Multi-Similarity loss.

  The mean over rows of 1/alpha log(1 + sum_positives e^(-alpha (s - base)))
  + 1/beta log(1 + sum_negatives e^(beta (s - base))).

  Args:
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b]`, the class of each row.
    alpha: factor of the positives' similarities.
    beta: factor of the negatives' similarities.
    base: similarity that both are compared with, lambda of the paper.
    epsilon: margin of the paper's miner (0.1 in the paper); None keeps all
      pairs. The miner keeps a negative if its similarity is above the lowest
      similarity of a positive minus epsilon, and a positive if its similarity
      is below the highest similarity of a negative plus epsilon.
    c: curvature; the similarity is then minus the distance. None for cosine.
    where: bool `[b]`, the rows that count; None for all.
    memory: `Memory` of past batches, whose rows are compared with as well; None
      for none.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    the loss, a scalar.

  References:
    Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep
    Metric Learning" (CVPR 2019, arXiv 1904.06627), equations 11 to 15.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    >>> loss = losses.multi_similarity(z, jnp.array([0, 0]))
    >>> print(f'{float(loss):.3f}')  # log(1 + e) / 2.
    0.657
  """
  numerics.check_positive(alpha=alpha, beta=beta)
  numerics.check_finite(base=base, epsilon=epsilon)
  z, others, positive, negative = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  rows = jnp.any(positive | negative, 1)
  s = _batch.similarity(z, others, c)
  if epsilon is not None:
    hardest = jnp.max(s, 1, keepdims=True, where=negative, initial=-jnp.inf)
    easiest = jnp.min(s, 1, keepdims=True, where=positive, initial=jnp.inf)
    positive, negative = (
      # Written so that a NaN stays in the loss.
      positive & ~(s >= hardest + epsilon),
      negative & ~(s <= easiest - epsilon),
    )
  pull = _sharding.logsumexp(-alpha * (s - base), positive)
  push = _sharding.logsumexp(beta * (s - base), negative)
  loss = jax.nn.softplus(pull) / alpha + jax.nn.softplus(push) / beta
  return _sharding.masked_mean(loss, rows, axis_name)


def sup_con(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  *,
  temperature: float = 0.1,
  c: Real[ArrayLike, ''] | None = None,
  where: Bool[ArrayLike, ' b'] | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Supervised contrastive loss.

  The mean over rows with a positive of the mean over its positives p of
  -log(e^(s_p / t) / sum_{a != row} e^(s_a / t)).

  Args:
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b]`, the class of each row.
    temperature: divisor t of the similarities.
    c: curvature; the similarity is then minus the distance. None for cosine.
    where: bool `[b]`, the rows that count; None for all.
    memory: `Memory` of past batches, whose rows are compared with as well; None
      for none.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    the loss, a scalar.

  References:
    Khosla et al., "Supervised Contrastive Learning" (NeurIPS 2020, arXiv
    2004.11362), equation 2.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> labels = jnp.array([0, 0, 1])
    >>> loss = losses.sup_con(z, labels, temperature=1.0)
    >>> print(f'{float(loss):.3f}')  # log(1 + 1 / e).
    0.313
  """
  numerics.check_positive(temperature=temperature)
  z, others, positive, negative = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  logits = _batch.similarity(z, others, c) / temperature
  count = jnp.sum(positive, 1)
  mean = jnp.sum(jnp.where(positive, logits, 0), 1) / jnp.maximum(count, 1)
  loss = _sharding.logsumexp(logits, positive | negative) - mean
  return _sharding.masked_mean(loss, count > 0, axis_name)


def n_pair(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  *,
  temperature: float = 0.1,
  c: Real[ArrayLike, ''] | None = None,
  where: Bool[ArrayLike, ' b'] | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Multi-class N-pair loss.

  The mean over positive pairs (i, p) of
  log(1 + sum_{k not of i} e^((s_ik - s_ip) / t)).

  The paper takes one pair of each class, inner products, and a penalty on the
  squared norms, since cosines without a temperature cannot reach a small loss.
  Here cosines have a temperature and lengths do not count, so no penalty is
  needed.

  Args:
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b]`, the class of each row.
    temperature: divisor t of the similarities.
    c: curvature; the similarity is then minus the distance. None for cosine.
    where: bool `[b]`, the rows that count; None for all.
    memory: `Memory` of past batches, whose rows are compared with as well; None
      for none.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    scalar; a positive pair whose anchor has no negatives counts as 0.

  References:
    Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective"
    (NeurIPS 2016), equation 7.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    >>> labels = jnp.array([0, 0, 1])
    >>> loss = losses.n_pair(z, labels, temperature=1.0)
    >>> print(f'{float(loss):.3f}')  # log(1 + 1 / e).
    0.313
  """
  numerics.check_positive(temperature=temperature)
  z, others, positive, negative = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  logits = _batch.similarity(z, others, c) / temperature
  push = _sharding.logsumexp(logits, negative)[:, None]
  return _sharding.masked_mean(
    jax.nn.softplus(push - logits), positive, axis_name
  )


def circle(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  *,
  scale: float = 80.0,
  margin: float = 0.4,
  where: Bool[ArrayLike, ' b'] | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """Circle loss, of cosines s.

  The mean over rows with positives and negatives of

    log(1 + sum_n e^(scale [s_n + margin]+ (s_n - margin))
            sum_p e^(-scale [1 + margin - s_p]+ (s_p - 1 + margin))),

  the weights [.]+ not differentiated.

  Args:
    z: `[b, d]` embeddings; only their directions count.
    labels: int `[b]`, the class of each row.
    scale: factor of the logits, gamma of the paper.
    margin: relaxation of the targets 1 and 0 of positive and negative cosines,
      m of the paper.
    where: bool `[b]`, the rows that count; None for all.
    memory: `Memory` of past batches, whose rows are compared with as well; None
      for none.
    axis_name: mapped axis over whose devices the batch is spread; None for one
      device.

  Returns:
    the loss, a scalar.

  References:
    Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity
    Optimization" (CVPR 2020, arXiv 2002.10857), equations 6 to 8.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.eye(3)  # The positive is as far away as the negative.
    >>> loss = losses.circle(z, jnp.array([0, 0, 1]))
    >>> print(f'{float(loss):.1f}')
    54.4
  """
  numerics.check_positive(scale=scale)
  numerics.check_finite(margin=margin)
  z, others, positive, negative = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  s = _batch.cosine_similarity(z, others)
  fixed = jax.lax.stop_gradient(s)
  push = scale * jax.nn.relu(fixed + margin) * (s - margin)
  pull = -scale * jax.nn.relu(1 + margin - fixed) * (s - 1 + margin)
  rows = jnp.any(positive, 1) & jnp.any(negative, 1)
  push = _sharding.logsumexp(push, negative)
  pull = _sharding.logsumexp(pull, positive)
  total = jnp.where(rows, push + pull, 0)
  return _sharding.masked_mean(jax.nn.softplus(total), rows, axis_name)
