"""Losses over the pairs of a batch.

Each takes embeddings `[b, d]` and labels, and compares rows by a similarity:
the cosine, or with a curvature `c` minus the hyperbolic distance of points of
the ball. Rows are anchors, compared with all rows and with those of a memory;
a row is never a pair with itself. Rows where `where` is false, and anchors
without the pairs a loss asks for, do not count; where nothing counts the loss
is 0 and so is its gradient.
"""

import jax
import jax.numpy as jnp

from hier_jax import numerics
from hier_jax.losses import _batch, _sharding

__all__ = [
  'circle',
  'contrastive',
  'hyp',
  'lifted_structure',
  'multi_similarity',
  'n_pair',
  'sup_con',
]


def contrastive(
  z, labels, *, margin=0.5, c=None, where=None, memory=None, axis_name=None
):
  """Contrastive loss: d^2 / 2 of positives, [margin - d]+^2 / 2 of negatives.

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    margin: distance at which negatives are left alone.
    c: curvature of the distance; None for the Euclidean distance of directions.
    where: bool `[b]`, the rows that count; None for all.
    memory: rows of past batches to compare with, too (`losses.memory`).
    axis_name: see `losses.sharding`.

  Returns:
    scalar, the mean over all pairs.

  References:
    Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an
    Invariant Mapping" (CVPR 2006), equation 4.
  """
  z, others, positive, negative = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  distance = _batch.distance(z, others, c)
  short = jax.nn.relu(margin - distance)
  energy = jnp.where(positive, distance**2, short**2) / 2
  return _sharding.masked_mean(energy, positive | negative, axis_name)


def lifted_structure(
  z, labels, *, margin=1.0, c=None, where=None, memory=None, axis_name=None
):
  """Lifted structured loss.

  1/2 the mean over positive pairs of [J]+^2,
  J_ij = d_ij + log(sum_{k not of i} e^(margin - d_ik)
                    + sum_{l not of j} e^(margin - d_jl)),

  i and l among the batch's rows, j and k also among the memory's.

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    margin: alpha of the paper.
    c: curvature of the distance; None for the Euclidean distance of directions.
    where: bool `[b]`, the rows that count; None for all.
    memory: rows of past batches to compare with, too (`losses.memory`).
    axis_name: see `losses.sharding`.

  Returns:
    scalar.

  References:
    Oh Song et al., "Deep Metric Learning via Lifted Structured Feature
    Embedding" (CVPR 2016, arXiv 1511.06452), equation 4.
  """
  z, others, positive, negative = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  distance = _batch.distance(z, others, c)
  of_anchor = _sharding.logsumexp(margin - distance, negative)
  of_other = _sharding.logsumexp(
    margin - distance, negative, axis=0, axis_name=axis_name
  )
  pushed = jnp.logaddexp(of_anchor[:, None], of_other[None])
  used = positive & (pushed > jnp.finfo(pushed.dtype).min)
  excess = jax.nn.relu(jnp.where(used, distance + pushed, 0))
  return _sharding.masked_mean(excess**2, used, axis_name) / 2


def multi_similarity(
  z,
  labels,
  *,
  alpha=2.0,
  beta=50.0,
  base=0.5,
  mining=None,
  c=None,
  where=None,
  memory=None,
  axis_name=None,
):
  """Multi-Similarity loss.

  The mean over rows of 1/alpha log(1 + sum_positives e^(-alpha (s - base)))
  + 1/beta log(1 + sum_negatives e^(beta (s - base))).

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    alpha: scale of the positives.
    beta: scale of the negatives.
    base: lambda of the paper.
    mining: epsilon of the paper's miner, which keeps negatives more similar
      than the least similar positive less epsilon, and positives less similar
      than the most similar negative plus epsilon (paper: 0.1); None keeps all
      pairs.
    c: curvature; the similarity is then minus the distance. None for cosine.
    where: bool `[b]`, the rows that count; None for all.
    memory: rows of past batches to compare with, too (`losses.memory`).
    axis_name: see `losses.sharding`.

  Returns:
    scalar.

  References:
    Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep
    Metric Learning" (CVPR 2019, arXiv 1904.06627), equations 11 to 15.
  """
  z, others, positive, negative = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  rows = jnp.any(positive | negative, 1)
  s = _batch.similarity(z, others, c)
  if mining is not None:
    hardest = jnp.max(s, 1, keepdims=True, where=negative, initial=-jnp.inf)
    easiest = jnp.min(s, 1, keepdims=True, where=positive, initial=jnp.inf)
    positive, negative = (
      positive & (s < hardest + mining),
      negative & (s > easiest - mining),
    )
  pull = _sharding.logsumexp(-alpha * (s - base), positive)
  push = _sharding.logsumexp(beta * (s - base), negative)
  loss = jax.nn.softplus(pull) / alpha + jax.nn.softplus(push) / beta
  return _sharding.masked_mean(loss, rows, axis_name)


