"""Triplets of reciprocal nearest neighbors, with static shapes.

HIER trains its proxies on triplets (anchor, positive, negative) in which the
first two are near each other and the third is not. The shapes of all results
depend only on the shapes of the arguments, so each function is traced once; a
triplet that does not exist has weight 0.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Integer, PRNGKeyArray, Real

from hier_jax import numerics

__all__ = ['Triplets', 'reciprocal_neighbors', 'sample_triplets']


class Triplets(NamedTuple):
  """Rows of the nodes that make up triplets; every field is `[T]`.

  Attributes:
    anchor: int32 row i.
    positive: int32 row j, a reciprocal neighbor of i.
    negative: int32 row k, neither i nor a reciprocal neighbor of i.
    weight: float32, 1 for a triplet and 0 for an empty place.
  """

  anchor: Integer[Array, ' T']
  positive: Integer[Array, ' T']
  negative: Integer[Array, ' T']
  weight: Float[Array, ' T']


def integer(name: str, value: Any) -> int:
  """A static option as a Python int above 0.

  Args:
    name: of the option.
    value: what was given.

  Raises:
    ValueError: it is no such integer, or it is traced.
  """
  try:
    number = operator.index(value)
  except TypeError:
    number = 0
  if number < 1:
    raise ValueError(
      f'{name} is {value!r}, expected a Python integer above 0: it sizes'
      ' arrays, so that it cannot be traced'
    )
  return number


def reciprocal_neighbors(
  similarity: Real[Array, 'm n'],
  k: int,
  *,
  first: Integer[ArrayLike, ''] = 0,
  axis_name: str | None = None,
) -> tuple[Integer[Array, 'm {k}'], Integer[Array, ' m']]:
  """Members of each row's k nearest that count the row among theirs.

  Kim et al., "Self-Taught Metric Learning without Labels" (CVPR 2022), as HIER
  uses it: the k nearest of row i include i, which is not its own neighbor.

  Args:
    similarity: `[m, n]`, this device's rows of a matrix `[n, n]` that is
      symmetric and largest on the diagonal; all of them without `axis_name`.
      Of equal values, the lower column is preferred.
    k: number of nearest rows, a static int in 1..n.
    first: index of the first of these rows. Rows from n on are padding.
    axis_name: mapped axis over whose devices the rows are spread, in order.

  Returns:
    neighbors: int32 `[m, k]`, ascending, padded with n.
    count: int32 `[m]`, how many neighbors each row has.

  Raises:
    ValueError: for k that is no integer in 1..n, or a similarity that is no
      matrix.

  Example:
    >>> import jax.numpy as jnp
    >>> from hier_jax import mining
    >>> similarity = jnp.array([[1, 0.9, 0.1], [0.9, 1, 0.2], [0.1, 0.2, 1]])
    >>> neighbors, count = mining.reciprocal_neighbors(similarity, 2)
    >>> neighbors.tolist()  # Row 2 has none: padding, n = 3.
    [[1, 3], [0, 3], [3, 3]]
  """
  if jnp.ndim(similarity) != 2:
    raise ValueError(
      f'similarity has shape {jnp.shape(similarity)}, expected [m, n]'
    )
  m, n = similarity.shape
  k = _checked_k(k, n)
  _, nearest = lax.top_k(similarity, k)
  everyone = nearest
  if axis_name is not None:
    everyone = lax.all_gather(nearest, axis_name, tiled=True)
  row = jnp.asarray(first + jnp.arange(m, dtype=jnp.int32))[:, None]
  return _reciprocal(nearest, everyone[nearest], row, n)


def neighbors_in_sets(
  similarities: Sequence[jax.Array], k: int
) -> list[tuple[jax.Array, jax.Array]]:
  """`reciprocal_neighbors` of several sets of rows at once: compiles once.

  Args:
    similarities: `[n, n]` of each set, from 0 up.
    k: number of nearest rows, a static int in 1..n of each.

  Returns:
    neighbors int32 `[n, k]` and count int32 `[n]` of each set.
  """
  sizes = np.array([len(similarity) for similarity in similarities], np.int32)
  k = _checked_k(k, min(sizes.tolist()))
  padded = [
    jnp.pad(s, ((0, 0), (0, max(sizes) - len(s))), constant_values=-1)
    for s in similarities
  ]
  _, nearest = lax.top_k(jnp.concatenate(padded), k)
  ends = np.cumsum(sizes, dtype=np.int32)
  first = np.repeat(ends - sizes, sizes)[:, None]
  row = np.arange(ends[-1], dtype=np.int32)[:, None] - first
  theirs = nearest[nearest + first]
  n = np.repeat(sizes, sizes)[:, None]
  found = _reciprocal(nearest, theirs, jnp.asarray(row), jnp.asarray(n))
  parts = (jnp.split(a, ends[:-1].tolist()) for a in found)
  return list(zip(*parts, strict=True))


def _checked_k(k: Any, n: int) -> int:
  """The number k as an int, which may be n at most."""
  k = integer('k', k)
  if k > n:
    raise ValueError(
      f'k = {k} nearest neighbors asked of {n} rows: k must be in 1..{n}'
    )
  return k


def _reciprocal(
  nearest: jax.Array, theirs: jax.Array, row: jax.Array, n: jax.Array | int
) -> tuple[jax.Array, jax.Array]:
  """What `reciprocal_neighbors` returns.

  Args:
    nearest: int32 `[m, k]`, the nearest of each row.
    theirs: int32 `[m, k, k]`, the nearest of these.
    row: int32 `[m, 1]`.
    n: number of rows, `[m, 1]` or one for all.
  """
  returned = jnp.any(theirs == row[..., None], -1)
  reciprocal = returned & (nearest != row) & (row < n)
  neighbors = jnp.sort(jnp.where(reciprocal, nearest, n), axis=1)
  return neighbors, jnp.sum(reciprocal, 1, dtype=jnp.int32)


def _nth_outside(excluded: jax.Array, r: jax.Array, n: jax.Array) -> jax.Array:
  """The r-th row (from 0) of 0..n-1 that is not in `excluded`.

  Args:
    excluded: int32 `[m, k]`, ascending, padded with n.
    r: int32 `[m, t]`.
    n: number of rows, `[m, 1]`.
  """
  # Below the q-th excluded row e_q lie e_q - q rows that are not excluded.
  place = jnp.arange(excluded.shape[1], dtype=jnp.int32)[None]
  below = jnp.where(excluded < n, excluded - place, n)
  ahead = below[:, None, :] <= r[:, :, None]
  return r + jnp.sum(ahead, -1, dtype=jnp.int32)


def _below(keys: jax.Array, sizes: jax.Array, number: int) -> jax.Array:
  """`jax.random.randint(key, (number,), 0, size)` of each key and size.

  Its two words are drawn at once here, which compiles sooner.

  Args:
    keys: PRNG keys `[m, s]`.
    sizes: int32 `[m, s]`.
    number: static int.

  Returns:
    int32 `[m, s, number]`; 0 for a size below 1.
  """
  of_each = lambda f: jax.vmap(jax.vmap(f))
  halves = of_each(jax.random.split)(keys)
  draw = lambda key: jax.random.bits(key, (number,), jnp.uint32)
  words = of_each(jax.vmap(draw))(halves)
  size = jnp.maximum(sizes, 1).astype(jnp.uint32)[..., None]
  # 2^32 modulo the size, by which the high word counts.
  scale = jnp.uint32(2**16) % size
  scale = scale * scale % size
  high, low = words[:, :, 0] % size, words[:, :, 1] % size
  return ((high * scale + low) % size).astype(jnp.int32)


def sample_triplets(
  key: PRNGKeyArray,
  neighbors: Integer[Array, 'm k'],
  count: Integer[Array, ' m'],
  n: int,
  *,
  per_anchor: int,
  first: Integer[ArrayLike, ''] = 0,
  self_negatives: bool = False,
) -> Triplets:
  """Draws triplets uniformly from reciprocal neighbors and from the rest.

  HIER (CVPR 2023), section 3.3. Rows with fewer than two reciprocal neighbors,
  or without a negative, are not anchors: their places have weight 0.

  Args:
    key: PRNG key. What a row draws depends only on its index, not on which
      other rows are given.
    neighbors: int32 `[m, k]`, as `reciprocal_neighbors` returns them.
    count: int32 `[m]`, as `reciprocal_neighbors` returns it.
    n: number of all rows, from which negatives are drawn, a static int.
    per_anchor: number t of triplets of each anchor, drawn with replacement, a
      static int.
    first: index of the first of the m rows.
    self_negatives: whether an anchor may be its own negative, as in the
      authors' program (about 1 / n of its triplets).

  Returns:
    `Triplets` of T = m t places; the triplets of one anchor are adjacent.

  Raises:
    ValueError: for neighbors and count of other shapes, or per_anchor that is
      no integer above 0.

  Example:
    >>> import jax
    >>> from hier_jax import mining
    >>> key, near = jax.random.key(0), jax.numpy.array([[1, 2]])
    >>> count = jax.numpy.array([2])  # Row 0 of 4 has the neighbors 1 and 2.
    >>> drawn = mining.sample_triplets(key, near, count, 4, per_anchor=3)
    >>> drawn.negative.tolist()
    [3, 3, 3]
  """
  if (jnp.ndim(neighbors), jnp.ndim(count)) != (2, 1) or (
    len(neighbors) != len(count)
  ):
    raise ValueError(
      f'neighbors has shape {jnp.shape(neighbors)} and count'
      f' {jnp.shape(count)}, expected [m, k] and [m]'
    )
  key = numerics.as_key(key)
  row = first + jnp.arange(count.shape[0], dtype=jnp.int32)
  keys = jax.vmap(lambda row: jax.random.fold_in(key, row))(row)
  return draw_triplets(
    keys, row, neighbors, count, n, per_anchor, self_negatives
  )


def draw_triplets(
  keys, row, neighbors, count, n, per_anchor, self_negatives=False
):
  """`sample_triplets` of rows that may be of several sets of nodes.

  Args:
    keys: a PRNG key for each row `[m]`.
    row: int32 `[m]`, index of the row in its own set.
    neighbors: as `sample_triplets` takes them.
    count: as `sample_triplets` takes it.
    n: number of rows of the set, int or int32 `[m]`.
    per_anchor: as `sample_triplets` takes it.
    self_negatives: as `sample_triplets` takes it.

  Returns:
    `Triplets` of m t places.
  """
  per_anchor = integer('per_anchor', per_anchor)
  m = count.shape[0]
  row, n = row[:, None], jnp.broadcast_to(jnp.int32(n), (m,))[:, None]
  excluded = neighbors
  if not self_negatives:
    excluded = jnp.sort(jnp.concatenate([neighbors, row], 1), axis=1)
  rest = n[:, 0] - jnp.sum(excluded < n, 1, dtype=jnp.int32)

  keys = jax.vmap(jax.random.split)(keys)
  drawn = _below(keys, jnp.stack([count, rest], 1), per_anchor)
  positive = jnp.take_along_axis(neighbors, drawn[:, 0], 1)
  negative = _nth_outside(excluded, drawn[:, 1], n)
  usable = ((count >= 2) & (rest >= 1))[:, None]
  inside = jnp.minimum(row, n - 1)
  shape = (m, per_anchor)
  whole = lambda a: jnp.where(usable, a, inside).astype(jnp.int32).ravel()
  return Triplets(
    anchor=whole(jnp.broadcast_to(row, shape)),
    positive=whole(positive),
    negative=whole(negative),
    weight=jnp.broadcast_to(usable, shape).astype(jnp.float32).ravel(),
  )
