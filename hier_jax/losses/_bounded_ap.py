"""Losses that bound 1 - average precision from above.

Each takes embeddings `[b, d]` and labels. Each row is a query. Its gallery is
all other rows and the rows of the memory, ranked by a score: the cosine with
`c=None`, else minus `poincare.dist`, which takes points of the ball for c > 0
and is Euclidean at c = 0. Rows where `where` is false do not count, nor do
queries without an item of their class in the gallery. If nothing counts, the
loss and its gradient are 0. `_items` says what these losses cost.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Array, Bool, Float, Integer, Real

from hier_jax import numerics
from hier_jax.losses import _checks, _items, _sharding
from hier_jax.losses._memory import Memory

__all__ = ['hap', 'roadmap', 'sup_ap']


def _bounded_precision(
  scores: jax.Array,
  options: tuple[jax.Array, ...],
  tables: tuple[jax.Array, ...],
  item: jax.Array,
) -> jax.Array:
  """Hierarchical precision at an item, of a rank that is never too small.

  Items of lower level than it count by the smooth bound of the Heaviside
  function, all others by that function itself, which has no gradient.
  """
  temperature, slope, delta = options
  level, relevance, gallery = tables
  above = scores - _items.of_item(scores, item)
  bound = jax.nn.sigmoid(jnp.minimum(above, delta) / temperature)
  bound += 0.5 * (above >= 0).astype(above.dtype)
  bound += slope * jax.nn.relu(above - delta)
  ahead = gallery & ~item & (above >= 0)
  lower = gallery & (level < _items.of_item(level, item))
  own = _items.of_item(relevance, item)
  shared = jnp.where(ahead, jnp.minimum(relevance, own), 0)
  rank = 1 + jnp.sum(jnp.where(lower, bound, ahead), 1, keepdims=True)
  return (own + jnp.sum(shared, 1, keepdims=True)) / rank


def _bounded_ap(
  scores: jax.Array,
  level: jax.Array,
  relevance: jax.Array,
  gallery: jax.Array,
  options: tuple[ArrayLike, ...],
  axis_name: str | None,
) -> jax.Array:
  """1 - the mean over queries of the bounded hierarchical AP."""
  precision = _items.over_items(
    _bounded_precision,
    scores,
    options,
    (level, relevance, gallery),
    level > 0,
  )
  total = jnp.sum(relevance, 1)
  ap = precision[:, 0] / jnp.where(total > 0, total, 1)
  return _sharding.masked_mean(1 - ap, total > 0, axis_name)


def _bounded_flat_ap(
  table: tuple[jax.Array, jax.Array, jax.Array],
  options: tuple[ArrayLike, ...],
  axis_name: str | None,
) -> jax.Array:
  """`_bounded_ap` of what `_items.scored` returns: one level, all alike."""
  scores, positive, gallery = table
  level, relevance = (positive.astype(t) for t in (jnp.int32, scores.dtype))
  return _bounded_ap(scores, level, relevance, gallery, options, axis_name)


def sup_ap(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  *,
  temperature: float = 0.01,
  slope: float = 100.0,
  delta: float = 0.05,
  c: Real[ArrayLike, ''] | None = None,
  where: Bool[ArrayLike, ' b'] | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """SupAP: an upper bound of 1 - the mean average precision.

  With the scores s of a query, P the items of its class and N all others,

    AP = 1/|P| sum_{i in P} r(i) / (r(i) + sum_{j in N} H(s_j - s_i)),
    r(i) = 1 + #{j in P, j != i: s_j >= s_i}, not differentiated,
    H(t) = sigmoid(t / temperature)                                  for t < 0,
           sigmoid(t / temperature) + 1/2               for 0 <= t <= delta,
           slope (t - delta) + sigmoid(delta / temperature) + 1/2    beyond.

  H is the paper's and is continuous at delta; the authors' program uses 1.44 in
  place of sigmoid(delta / temperature) + 1/2 = 1.493. At t = 0, H is 1: a tie
  counts against the item, so the bound holds.

  Args:
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b]`, the class of each row.
    temperature: divisor of the differences of scores, tau of the paper.
    slope: slope of the bound beyond delta, rho of the paper.
    delta: difference of scores at which the sigmoid has become flat, delta of
      the paper.
    c: see `smooth_ap`.
    where: see `smooth_ap`.
    memory: see `smooth_ap`.
    axis_name: see `smooth_ap`.

  Returns:
    scalar, the mean over queries of 1 - AP.

  References:
    Ramzi et al., "Robust and Decomposable Average Precision for Image
    Retrieval" (NeurIPS 2021, arXiv 2110.01445), section 3.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.eye(3)  # The positive and the negative tie: rank 2.
    >>> loss = losses.sup_ap(z, jnp.array([0, 0, 1]))
    >>> print(f'{float(loss):.3f}')
    0.500
  """
  numerics.check_positive(temperature=temperature)
  numerics.check_finite(slope=slope, delta=delta)
  table = _items.scored(z, labels, c, where, memory, axis_name)
  return _bounded_flat_ap(table, (temperature, slope, delta), axis_name)


def _calibration(
  table: tuple[jax.Array, jax.Array, jax.Array],
  margins: tuple[ArrayLike, ArrayLike],
  axis_name: str | None,
) -> jax.Array:
  """Mean over queries of the means of [alpha - s]+ and of [s - beta]+."""
  scores, positive, gallery = table
  alpha, beta = margins

  def mean(short: jax.Array, where: jax.Array) -> jax.Array:
    summed = jnp.sum(jnp.where(where, jax.nn.relu(short), 0), 1)
    return summed / jnp.maximum(jnp.sum(where, 1), 1)

  energy = mean(jnp.subtract(alpha, scores), positive)
  energy += mean(scores - beta, gallery & ~positive)
  return _sharding.masked_mean(energy, jnp.any(positive, 1), axis_name)


def roadmap(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, ' b'],
  *,
  weight: float = 0.1,
  margins: tuple[float, float] | None = None,
  temperature: float = 0.01,
  slope: float = 100.0,
  delta: float = 0.05,
  c: Real[ArrayLike, ''] | None = None,
  where: Bool[ArrayLike, ' b'] | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """ROADMAP: (1 - weight) `sup_ap` + weight times the calibration loss.

  The calibration loss makes the scores of different queries comparable, so that
  the AP of a batch says more about the AP of all data. It is the mean over
  queries of
  1/|P| sum_{i in P} [alpha - s_i]+ + 1/|N| sum_{j in N} [s_j - beta]+.
  The authors' program instead averages over the pairs whose term is not 0.

  Args:
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b]`, the class of each row.
    weight: weight of the calibration loss, lambda of the paper. The authors'
      later program uses 0.1, their first one 1/2.
    margins: alpha and beta of the paper; None means (0.9, 0.6). With a
      curvature they bound minus the distance and must be given.
    temperature: see `sup_ap`.
    slope: see `sup_ap`.
    delta: see `sup_ap`.
    c: see `smooth_ap`.
    where: see `smooth_ap`.
    memory: see `smooth_ap`.
    axis_name: see `smooth_ap`.

  Returns:
    the loss, a scalar.

  Raises:
    ValueError: for a curvature without margins.

  References:
    Ramzi et al., "Robust and Decomposable Average Precision for Image
    Retrieval" (NeurIPS 2021, arXiv 2110.01445), section 3.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.eye(3)  # The positive and the negative tie: rank 2.
    >>> loss = losses.roadmap(z, jnp.array([0, 0, 1]))
    >>> print(f'{float(loss):.3f}')  # 0.9 * 0.5 + 0.1 * (0.9 - 0).
    0.540
  """
  numerics.check_positive(temperature=temperature)
  numerics.check_finite(
    weight=weight, margins=margins, slope=slope, delta=delta
  )
  if margins is None and c is not None:
    raise ValueError(
      'margins must be given with a curvature: they are of minus the distance'
    )
  table = _items.scored(z, labels, c, where, memory, axis_name)
  rank = _bounded_flat_ap(table, (temperature, slope, delta), axis_name)
  calibration = _calibration(table, margins or (0.9, 0.6), axis_name)
  return (1 - weight) * rank + weight * calibration


def _common_levels(
  labels: jax.Array, memory: Memory | None, axis_name: str | None
) -> jax.Array:
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


def _relevance(
  level: jax.Array, depth: int, alpha: ArrayLike, dtype: DTypeLike
) -> jax.Array:
  """(l / depth)^alpha over the number of the row's items at level l, or 0."""
  relevance = jnp.zeros(level.shape, dtype)
  for height in range(1, depth + 1):
    here = level == height
    count = jnp.maximum(jnp.sum(here, 1, keepdims=True, dtype=dtype), 1)
    relevance = jnp.where(here, (height / depth) ** alpha / count, relevance)
  return relevance


