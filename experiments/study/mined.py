"""Triplets that the study's losses share, of a number k that may be traced.

The same key, embeddings and options give the same triplets to HIER, to HIER*
and to the plain triplet loss, so that what differs is the loss alone.
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from hier_jax import losses, mining, numerics, poincare

__all__ = [
  'Nodes',
  'batch_k',
  'distances',
  'expected_relatives',
  'mine',
  'nodes_of',
  'poisoned',
  'reciprocal_neighbors',
  'similarity_of',
]


def distances(x: jax.Array, y: jax.Array, c: ArrayLike | None) -> jax.Array:
  """Distances of all pairs, as `losses.hier` measures them.

  Args:
    x: `[n, d]` points of the ball; rows of length 1 where c is None.
    y: `[m, d]`.
    c: curvature; 0 for Euclidean distances, None for 1 - cosine.

  Returns:
    `[n, m]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import mined
    >>> mined.distances(jnp.eye(2), jnp.eye(2), None).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
  """
  if c is None:
    return 1 - jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST)
  return poincare.dist_matrix(x, y, c=c)


def poisoned(loss: jax.Array, *arrays: jax.Array | None) -> jax.Array:
  """NaN where an input has one: what no triplet names hides its own.

  Args:
    loss: a scalar.
    arrays: the loss's inputs; None for one that is not given.

  Returns:
    `loss`, or NaN.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import mined
    >>> loss = jnp.ones(())
    >>> print(mined.poisoned(loss, None, jnp.array([jnp.nan, 0])))
    nan
  """
  lost = [jnp.any(jnp.isnan(a)) for a in arrays if a is not None]
  return jnp.where(jnp.any(jnp.stack(lost)), jnp.nan, loss)


def similarity_of(points: jax.Array, c: ArrayLike | None) -> jax.Array:
  """exp(-d) of all pairs, without gradient: what HIER mines by.

  With the same rows embedded by an exponential moving average of the model
  (Tarvainen and Valpola, "Mean teachers", NeurIPS 2017, arXiv 1703.01780) these
  are the similarities of an EMA teacher.

  Args:
    points: `[n, d]`.
    c: curvature, see `distances`.

  Returns:
    `[n, n]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import mined
    >>> similarity = mined.similarity_of(jnp.eye(2), None)
    >>> print(f'{float(similarity[0, 1]):.3f}')  # exp(-1).
    0.368
  """
  points = lax.stop_gradient(numerics.widened(points))
  return jnp.exp(-distances(points, points, c))


def batch_k(labels: jax.Array, relatives: ArrayLike) -> jax.Array:
  """The k of a batch: the rows of an anchor's class and of its relatives.

    k = round(r (1 + relatives)), r the mean number of rows of a row's class,

  the row itself included, as `mining.reciprocal_neighbors` counts. HIER's 20 of
  180 rows with two a class joins strangers where a class has few relatives.

  Args:
    labels: int `[b]`, the class of each row.
    relatives: number of related classes in the batch, a hyperparameter; may be
      traced (`expected_relatives`).

  Returns:
    int32 scalar.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import mined
    >>> int(mined.batch_k(jnp.array([0, 0, 1, 1]), 1.5))
    5
  """
  same = labels[:, None] == labels[None]
  rows = jnp.mean(jnp.sum(same, 1, dtype=jnp.float32))
  return jnp.round(rows * (1 + relatives)).astype(jnp.int32)


def expected_relatives(
  width: float, batch_classes: int, num_classes: int
) -> float:
  """Related classes that a batch is expected to hold beside a class of its own.

  (width - 1) (q - 1) / (C - 1): q of C classes, drawn without replacement.

  Args:
    width: number of classes of a group of relatives, the class itself included.
    batch_classes: number q of classes in the batch.
    num_classes: number C of all classes.

  Returns:
    a number from 0 to width - 1.

  Example:
    >>> from experiments.study import mined
    >>> mined.expected_relatives(5, batch_classes=61, num_classes=121)
    2.0
  """
  return (width - 1) * (batch_classes - 1) / (num_classes - 1)


def reciprocal_neighbors(
  similarity: jax.Array, k: ArrayLike, *, k_max: int
) -> tuple[jax.Array, jax.Array]:
  """`mining.reciprocal_neighbors` with a k that may be traced.

  Args:
    similarity: `[n, n]`, symmetric and largest on the diagonal.
    k: number of nearest rows, the row itself included, in 1..k_max.
    k_max: the largest k, static, in 1..n: results have its shape.

  Returns:
    neighbors: int32 `[n, k_max]`, ascending, padded with n.
    count: int32 `[n]`, how many neighbors each row has.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import mined
    >>> similarity = jnp.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]])
    >>> neighbors, _ = mined.reciprocal_neighbors(similarity, 2, k_max=3)
    >>> neighbors.tolist()  # Padding: n = 3.
    [[1, 3, 3], [0, 3, 3], [3, 3, 3]]
  """
  n = similarity.shape[0]
  _, nearest = lax.top_k(similarity, k_max)
  among = jnp.arange(k_max, dtype=jnp.int32)[None] < k
  nearest = jnp.where(among, nearest, n)
  # The row that padding names has no neighbors.
  everyone = jnp.concatenate([nearest, jnp.full_like(nearest[:1], n)])
  row = jnp.arange(n, dtype=jnp.int32)[:, None]
  returned = jnp.any(everyone[nearest] == row[..., None], -1)
  reciprocal = returned & (nearest != row) & (nearest < n)
  neighbors = jnp.sort(jnp.where(reciprocal, nearest, n), axis=1)
  return neighbors, jnp.sum(reciprocal, 1, dtype=jnp.int32)


class Nodes(NamedTuple):
  """What triplets are drawn from: the batch's rows, then the memory's.

  Attributes:
    points: `[n, d]`; the memory's have no gradient.
    labels: int `[n]`.
    similarity: `[n, n]`, largest on the diagonal, without gradient; that of the
      same class is added.
    real: bool `[n]`, false for places of the memory that hold nothing.
  """

  points: jax.Array
  labels: jax.Array
  similarity: jax.Array
  real: jax.Array


def nodes_of(
  z: jax.Array,
  labels: jax.Array,
  *,
  c: ArrayLike | None,
  similarity: jax.Array | None = None,
  same_class: ArrayLike = 1.0,
  memory: losses.Memory | None = None,
) -> Nodes:
  """The batch, and the memory of past batches, as nodes.

  A memory as extra nodes follows Wang et al., "Cross-Batch Memory for Embedding
  Learning" (CVPR 2020, arXiv 1912.06798): more relatives to find than a batch
  holds.

  Args:
    z: `[b, d]` embeddings.
    labels: int `[b]`.
    c: curvature, see `distances`.
    similarity: `[n, n]` of all nodes, in place of exp(-d); see `similarity_of`.
    same_class: what a pair of one class has more; HIER's 1 makes it nearer than
      all others.
    memory: `losses.Memory` of m rows, n = b + m; None for the batch alone.

  Returns:
    `Nodes`.

  Raises:
    ValueError: for a similarity of another shape than `[n, n]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import mined
    >>> nodes = mined.nodes_of(jnp.eye(2), jnp.array([0, 0]), c=None)
    >>> print(f'{float(nodes.similarity[0, 1]):.3f}')  # exp(-1) + 1.
    1.368
  """
  points, labels = numerics.widened(z), jnp.asarray(labels)
  real = jnp.ones(labels.shape, bool)
  if memory is not None:
    past = lax.stop_gradient(memory.embeddings).astype(points.dtype)
    points = jnp.concatenate([points, past])
    labels = jnp.concatenate([labels, memory.labels.astype(labels.dtype)])
    real = jnp.concatenate([real, memory.filled])
  n = points.shape[0]
  if similarity is None:
    similarity = similarity_of(points, c)
  elif similarity.shape != (n, n):
    raise ValueError(
      f'similarity has shape {similarity.shape}, expected [{n}, {n}]: one of'
      ' all pairs of rows, those of the memory after those of the batch'
    )
  same = (labels[:, None] == labels[None]).astype(points.dtype)
  similarity = lax.stop_gradient(similarity) + same_class * same
  # Below all similarities of real rows: such a row is nobody's neighbor.
  both = real[:, None] & real[None]
  return Nodes(points, labels, jnp.where(both, similarity, -1e6), real)


def mine(
  key: jax.Array,
  similarity: jax.Array,
  k: ArrayLike,
  *,
  k_max: int,
  per_anchor: int,
  anchors: int,
  real: jax.Array | None = None,
) -> tuple[mining.Triplets, jax.Array]:
  """Triplets of reciprocal neighbors; the first rows are anchors.

  Args:
    key: PRNG key.
    similarity: `[n, n]`.
    k: number of nearest rows; may be traced.
    k_max: the largest k, static.
    per_anchor: number t of triplets of each anchor.
    anchors: number m of rows that are anchors.
    real: bool `[n]`, rows that exist; None for all. A triplet with another has
      weight 0.

  Returns:
    `mining.Triplets` of m t places, and the number of neighbors int32 `[m]`.

  Raises:
    ValueError: for k_max outside 1..m.

  Example:
    >>> import jax
    >>> from experiments.study import mined
    >>> group = jax.numpy.arange(8) % 2
    >>> similarity = (group[:, None] == group[None]) + jax.numpy.eye(8)
    >>> triplets, count = mined.mine(
    ...   jax.random.key(0), similarity, 4, k_max=6, per_anchor=5, anchors=8
    ... )
    >>> bool((group[triplets.positive] == group[triplets.anchor]).all())
    True
  """
  if not 1 <= k_max <= anchors:
    raise ValueError(
      f'k_max = {k_max} nearest neighbors asked of {anchors} rows: it must be'
      f' in 1..{anchors}'
    )
  neighbors, count = reciprocal_neighbors(similarity, k, k_max=k_max)
  triplets = mining.sample_triplets(
    key,
    neighbors[:anchors],
    count[:anchors],
    similarity.shape[0],
    per_anchor=per_anchor,
  )
  if real is not None:
    weight = triplets.weight * real[triplets.negative]
    triplets = triplets._replace(weight=weight)
  return triplets, count[:anchors]