def sup_con(
  z, labels, *, temperature=0.1, c=None, where=None, memory=None, axis_name=None
):
  """Supervised contrastive loss.

  The mean over rows with a positive of the mean over its positives p of
  -log(e^(s_p / t) / sum_{a != row} e^(s_a / t)).

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    temperature: t.
    c: curvature; the similarity is then minus the distance. None for cosine.
    where: bool `[b]`, the rows that count; None for all.
    memory: rows of past batches to compare with, too (`losses.memory`).
    axis_name: see `losses.sharding`.

  Returns:
    scalar.

  References:
    Khosla et al., "Supervised Contrastive Learning" (NeurIPS 2020, arXiv
    2004.11362), equation 2.
  """
  z, others, positive, negative = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  logits = _batch.similarity(z, others, c) / temperature
  count = jnp.sum(positive, 1)
  mean = jnp.sum(jnp.where(positive, logits, 0), 1) / jnp.maximum(count, 1)
  loss = _sharding.logsumexp(logits, positive | negative) - mean
  return _sharding.masked_mean(loss, count > 0, axis_name)


def n_pair(
  z,
  labels,
  *,
  temperature=0.1,
  c=None,
  where=None,
  memory=None,
  axis_name=None,
):
  """Multi-class N-pair loss.

  The mean over positive pairs (i, p) of
  log(1 + sum_{k not of i} e^((s_ik - s_ip) / t)).

  The paper takes one pair of each class, inner products, and a penalty on their
  squared norms, since cosines without a temperature cannot reach a small loss.
  Here they have one and lengths do not count, hence there is no penalty.

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    temperature: t.
    c: curvature; the similarity is then minus the distance. None for cosine.
    where: bool `[b]`, the rows that count; None for all.
    memory: rows of past batches to compare with, too (`losses.memory`).
    axis_name: see `losses.sharding`.

  Returns:
    scalar; a positive pair whose anchor has no negatives counts as 0.

  References:
    Sohn, "Improved Deep Metric Learning with Multi-class N-pair Loss Objective"
    (NeurIPS 2016), equation 7.
  """
  z, others, positive, negative = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  logits = _batch.similarity(z, others, c) / temperature
  push = _sharding.logsumexp(logits, negative)[:, None]
  return _sharding.masked_mean(
    jax.nn.softplus(push - logits), positive, axis_name
  )


def circle(
  z, labels, *, scale=80.0, margin=0.4, where=None, memory=None, axis_name=None
):
  """Circle loss, of cosines s.

  The mean over rows with positives and negatives of
  log(1 + sum_n e^(scale [s_n + margin]+ (s_n - margin))
          sum_p e^(-scale [1 + margin - s_p]+ (s_p - 1 + margin))),
  the weights [.]+ not differentiated.

  Args:
    z: `[b, d]` embeddings; only their directions count.
    labels: int `[b]`.
    scale: gamma of the paper.
    margin: m of the paper.
    where: bool `[b]`, the rows that count; None for all.
    memory: rows of past batches to compare with, too (`losses.memory`).
    axis_name: see `losses.sharding`.

  Returns:
    scalar.

  References:
    Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity
    Optimization" (CVPR 2020, arXiv 2002.10857), equations 6 to 8.
  """
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


def hyp(z, *, temperature=0.2, c=0.1, where=None, axis_name=None):
  """Pairwise cross-entropy of Hyp, over every ordered pair of views.

  For views a and b of sample i, with similarity s:
  -log(e^(s(a_i, b_i) / t)
       / (sum_j e^(s(a_i, b_j) / t) + sum_{j != i} e^(s(a_i, a_j) / t))).

  It takes no memory: a memory's rows are no views of the batch's samples.

  Args:
    z: `[n, v, d]`, v >= 2 views, such as images of a class, of n samples of
      different classes (points of the ball with c).
    temperature: t.
    c: curvature; the similarity is minus the distance. None for cosine.
    where: bool `[n]`, the samples that count; None for all.
    axis_name: see `losses.sharding`.

  Returns:
    scalar, the mean over samples and ordered pairs of views. The
    authors' program divides by v^2 instead of v (v - 1).

  Raises:
    ValueError: for fewer than two views.

  References:
    Ermolov et al., "Hyperbolic Vision Transformers: Combining Improvements in
    Metric Learning" (CVPR 2022, arXiv 2203.10833), equation 6.
  """
  if z.ndim != 3 or z.shape[1] < 2:
    raise ValueError(f'z must be [n, v, d] with v >= 2 views, got {z.shape}')
  samples, views, dim = z.shape
  where = _sharding.mask_of(where, z)
  flat = numerics.widened(jnp.asarray(z)).reshape(-1, dim)
  others, counts = (_sharding.gather(a, axis_name) for a in (flat, where))
  logits = _batch.similarity(flat, others, c) / temperature
  logits = logits.reshape(samples, views, -1, views)
  index, _ = _sharding.position(axis_name)
  sample = jnp.arange(samples, dtype=jnp.int32)
  itself = index * samples + sample
  target = logits[sample, :, itself]  # [n, v, v]
  counts = jnp.broadcast_to(counts[None, None, :, None], logits.shape)
  across = _sharding.logsumexp(logits, counts, 2)
  other = jnp.arange(logits.shape[2], dtype=jnp.int32)
  apart = itself[:, None] != other[None]
  within = _sharding.logsumexp(logits, counts & apart[:, None, :, None], 2)
  view = jnp.arange(views, dtype=jnp.int32)
  total = jnp.logaddexp(across, within[:, view, view][..., None])
  used = (view[:, None] != view[None])[None] & where[:, None, None]
  return _sharding.masked_mean(total - target, used, axis_name)