def hap(
  z: Float[ArrayLike, 'b d'],
  labels: Integer[ArrayLike, 'b L'],
  *,
  alpha: float = 1.0,
  temperature: float = 0.01,
  slope: float = 100.0,
  delta: float = 0.05,
  c: Real[ArrayLike, ''] | None = None,
  where: Bool[ArrayLike, ' b'] | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Float[Array, '']:
  """HAPPIER's loss: an upper bound of 1 - the hierarchical AP.

  An item is at level l of a query if they have their first l labels in common.
  With the scores s of a query, its items at l > 0, L levels, n_l items at l,

    rel(i) = (l / L)^alpha / n_l,
    H-AP = sum_i H-rank(i) / rank(i) / sum_i rel(i),
    H-rank(i) = rel(i) + sum_{j != i: s_j >= s_i} min(rel(i), rel(j)),
    rank(i) = 1 + #{j != i of no lower level: s_j >= s_i}
              + sum_{j of lower level} H(s_j - s_i), H as in `sup_ap`.

  Only the last sum has a gradient, as in the authors' program. With one level,
  the loss is `sup_ap`. The paper adds a clustering loss over the finest
  classes; to do the same, take
  0.9 hap(z, labels) + 0.1 normalized_softmax(z, labels[:, -1], proxies).

  Args:
    z: `[b, d]` embeddings; points of the ball where c is a curvature.
    labels: int `[b, L]`, the classes of each row, coarsest level first (the
      authors put it last). The same label below two parents means two classes.
    alpha: exponent of the relevance; a larger one gives coarse levels less
      weight.
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

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> z = jnp.eye(3)  # All scores tie.
    >>> labels = jnp.array([[0, 0], [0, 1], [1, 2]])
    >>> loss = losses.hap(z, labels)
    >>> print(f'{float(loss):.3f}')
    0.500
  """
  numerics.check_positive(temperature=temperature)
  numerics.check_finite(alpha=alpha, slope=slope, delta=delta)
  _checks.rows(z, labels, ranks=(2, 2))
  labels = jnp.asarray(labels)
  level = _common_levels(labels, memory, axis_name)
  if memory is not None:
    memory = memory._replace(labels=memory.labels[:, 0])
  scores, positive, gallery = _items.scored(
    z, labels[:, 0], c, where, memory, axis_name
  )
  level = jnp.where(positive, level, 0)
  relevance = _relevance(level, labels.shape[1], alpha, scores.dtype)
  options = (temperature, slope, delta)
  return _bounded_ap(scores, level, relevance, gallery, options, axis_name)
