"""Losses over the pairs of a batch.

Each takes embeddings `[b, d]` and labels, and compares rows by a similarity:
the cosine, or with a curvature `c` minus the hyperbolic distance of points of
the ball. A row is never a pair with itself. Rows where `where` is false, and
anchors without the pairs a loss asks for, do not count; where nothing counts
the loss is 0 and so is its gradient.
"""

import chex
import jax
import jax.numpy as jnp

from hier_jax import poincare
from hier_jax.losses import sharding
from hier_jax.losses.proxy import cosine_similarity, masked_mean
from hier_jax.poincare import numerics

__all__ = [
  'circle',
  'contrastive',
  'hyp',
  'lifted_structure',
  'multi_similarity',
  'sup_con',
  'triplet',
]


def _pairs(z, labels, where, axis_name):
  """The whole batch's rows, and which pairs of them are positive, negative."""
  chex.assert_rank([z, labels], [2, 1])
  z, labels, where = sharding.gather_rows((z, labels), where, axis_name)
  same = labels[:, None] == labels[None]
  counts = where[:, None] & where[None]
  others = ~jnp.eye(labels.shape[0], dtype=bool)
  return z.astype(jnp.float32), counts & same & others, counts & ~same


def _similarity(z, c):
  if c is None:
    return cosine_similarity(z, z)
  return -poincare.dist_matrix(z, z, c=c)


def _distance(z, c):
  """Euclidean distances of the directions, or hyperbolic ones."""
  if c is not None:
    return poincare.dist_matrix(z, z, c=c)
  unit = numerics.unit(z)
  return poincare.dist_matrix(unit, unit, c=0) / 2


def _logsumexp(logits, where, axis=1):
  """Over the places where it is true; the least float where there are none."""
  least = jnp.finfo(logits.dtype).min
  any_place = jnp.any(where, axis)
  # An all-masked row has no derivative: it sees zeros, and is put aside.
  masked = jnp.where(where, logits, least)
  masked = jnp.where(jnp.expand_dims(any_place, axis), masked, 0)
  return jnp.where(any_place, jax.nn.logsumexp(masked, axis), least)


def contrastive(z, labels, *, margin=0.5, c=None, where=None, axis_name=None):
  """Contrastive loss: d^2 / 2 of positives, [margin - d]+^2 / 2 of negatives.

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    margin: distance at which negatives are left alone.
    c: curvature of the distance; None for the Euclidean distance of directions.
    where: bool `[b]`, the rows that count; None for all.
    axis_name: see `losses.hier`.

  Returns:
    float32 scalar, the mean over all pairs.

  References:
    Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an
    Invariant Mapping" (CVPR 2006), equation 4.
  """
  z, positive, negative = _pairs(z, labels, where, axis_name)
  distance = _distance(z, c)
  short = jax.nn.relu(margin - distance)
  energy = jnp.where(positive, distance**2, short**2) / 2
  return masked_mean(energy, positive | negative)


