"""Hierarchies of the classes' proxies, without hierarchical ones of HIER."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from experiments.study import mined
from hier_jax import lorentz, losses, numerics, poincare

__all__ = [
  'dasgupta',
  'hierarchical_proxy_anchor',
  'lca_depth',
  'leaves',
  'level_means',
  'random_triples',
]


def lca_depth(x: jax.Array, y: jax.Array, *, c: ArrayLike) -> jax.Array:
  """Distance from the origin to the geodesic from x to y: d(0, x v y).

  HypHC's lowest common ancestor of two leaves is the point of their geodesic
  next to the origin (Chami et al., NeurIPS 2020, section 4). In the Klein
  model geodesics are straight, and points are the farther from the origin the
  longer they are: the nearest point of a segment in closed form. It is an end
  of the geodesic where that runs away from the origin; HypHC's program takes
  the whole line, which is the same for leaves of one radius.

  Args:
    x: `[..., d]` points of the ball.
    y: `[..., d]`.
    c: curvature; at 0 twice the Euclidean distance.

  Returns:
    `[...]`, the deeper the closer x and y are.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import trees
    >>> x, y = jnp.array([0.5, 0.0]), jnp.array([-0.5, 0.0])
    >>> float(trees.lca_depth(x, y, c=1.0))
    0.0
  """
  x, y = (lorentz.poincare_to_klein(a, c=c) for a in (x, y))
  step = y - x
  length = numerics.dot(step, step)
  along = -numerics.dot(x, step) / jnp.where(length > 0, length, 1)
  # At the nearest point the distance does not depend on it.
  place = lax.stop_gradient(jnp.clip(along, 0, 1))
  nearest = x + place * step
  # One origin for all: XLA would spend a minute on folding a constant each.
  origin = jnp.zeros(nearest.shape[-1:], nearest.dtype)
  return lorentz.klein_dist(nearest, origin, c=c)


def leaves(
  class_proxies: jax.Array, radius: ArrayLike, *, c: ArrayLike
) -> jax.Array:
  """Class proxies as leaves of one radius: exp0(radius p / |p|).

  HypHC's program puts its leaves at one radius as well.

  Args:
    class_proxies: `[C, d]`, of which only directions count in the losses.
    radius: length of the tangent vectors, such as the mean of the data's; may
      be traced.
    c: curvature.

  Returns:
    `[C, d]` points of the ball.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import trees
    >>> trees.leaves(jnp.array([[0.0, 9.0]]), 2.0, c=0.0).tolist()
    [[0.0, 2.0]]
  """
  direction = numerics.unit(numerics.widened(class_proxies))
  return poincare.exp0(radius * direction, c=c)


def random_triples(key: jax.Array, number: int, n: int) -> jax.Array:
  """Triples of three different rows of n, all equally likely.

  Args:
    key: PRNG key.
    number: number T of triples, static.
    n: number of rows, static, 3 or more.

  Returns:
    int32 `[T, 3]`.

  Raises:
    ValueError: for n below 3.

  Example:
    >>> import jax
    >>> from experiments.study import trees
    >>> sorted(trees.random_triples(jax.random.key(0), 1, 3)[0].tolist())
    [0, 1, 2]
  """
  if n < 3:
    raise ValueError(f'triples of {n} rows asked for: at least 3 are needed')
  keys = jax.random.split(key, 3)
  draw = lambda key, first, last: jax.random.randint(
    key, (number,), first, last, jnp.int32
  )
  i = draw(keys[0], 0, n)
  j = (i + draw(keys[1], 1, n)) % n
  # The rest in order: past the lower one, then past the higher one.
  k = draw(keys[2], 0, n - 2)
  k = k + (k >= jnp.minimum(i, j))
  k = k + (k >= jnp.maximum(i, j))
  return jnp.stack([i, j, k], 1)


def dasgupta(
  key: jax.Array,
  points: jax.Array,
  similarity: jax.Array,
  *,
  c: ArrayLike = 0.1,
  temperature: ArrayLike = 0.05,
  triples: int = 1000,
) -> jax.Array:
  """HypHC's relaxation of Dasgupta's cost, on random triples of leaves.

  The mean of

    w_ij + w_ik + w_jk - (w_ij, w_ik, w_jk) . softmax(depth / temperature),

  w the similarity and depth the `lca_depth` of each pair: the pair that splits
  off last should be the most similar one. With class proxies as leaves it needs
  no hierarchical ones.

  Args:
    key: PRNG key.
    points: `[n, d]` leaves, points of the ball.
    similarity: `[n, n]`, such as cosines of class means by a teacher; it has
      no gradient.
    c: curvature.
    temperature: temperature of the softmax; may be traced. HypHC starts at
      0.05 and anneals.
    triples: number of triples, static.

  Returns:
    the loss, a scalar; NaN where a point or a similarity is.

  Raises:
    ValueError: for fewer than 3 leaves, or a similarity of another shape.

  References:
    Chami, Gu, Chatziafratis and Re, "From Trees to Continuous Embeddings and
    Back: Hyperbolic Hierarchical Clustering" (NeurIPS 2020, arXiv 2010.00402),
    section 4.

  Example:
    >>> import jax
    >>> from experiments.study import trees
    >>> z = 0.5 * jax.numpy.eye(3)
    >>> loss = trees.dasgupta(jax.random.key(0), z, jax.numpy.ones((3, 3)))
    >>> print(f'{float(loss):.3f}')  # All pairs are alike: 3 - 1.
    2.000
  """
  n = points.shape[0]
  if similarity.shape != (n, n):
    raise ValueError(
      f'similarity has shape {similarity.shape}, expected [{n}, {n}]: one of'
      ' all pairs of points'
    )
  points = numerics.widened(points)
  similarity = lax.stop_gradient(similarity)
  i, j, k = random_triples(key, triples, n).T
  pairs = (i, j), (i, k), (j, k)
  depth = jnp.stack([lca_depth(points[a], points[b], c=c) for a, b in pairs])
  w = jnp.stack([similarity[a, b] for a, b in pairs])
  chosen = jnp.sum(w * jax.nn.softmax(depth / temperature, 0), 0)
  loss = jnp.mean(jnp.sum(w, 0) - chosen)
  return mined.poisoned(loss, points, similarity)


def level_means(
  class_proxies: jax.Array, level: jax.Array, num_nodes: int
) -> jax.Array:
  """The mean direction of the class proxies of each node of a level.

  Args:
    class_proxies: `[C, d]`.
    level: int `[C]`, the node of each class.
    num_nodes: number of nodes, static.

  Returns:
    `[num_nodes, d]`, differentiable; 0 for a node without classes.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import trees
    >>> trees.level_means(2 * jnp.eye(2), jnp.array([0, 0]), 1).tolist()
    [[0.5, 0.5]]
  """
  member = jax.nn.one_hot(level, num_nodes, axis=0, dtype=class_proxies.dtype)
  total = jnp.matmul(
    member, numerics.unit(class_proxies), precision=lax.Precision.HIGHEST
  )
  return total / jnp.maximum(jnp.sum(member, 1, keepdims=True), 1)


def hierarchical_proxy_anchor(
  z: jax.Array,
  labels: jax.Array,
  class_proxies: jax.Array,
  levels: jax.Array,
  *,
  num_nodes: Sequence[int],
  weights: Sequence[ArrayLike],
  alpha: ArrayLike = 32.0,
  margin: ArrayLike = 0.1,
) -> jax.Array:
  """Proxy-Anchor at each level of a hierarchy of the class proxies.

    sum_l weight_l ProxyAnchor(z, node_l(label), `level_means` of level l).

  After Yang et al., "Hierarchical Proxy-based Loss for Deep Metric Learning"
  (HPL, WACV 2022, arXiv 2103.13538): coarse proxies above the class proxies,
  found by clustering, pay a proxy loss as well. Here they are the means of the
  class proxies below them, and the levels are given
  (`controls.pseudo_levels`, made anew every few epochs).

  Args:
    z: `[b, d]` embeddings; only their directions count.
    labels: int `[b]`, the class of each row.
    class_proxies: `[C, d]`.
    levels: int `[C, L]`, the node of each class at each level.
    num_nodes: number of nodes of each level, static.
    weights: weight of each level; may be traced.
    alpha: see `losses.proxy_anchor`.
    margin: see `losses.proxy_anchor`.

  Returns:
    the loss, a scalar.

  Raises:
    ValueError: for another number of levels, nodes or weights.

  Example:
    >>> import jax.numpy as jnp
    >>> from experiments.study import trees
    >>> levels = jnp.array([[0, 0], [0, 1]])  # One node above two classes.
    >>> loss = trees.hierarchical_proxy_anchor(
    ...   jnp.eye(2),
    ...   jnp.arange(2),
    ...   jnp.eye(2),
    ...   levels,
    ...   num_nodes=(1, 2),
    ...   weights=(0.5, 1.0),
    ... )
    >>> print(loss.shape)
    ()
  """
  if not levels.shape[1] == len(num_nodes) == len(weights):
    raise ValueError(
      f'{levels.shape[1]} levels, {len(num_nodes)} numbers of nodes and'
      f' {len(weights)} weights given: one each a level is needed'
    )
  total = jnp.zeros(())
  for level, nodes, weight in zip(levels.T, num_nodes, weights, strict=True):
    means = level_means(class_proxies, level, nodes)
    total += weight * losses.proxy_anchor(
      z, level[labels], means, alpha=alpha, margin=margin
    )
  return total
