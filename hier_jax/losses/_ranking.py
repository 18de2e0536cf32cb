"""Losses that rank: smooth stand-ins for the scores of retrieval.

Each takes embeddings `[b, d]` and labels. A row is a query, and its gallery is
all other rows and those of a memory, ranked by their score: the cosine with
`c=None`, or with a curvature minus the distance of `poincare.dist`: of points
of the ball for c > 0, Euclidean at 0. Rows where `where` is false do not
count, and neither do queries of whose class the gallery has no item; where
nothing counts the loss is 0 and so is its gradient.

Every item of a query's class has a rank, which is a sum over the gallery. Those
`[b, n, n]` terms are never held: the losses rank one item of all queries at a
time, forwards and backwards. Memory is that of some tables `[b, n]`; time grows
with b n m, m being the most items that a query of the batch has to rank. There
are first derivatives only, and in reverse mode only.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from hier_jax.losses import _batch, _checks, _sharding

__all__ = ['hap', 'recall_at_k', 'roadmap', 'smooth_ap', 'sup_ap']


# ---- a sum over the items of a query ----------------------------------------


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _sum_over_items(term, width, scores, options, tables, number):
  """Sum `[b, width]` of `term(scores, options, tables, item)` over the items.

  Args:
    term: to `[b, width]`, item being bool `[b, n]`, one place of each row or
      none, whose term is left out.
    width: number of values of a term.
    scores: `[b, n]`.
    options: floats.
    tables: arrays that have no derivative.
    number: int `[b, n]`, the items of a row numbered from 0, and -1 elsewhere.
  """

  def add(step, total):
    item = number == step
    value = term(scores, options, tables, item)
    return total + jnp.where(jnp.any(item, 1, keepdims=True), value, 0)

  start = jnp.zeros_like(scores, shape=(scores.shape[0], width))
  return lax.fori_loop(0, jnp.max(number, initial=-1) + 1, add, start)


def _sum_forward(term, width, *inputs):
  return _sum_over_items(term, width, *inputs), inputs


def _sum_backward(term, width, inputs, cotangent):
  """Ranks each item again, so that none of its terms had to be kept."""
  scores, options, tables, number = inputs

  def add(step, total):
    item = number == step
    _, pull = jax.vjp(lambda *x: term(*x, tables, item), scores, options)
    slopes = pull(jnp.where(jnp.any(item, 1, keepdims=True), cotangent, 0))
    return jax.tree.map(jnp.add, total, slopes)

  start = jax.tree.map(jnp.zeros_like, (scores, options))
  stop = jnp.max(number, initial=-1) + 1
  return *lax.fori_loop(0, stop, add, start), None, None


_sum_over_items.defvjp(_sum_forward, _sum_backward)


# Outside of `jit` each call would compile its loop anew.
@functools.partial(jax.jit, static_argnames=('term', 'width'))
def _over_items(term, scores, options, tables, items, width=1):
  """`_sum_over_items` at the places where `items`, bool `[b, n]`, is true."""
  options = jax.tree.map(lambda x: jnp.asarray(x, scores.dtype), options)
  number = jnp.where(items, jnp.cumsum(items, 1, dtype=jnp.int32) - 1, -1)
  return _sum_over_items(term, width, scores, options, tables, number)


def _of_item(table, item):
  """The item's entry `[b, 1]` of a table `[b, n]`."""
  return jnp.sum(jnp.where(item, table, 0), 1, keepdims=True)


def _scored(z, labels, c, where, memory, axis_name):
  """Scores `[b, n]`, which are of the query's class, and which count at all."""
  batch = _batch.make(
    z, labels, where=where, memory=memory, axis_name=axis_name
  )
  scores = _batch.similarity(batch.anchors, batch.others, c)
  return scores, batch.positive, batch.positive | batch.negative


# ---- ranks made of sigmoids -------------------------------------------------


def _smooth_counts(scores, temperature, among, item):
  """sum_j sigmoid((s_j - s_item) / temperature), `[b, 1]`.

  For each table of `among`, which says over which j; never over the item.
  """
  above = jax.nn.sigmoid((scores - _of_item(scores, item)) / temperature)
  count = lambda j: jnp.sum(jnp.where(j & ~item, above, 0), 1, keepdims=True)
  return [count(j) for j in among]