def lifted_structure(
  z, labels, *, margin=1.0, c=None, where=None, axis_name=None
):
  """Lifted structured loss.

  1/2 the mean over positive pairs of [J]+^2,
  J_ij = d_ij + log(sum_{k not of i} e^(margin - d_ik)
                    + sum_{l not of j} e^(margin - d_jl)).

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    margin: alpha of the paper.
    c: curvature of the distance; None for the Euclidean distance of directions.
    where: bool `[b]`, the rows that count; None for all.
    axis_name: see `losses.hier`.

  Returns:
    float32 scalar.

  References:
    Oh Song et al., "Deep Metric Learning via Lifted Structured Feature
    Embedding" (CVPR 2016, arXiv 1511.06452), equation 4.
  """
  z, positive, negative = _pairs(z, labels, where, axis_name)
  distance = _distance(z, c)
  pushed = _logsumexp(margin - distance, negative)
  has_negatives = jnp.any(negative, 1)
  pushed = jnp.where(has_negatives, pushed, -1e30)
  excess = distance + jnp.logaddexp(pushed[:, None], pushed[None])
  used = positive & (has_negatives[:, None] | has_negatives[None])
  excess = jnp.where(used, excess, 0)
  return masked_mean(jax.nn.relu(excess) ** 2, used) / 2


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
    axis_name: see `losses.hier`.

  Returns:
    float32 scalar.

  References:
    Wang et al., "Multi-Similarity Loss with General Pair Weighting for Deep
    Metric Learning" (CVPR 2019, arXiv 1904.06627), equations 11 to 15.
  """
  z, positive, negative = _pairs(z, labels, where, axis_name)
  rows = jnp.any(positive | negative, 1)
  s = _similarity(z, c)
  if mining is not None:
    hardest = jnp.max(s, 1, keepdims=True, where=negative, initial=-jnp.inf)
    easiest = jnp.min(s, 1, keepdims=True, where=positive, initial=jnp.inf)
    positive, negative = (
      positive & (s < hardest + mining),
      negative & (s > easiest - mining),
    )
  pull = jax.nn.softplus(_logsumexp(-alpha * (s - base), positive)) / alpha
  push = jax.nn.softplus(_logsumexp(beta * (s - base), negative)) / beta
  return masked_mean(pull + push, rows)


def sup_con(z, labels, *, temperature=0.1, c=None, where=None, axis_name=None):
  """Supervised contrastive loss.

  The mean over rows with a positive of the mean over its positives p of
  -log(e^(s_p / t) / sum_{a != row} e^(s_a / t)).

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    temperature: t.
    c: curvature; the similarity is then minus the distance. None for cosine.
    where: bool `[b]`, the rows that count; None for all.
    axis_name: see `losses.hier`.

  Returns:
    float32 scalar.

  References:
    Khosla et al., "Supervised Contrastive Learning" (NeurIPS 2020, arXiv
    2004.11362), equation 2.
  """
  z, positive, negative = _pairs(z, labels, where, axis_name)
  logits = _similarity(z, c) / temperature
  count = jnp.sum(positive, 1)
  mean = jnp.sum(jnp.where(positive, logits, 0), 1) / jnp.maximum(count, 1)
  return masked_mean(_logsumexp(logits, positive | negative) - mean, count > 0)


def circle(z, labels, *, scale=80.0, margin=0.4, where=None, axis_name=None):
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
    axis_name: see `losses.hier`.

  Returns:
    float32 scalar.

  References:
    Sun et al., "Circle Loss: A Unified Perspective of Pair Similarity
    Optimization" (CVPR 2020, arXiv 2002.10857), equations 6 to 8.
  """
  z, positive, negative = _pairs(z, labels, where, axis_name)
  s = cosine_similarity(z, z)
  fixed = jax.lax.stop_gradient(s)
  push = scale * jax.nn.relu(fixed + margin) * (s - margin)
  pull = -scale * jax.nn.relu(1 + margin - fixed) * (s - 1 + margin)
  rows = jnp.any(positive, 1) & jnp.any(negative, 1)
  total = _logsumexp(push, negative) / 2 + _logsumexp(pull, positive) / 2
  total = jnp.where(rows, 2 * total, 0)
  return masked_mean(jax.nn.softplus(total), rows)


def hyp(z, *, temperature=0.2, c=0.1, where=None, axis_name=None):
  """Pairwise cross-entropy of Hyp, over every ordered pair of views.

  For views a and b of sample i, with similarity s:
  -log(e^(s(a_i, b_i) / t)
       / (sum_j e^(s(a_i, b_j) / t) + sum_{j != i} e^(s(a_i, a_j) / t))).

  Args:
    z: `[n, v, d]`, v >= 2 views, such as images of a class, of n samples of
      different classes (points of the ball with c).
    temperature: t.
    c: curvature; the similarity is minus the distance. None for cosine.
    where: bool `[n]`, the samples that count; None for all.
    axis_name: see `losses.hier`.

  Returns:
    float32 scalar, the mean over samples and ordered pairs of views. The
    authors' program divides by v^2 instead of v (v - 1).

  Raises:
    ValueError: for fewer than two views.

  References:
    Ermolov et al., "Hyperbolic Vision Transformers: Combining Improvements in
    Metric Learning" (CVPR 2022, arXiv 2203.10833), equation 6.
  """
  chex.assert_rank(z, 3)
  if z.shape[1] < 2:
    raise ValueError(f'z must be [n, v, d] with v >= 2 views, got {z.shape}')
  z, where = sharding.gather_rows((z,), where, axis_name)
  samples, views, dim = z.shape
  flat = z.astype(jnp.float32).reshape(-1, dim)
  logits = _similarity(flat, c) / temperature
  logits = logits.reshape(samples, views, samples, views)
  diagonal = jnp.arange(samples)
  target = logits[diagonal, :, diagonal]  # [n, v, v]
  counts = jnp.broadcast_to(where[None, None, :, None], logits.shape)
  across = _logsumexp(logits, counts, 2)
  itself = (diagonal[:, None] == diagonal[None])[:, None, :, None]
  within = _logsumexp(logits, counts & ~itself, 2)
  view = jnp.arange(views)
  total = jnp.logaddexp(across, within[:, view, view][..., None])
  apart = (view[:, None] != view[None])[None] & where[:, None, None]
  return masked_mean(total - target, apart)


