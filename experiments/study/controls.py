"""Controls: what else could give what HIER gives, and the upper bound.

Levels are a table int `[C, L]` of the node of each class, coarsest level first,
whose last column is the class itself. `pseudo_levels` makes it of features,
`true_levels` of the annotated tree; with the latter the same losses are the
upper bound, and only then do they see an annotation.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from scipy.cluster import hierarchy

from experiments.study import mined
from hier_jax import losses, numerics

__all__ = [
  'class_means',
  'level_sup_con',
  'pseudo_levels',
  'relational_distillation',
  'shuffled_similarity',
  'true_levels',
]


def shuffled_similarity(
  key: jax.Array, similarity: jax.Array, labels: jax.Array
) -> jax.Array:
  """Similarities of other rows: HIER's graph of neighbors, its rows permuted.

  Mined by it, with same_class=0, each anchor has as many neighbors as some
  other row, and none of its own: the numbers of triplets stay, and what they
  say is lost. What HIER gives with it is no hierarchy.

    s'_ij = s_ab + 1 where a and b share a class, a = perm(i), b = perm(j)

  Args:
    key: PRNG key of the permutation, another one for each step.
    similarity: `[n, n]`, such as `mined.similarity_of`.
    labels: int `[n]`.

  Returns:
    `[n, n]`, for `similarity` of `variants.hier_star` with same_class=0.

  Example:
    >>> import jax
    >>> from experiments.study import controls, mined, proxies, variants
    >>> key, labels = jax.random.key(0), jax.numpy.arange(8) // 2
    >>> z = 0.1 * jax.random.normal(key, (8, 4))
    >>> other = controls.shuffled_similarity(
    ...   key, mined.similarity_of(z, 0.1), labels
    ... )
    >>> _, aux = variants.mined_triplet(
    ...   key, z, labels, k=4, similarity=other, same_class=0.0
    ... )
    >>> bool(aux['data/same_class'] < 0.5)
    True
  """
  same = labels[:, None] == labels[None]
  order = jax.random.permutation(key, labels.shape[0])
  return (similarity + same)[order][:, order]


def class_means(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
  """The mean direction of each class.

  Args:
    features: `[n, F]`.
    labels: int `[n]`, all of 0..C-1.

  Returns:
    float64 `[C, F]`.

  Raises:
    ValueError: for features or labels of other shapes, a feature that is not
      finite, or a class without a row.

  Example:
    >>> import numpy as np
    >>> from experiments.study import controls
    >>> controls.class_means(np.diag([2.0, 5.0]), np.array([0, 0])).tolist()
    [[0.5, 0.5]]
  """
  features, labels = np.asarray(features, np.float64), np.asarray(labels)
  if features.ndim != 2 or labels.shape != features.shape[:1]:
    raise ValueError(
      f'features have shape {features.shape} and labels {labels.shape},'
      ' expected [n, F] and [n]'
    )
  if not np.isfinite(features).all():
    raise ValueError('features hold a value that is not finite')
  count = np.bincount(labels)
  if not count.all():
    raise ValueError(
      f'class {np.argmin(count)} of {count.size} has no row: number the classes'
      ' from 0 on'
    )
  length = np.linalg.norm(features, axis=1, keepdims=True)
  unit = features / np.where(length > 0, length, 1)
  total = np.zeros((count.size, features.shape[1]))
  np.add.at(total, labels, unit)
  return total / count[:, None]


def pseudo_levels(
  features: np.ndarray,
  labels: np.ndarray,
  sizes: Sequence[int],
  *,
  metric: str = 'cosine',
) -> np.ndarray:
  """Levels by average linkage of the class means, cut into given sizes.

  Of frozen features it is made once; of an EMA teacher's or the model's own
  embeddings every few epochs.

  Args:
    features: `[n, F]`, any features of the training images.
    labels: int `[n]`, all of 0..C-1.
    sizes: number of nodes of each level above the classes, ascending, each in
      1..C.
    metric: of `scipy.spatial.distance.pdist`, between class means.

  Returns:
    int32 `[C, len(sizes) + 1]`, nested, coarsest level first, the class last.

  Raises:
    ValueError: for sizes that do not ascend within 1..C; see `class_means`.

  Example:
    >>> import numpy as np
    >>> from experiments.study import controls
    >>> features = np.array([[1.0, 0.0], [0.9, 0.1], [0.0, 1.0]])
    >>> controls.pseudo_levels(features, np.arange(3), [2]).tolist()
    [[0, 0], [0, 1], [1, 2]]
  """
  means = class_means(features, labels)
  number = len(means)
  if list(sizes) != sorted(set(sizes)) or not all(
    1 <= size <= number for size in sizes
  ):
    raise ValueError(
      f'sizes of levels are {list(sizes)}, expected ascending numbers in'
      f' 1..{number}, the number of classes'
    )
  levels = np.repeat(np.arange(number)[:, None], len(sizes) + 1, 1)
  # As many nodes as classes SciPy takes for one.
  above = [size for size in sizes if size < number]
  if above:
    link = hierarchy.linkage(means, 'average', metric=metric)
    levels[:, : len(above)] = hierarchy.cut_tree(link, n_clusters=above)
  return levels.astype(np.int32)


def true_levels(*columns: np.ndarray) -> np.ndarray:
  """The annotated tree as levels: the upper bound.

  Args:
    *columns: int `[C]` each, the node of each class, coarsest level first;
      a node's number may mean another node below another parent.

  Returns:
    int32 `[C, L + 1]`, nodes numbered within their level, the class last.

  Raises:
    ValueError: for columns of different lengths.

  Example:
    >>> import numpy as np
    >>> from experiments.study import controls
    >>> group, subgroup = np.array([3, 3, 7]), np.array([0, 1, 0])
    >>> controls.true_levels(group, subgroup).tolist()
    [[0, 0, 0], [0, 1, 1], [1, 2, 2]]
  """
  if len({np.shape(column) for column in columns}) != 1:
    shapes = ', '.join(str(np.shape(column)) for column in columns)
    raise ValueError(f'levels have shapes {shapes}, expected one [C] for all')
  paths = np.stack(columns, 1)
  levels = [
    np.unique(paths[:, : depth + 1], axis=0, return_inverse=True)[1]
    for depth in range(paths.shape[1])
  ]
  levels.append(np.arange(len(paths)))
  return np.stack([level.ravel() for level in levels], 1).astype(np.int32)


def level_sup_con(
  z: jax.Array,
  labels: jax.Array,
  levels: jax.Array,
  *,
  weights: Sequence[ArrayLike],
  temperature: ArrayLike = 0.1,
  c: ArrayLike | None = None,
) -> jax.Array:
  """SupCon at each level: sum_l weight_l SupCon(z, node_l) / sum_l weight_l.

  HiMulCon of Zhang et al., "Use All The Labels: A Hierarchical Multi-Label
  Contrastive Learning Framework" (CVPR 2022, arXiv 2204.13207), the weights
  being given.

  Args:
    z: `[b, d]` embeddings.
    labels: int `[b]`, the class of each row.
    levels: int `[C, L]`.
    weights: weight of each level; may be traced.
    temperature: see `losses.sup_con`; may be traced.
    c: see `losses.sup_con`.

  Returns:
    the loss, a scalar.

  Raises:
    ValueError: for another number of weights than levels.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import losses
    >>> from experiments.study import controls
    >>> z, labels = jnp.eye(3), jnp.array([0, 0, 1])
    >>> loss = controls.level_sup_con(
    ...   z, labels, jnp.array([[0], [1]]), weights=(5.0,)
    ... )
    >>> bool(loss == losses.sup_con(z, labels))
    True
  """
  if len(weights) != levels.shape[1]:
    raise ValueError(
      f'{len(weights)} weights given for {levels.shape[1]} levels: one a level'
      ' is needed'
    )
  rows = jnp.asarray(levels)[labels]
  each = [
    weight * losses.sup_con(z, row, temperature=temperature, c=c)
    for weight, row in zip(weights, rows.T, strict=True)
  ]
  return sum(each) / sum(weights)


def relational_distillation(
  points: jax.Array,
  teacher: jax.Array,
  *,
  temperature: ArrayLike = 0.1,
  teacher_temperature: ArrayLike = 0.1,
  c: ArrayLike | None = None,
) -> jax.Array:
  """The teacher's similarities to all others, as a distribution, to be matched.

    mean_i KL(softmax_j(t_ij / T_t) || softmax_j(s_ij / T)),  j != i,

  s the cosine, or minus the distance. The term of Roth et al., "Simultaneous
  Similarity-based Self-Distillation for Deep Metric Learning" (S2SD, ICML 2021,
  arXiv 2009.08348), here of class proxies and a teacher of classes, without the
  pairs of a point with itself.

  Args:
    points: `[n, d]` class proxies or embeddings.
    teacher: `[n, n]` similarities, without gradient.
    temperature: T; may be traced.
    teacher_temperature: T_t; may be traced.
    c: curvature; None for cosine.

  Returns:
    the loss, a scalar; 0 where both agree, NaN where an input is.

  Raises:
    ValueError: for a teacher of another shape than `[n, n]`.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import controls
    >>> loss = controls.relational_distillation(jnp.eye(3), jnp.eye(3))
    >>> print(f'{float(loss):.1f}')  # All others are alike for both.
    0.0
  """
  n = points.shape[0]
  if teacher.shape != (n, n):
    raise ValueError(
      f'teacher has shape {teacher.shape}, expected [{n}, {n}]: one similarity'
      ' of all pairs of points'
    )
  points = numerics.widened(points)
  points = numerics.unit(points) if c is None else points
  own = -mined.distances(points, points, c)
  diagonal = jnp.eye(n, dtype=bool)
  logs = lambda s: jax.nn.log_softmax(jnp.where(diagonal, -1e9, s), 1)
  target = logs(lax.stop_gradient(teacher) / teacher_temperature)
  excess = jnp.where(diagonal, 0, target - logs(own / temperature))
  loss = jnp.mean(jnp.sum(jnp.exp(target) * excess, 1))
  return mined.poisoned(loss, points, teacher)