def _smooth_precision(scores, temperature, tables, item):
  """rank(i, P) / rank(i, G), with a slope of exactly 0 where P is all of G."""
  own, others = _smooth_counts(scores, temperature, tables, item)
  return 1 / (1 + others / (1 + own))


def smooth_ap(
  z,
  labels,
  *,
  temperature=0.01,
  c=None,
  where=None,
  memory=None,
  axis_name=None,
):
  """Smooth-AP: 1 - the mean average precision, with ranks made of sigmoids.

  With the scores s of a query, P the items of its class and all its gallery G,

    AP = 1/|P| sum_{i in P} rank(i, P) / rank(i, G),
    rank(i, S) = 1 + sum_{j in S, j != i} sigmoid((s_j - s_i) / temperature).

  The query is no item of its own gallery; in the authors' program it is.

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    temperature: tau of the paper.
    c: curvature; the score is then minus the distance. None for cosine.
    where: bool `[b]`, the rows that count; None for all.
    memory: `losses.Memory` whose rows join the gallery; None for none.
    axis_name: mapped axis over whose devices the batch is spread; see
      `losses.sharding`.

  Returns:
    scalar, the mean over queries of 1 - AP.

  References:
    Brown et al., "Smooth-AP: Smoothing the Path Towards Large-Scale Image
    Retrieval" (ECCV 2020, arXiv 2007.12163), section 3.
  """
  scores, positive, gallery = _scored(z, labels, c, where, memory, axis_name)
  precision = _over_items(
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


def _smooth_recall(scores, options, gallery, item):
  temperature, rank_temperature, ks = options
  (above,) = _smooth_counts(scores, temperature, (gallery,), item)
  return jax.nn.sigmoid((ks[None] - 1 - above) / rank_temperature[None])


def recall_at_k(
  z,
  labels,
  *,
  ks=(1, 2, 4, 8, 16),
  temperature=0.01,
  rank_temperature=1.0,
  c=None,
  where=None,
  memory=None,
  axis_name=None,
):
  """Recall@k surrogate: 1 - a smooth recall, the mean of those at several k.

  With the scores s of a query and P the items of its class,

    recall = min(k, sum_{i in P} sigmoid((k - rank(i)) / rank_temperature))
             / min(k, |P|),
    rank(i) = 1 + sum_{j != i} sigmoid((s_j - s_i) / temperature).

  An item whose rank is k counts by half, as sigmoid(0). Dividing by min(k, |P|)
  and the bound by k, which keep a recall in 0..1, are of the authors' program,
  which has rank_temperature = ks. SiMix is not part of it.

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    ks: the k, each at least 1.
    temperature: tau_2 of the paper, of scores.
    rank_temperature: tau_1 of the paper, of ranks: one, or one for each k.
    c: see `smooth_ap`.
    where: see `smooth_ap`.
    memory: see `smooth_ap`.
    axis_name: see `smooth_ap`.

  Returns:
    scalar, the mean over queries and k of 1 - recall.

  Raises:
    ValueError: for no k, a k below 1, or another number of rank_temperature.

  References:
    Patel, Tolias and Matas, "Recall@k Surrogate Loss with Large Batches and
    Similarity Mixup" (CVPR 2022, arXiv 2108.11179), section 3.
  """
  if not ks or min(ks) < 1:
    raise ValueError(f'ks is {ks!r}, expected one or more k of at least 1')
  if np.shape(rank_temperature) not in ((), (len(ks),)):
    raise ValueError(
      f'rank_temperature has shape {np.shape(rank_temperature)}, expected a'
      f' number or {len(ks)} of them, one for each k'
    )
  scores, positive, gallery = _scored(z, labels, c, where, memory, axis_name)
  rank_temperature = jnp.asarray(rank_temperature, scores.dtype)
  rank_temperature = jnp.broadcast_to(rank_temperature, (len(ks),))
  ks = jnp.asarray(ks, scores.dtype)
  found = _over_items(
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


# ---- ranks bounded from above -----------------------------------------------


def _bounded_precision(scores, options, tables, item):
  """Hierarchical precision at an item, of a rank that is never too small.

  Items of lower level than it count by the smooth bound of the Heaviside
  function, all others by that function itself, which has no gradient.
  """
  temperature, slope, delta = options
  level, relevance, gallery = tables
  above = scores - _of_item(scores, item)
  bound = jax.nn.sigmoid(jnp.minimum(above, delta) / temperature)
  bound += 0.5 * (above >= 0).astype(above.dtype)
  bound += slope * jax.nn.relu(above - delta)
  ahead = gallery & ~item & (above >= 0)
  lower = gallery & (level < _of_item(level, item))
  own = _of_item(relevance, item)
  shared = jnp.where(ahead, jnp.minimum(relevance, own), 0)
  rank = 1 + jnp.sum(jnp.where(lower, bound, ahead), 1, keepdims=True)
  return (own + jnp.sum(shared, 1, keepdims=True)) / rank


def _bounded_ap(scores, level, relevance, gallery, options, axis_name):
  """1 - the mean over queries of the bounded hierarchical AP."""
  precision = _over_items(
    _bounded_precision,
    scores,
    options,
    (level, relevance, gallery),
    level > 0,
  )
  total = jnp.sum(relevance, 1)
  ap = precision[:, 0] / jnp.where(total > 0, total, 1)
  return _sharding.masked_mean(1 - ap, total > 0, axis_name)


def _bounded_flat_ap(table, options, axis_name):
  """`_bounded_ap` of what `_scored` returns: one level, items all alike."""
  scores, positive, gallery = table
  level, relevance = (positive.astype(t) for t in (jnp.int32, scores.dtype))
  return _bounded_ap(scores, level, relevance, gallery, options, axis_name)


def sup_ap(
  z,
  labels,
  *,
  temperature=0.01,
  slope=100.0,
  delta=0.05,
  c=None,
  where=None,
  memory=None,
  axis_name=None,
):
  """SupAP: an upper bound of 1 - the mean average precision.

  With the scores s of a query, P the items of its class and N all others,

    AP = 1/|P| sum_{i in P} r(i) / (r(i) + sum_{j in N} H(s_j - s_i)),
    r(i) = 1 + #{j in P, j != i: s_j >= s_i}, not differentiated,
    H(t) = sigmoid(t / temperature)                                  for t < 0,
           sigmoid(t / temperature) + 1/2               for 0 <= t <= delta,
           slope (t - delta) + sigmoid(delta / temperature) + 1/2    beyond.

  H is the paper's, continuous at delta; the authors' program has 1.44 for
  sigmoid(delta / temperature) + 1/2 = 1.493. At t = 0 it is 1, so that a tie
  counts against the item and the bound holds.

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    temperature: tau of the paper.
    slope: rho of the paper.
    delta: delta of the paper, where the sigmoid has become flat.
    c: see `smooth_ap`.
    where: see `smooth_ap`.
    memory: see `smooth_ap`.
    axis_name: see `smooth_ap`.

  Returns:
    scalar, the mean over queries of 1 - AP.

  References:
    Ramzi et al., "Robust and Decomposable Average Precision for Image
    Retrieval" (NeurIPS 2021, arXiv 2110.01445), section 3.
  """
  table = _scored(z, labels, c, where, memory, axis_name)
  return _bounded_flat_ap(table, (temperature, slope, delta), axis_name)


def _calibration(table, margins, axis_name):
  """Mean over queries of the means of [alpha - s]+ and of [s - beta]+."""
  scores, positive, gallery = table
  alpha, beta = margins

  def mean(short, where):
    summed = jnp.sum(jnp.where(where, jax.nn.relu(short), 0), 1)
    return summed / jnp.maximum(jnp.sum(where, 1), 1)

  energy = mean(alpha - scores, positive)
  energy += mean(scores - beta, gallery & ~positive)
  return _sharding.masked_mean(energy, jnp.any(positive, 1), axis_name)


def roadmap(
  z,
  labels,
  *,
  weight=0.1,
  margins=None,
  temperature=0.01,
  slope=100.0,
  delta=0.05,
  c=None,
  where=None,
  memory=None,
  axis_name=None,
):
  """ROADMAP: (1 - weight) `sup_ap` + weight times the calibration loss.

  That loss makes scores of different queries comparable, and so the batch's AP
  that of all data: the mean over queries of 1/|P| sum_{i in P} [alpha - s_i]+
  + 1/|N| sum_{j in N} [s_j - beta]+. The authors' program takes the means over
  the batch's pairs that are not at 0 instead.

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b]`.
    weight: lambda of the paper; 0.1 is of the authors' later program, the first
      has 1/2.
    margins: alpha and beta of the paper, (0.9, 0.6) with None; with c they are
      of minus the distance and must be given.
    temperature: see `sup_ap`.
    slope: see `sup_ap`.
    delta: see `sup_ap`.
    c: see `smooth_ap`.
    where: see `smooth_ap`.
    memory: see `smooth_ap`.
    axis_name: see `smooth_ap`.

  Returns:
    scalar.

  Raises:
    ValueError: for a curvature without margins.

  References:
    Ramzi et al., "Robust and Decomposable Average Precision for Image
    Retrieval" (NeurIPS 2021, arXiv 2110.01445), section 3.
  """
  if margins is None and c is not None:
    raise ValueError(
      'margins must be given with a curvature: they are of minus the distance'
    )
  table = _scored(z, labels, c, where, memory, axis_name)
  rank = _bounded_flat_ap(table, (temperature, slope, delta), axis_name)
  calibration = _calibration(table, margins or (0.9, 0.6), axis_name)
  return (1 - weight) * rank + weight * calibration


# ---- ranks in a hierarchy ---------------------------------------------------


def _common_levels(labels, memory, axis_name):
  """How many of their first labels a row and one of all share, `[b, n]`."""
  classes = _sharding.gather(labels, axis_name)
  if memory is not None:
    _checks.shape('memory.labels', memory.labels, None, labels.shape[1])
    classes = jnp.concatenate([classes, memory.labels])
  same = jnp.ones((labels.shape[0], classes.shape[0]), bool)
  level = jnp.zeros(same.shape, jnp.int32)
  for mine, theirs in zip(labels.T, classes.T, strict=True):
    same &= mine[:, None] == theirs[None]
    level += same
  return level


def _relevance(level, depth, alpha, dtype):
  """(l / depth)^alpha over the number of the row's items at level l, or 0."""
  relevance = jnp.zeros(level.shape, dtype)
  for height in range(1, depth + 1):
    here = level == height
    count = jnp.maximum(jnp.sum(here, 1, keepdims=True, dtype=dtype), 1)
    relevance = jnp.where(here, (height / depth) ** alpha / count, relevance)
  return relevance


def hap(
  z,
  labels,
  *,
  alpha=1.0,
  temperature=0.01,
  slope=100.0,
  delta=0.05,
  c=None,
  where=None,
  memory=None,
  axis_name=None,
):
  """HAPPIER's loss: an upper bound of 1 - the hierarchical AP.

  An item is at level l of a query if they have their first l labels in common.
  With the scores s of a query, its items at l > 0, L levels, n_l items at l,

    rel(i) = (l / L)^alpha / n_l,
    H-AP = sum_i H-rank(i) / rank(i) / sum_i rel(i),
    H-rank(i) = rel(i) + sum_{j != i: s_j >= s_i} min(rel(i), rel(j)),
    rank(i) = 1 + #{j != i of no lower level: s_j >= s_i}
              + sum_{j of lower level} H(s_j - s_i), H as in `sup_ap`.

  Only the last sum has a gradient, as in the authors' program. With one level
  it is `sup_ap`. The paper adds a clustering loss over the finest classes, for
  which: 0.9 hap(z, labels) + 0.1 normalized_softmax(z, labels[:, -1], proxies).

  Args:
    z: `[b, d]` embeddings (points of the ball with c).
    labels: int `[b, L]`, coarsest level first (the authors' have it last). A
      label may mean another class below another parent.
    alpha: exponent of the relevance; the greater, the less coarse levels count.
    temperature: see `sup_ap`.
    slope: see `sup_ap`.
    delta: see `sup_ap`.
    c: see `smooth_ap`.
    where: see `smooth_ap`.
    memory: see `smooth_ap`; its labels are `[m, L]`.
    axis_name: see `smooth_ap`.

  Returns:
    scalar, the mean over queries of 1 - H-AP.

  References:
    Ramzi et al., "Hierarchical Average Precision Training for Pertinent Image
    Retrieval" (ECCV 2022, arXiv 2207.04873), section 3.
  """
  _checks.rows(z, labels, ranks=(2, 2))
  labels = jnp.asarray(labels)
  level = _common_levels(labels, memory, axis_name)
  if memory is not None:
    memory = memory._replace(labels=memory.labels[:, 0])
  scores, positive, gallery = _scored(
    z, labels[:, 0], c, where, memory, axis_name
  )
  level = jnp.where(positive, level, 0)
  relevance = _relevance(level, labels.shape[1], alpha, scores.dtype)
  options = (temperature, slope, delta)
  return _bounded_ap(scores, level, relevance, gallery, options, axis_name)