def _batch_hard(distance, positive, negative):
  """Per anchor `[b, 1]`: farthest positive, nearest negative, which count."""
  far = jnp.max(distance, 1, where=positive, initial=0)
  near = jnp.min(distance, 1, where=negative, initial=jnp.inf)
  counts = jnp.any(positive, 1) & jnp.any(negative, 1)
  return far[:, None], jnp.where(counts, near, 0)[:, None], counts[:, None]


def _semi_hard(distance, positive, negative):
  """Per pair `[b, b]`: the nearest negative beyond the positive, or the last.

  An anchor at a time, so that nothing of size b^3 is held.
  """

  def one(row):
    d, negatives = row
    beyond = negatives[None] & (d[None] > d[:, None])
    to_all = jnp.broadcast_to(d[None], beyond.shape)
    near = jnp.min(to_all, 1, where=beyond, initial=jnp.inf)
    last = jnp.max(d, where=negatives, initial=0)
    return jnp.where(jnp.any(beyond, 1), near, last)

  chosen = jax.lax.map(jax.checkpoint(one), (distance, negative))
  return distance, chosen, positive & jnp.any(negative, 1)[:, None]


def triplet(
  z,
  labels,
  *,
  margin=0.2,
  mining='semi_hard',
  squared=False,
  c=None,
  where=None,
  axis_name=None,
):
  """Triplet loss: the mean of [d(a, p) - d(a, n) + margin]+.

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    margin: alpha of the paper.
    mining: 'all' takes all triplets; 'semi_hard' for each positive pair the
      nearest negative that is farther than the positive, or else the farthest
      negative (Schroff et al.); 'hard' for each anchor its farthest positive
      and nearest negative (Hermans et al., equation 5).
    squared: whether d is the squared distance, as Schroff et al. have it.
    c: curvature of the distance; None for the Euclidean distance of directions.
    where: bool `[b]`, the rows that count; None for all.
    axis_name: see `losses.hier`.

  Returns:
    float32 scalar, the mean over the triplets taken, those at 0 included.

  Raises:
    ValueError: for an unknown `mining`.

  References:
    Schroff, Kalenichenko and Philbin, "FaceNet" (CVPR 2015, arXiv 1503.03832),
    equation 3; Hermans, Beyer and Leibe, "In Defense of the Triplet Loss for
    Person Re-Identification" (arXiv 1703.07737).
  """
  z, positive, negative = _pairs(z, labels, where, axis_name)
  distance = _distance(z, c)
  distance = distance**2 if squared else distance
  if mining == 'all':
    return _all_triplets(distance, positive, negative, margin)
  pick = {'semi_hard': _semi_hard, 'hard': _batch_hard}.get(mining)
  if pick is None:
    raise ValueError(
      f"mining is {mining!r}, expected 'all', 'semi_hard' or 'hard'"
    )
  far, near, counts = pick(distance, positive, negative)
  return masked_mean(jax.nn.relu(far - near + margin), counts)


def _all_triplets(distance, positive, negative, margin):
  """The mean over all triplets, an anchor at a time."""

  def one(row):
    d, positives, negatives = row
    counts = positives[:, None] & negatives[None]
    excess = jax.nn.relu(d[:, None] - d[None] + margin)
    return jnp.sum(jnp.where(counts, excess, 0)), jnp.sum(counts)

  sums, counts = jax.lax.map(
    jax.checkpoint(one), (distance, positive, negative)
  )
  return jnp.sum(sums) / jnp.maximum(jnp.sum(counts.astype(sums.dtype)), 1)
