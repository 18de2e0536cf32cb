"""Triplets of reciprocal nearest neighbours, with static shapes.

HIER trains its proxies on triplets (anchor, positive, negative) whose first two
are near each other and whose third is not. Every function here has shapes that
depend on its arguments' shapes alone, so it traces once; what does not exist
has weight 0.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
from jax import lax

__all__ = ['Triplets', 'reciprocal_neighbors', 'sample_triplets']


class Triplets(NamedTuple):
  """Rows of the nodes that make up triplets; every field is `[T]`.

  Attributes:
    anchor: int32 row i.
    positive: int32 row j, a reciprocal neighbour of i.
    negative: int32 row k, neither.
    weight: float32, 1 for a triplet and 0 for an empty place.
  """

  anchor: jax.Array
  positive: jax.Array
  negative: jax.Array
  weight: jax.Array


def reciprocal_neighbors(similarity, k):
  """Members of each row's k nearest that count the row among theirs.

  Kim et al., "Self-Taught Metric Learning without Labels" (CVPR 2022), as HIER
  uses it: the k nearest of row i include i, which is not its own neighbour.

  Args:
    similarity: `[n, n]`, symmetric, largest on the diagonal. Equal values
      prefer the lower row.
    k: static int, 1 <= k <= n.

  Returns:
    neighbors: int32 `[n, k]`, ascending, padded with n.
    count: int32 `[n]`, how many are real.

  Raises:
    ValueError: for k outside 1..n.
  """
  n = similarity.shape[0]
  chex.assert_shape(similarity, (n, n))
  if not 1 <= k <= n:
    raise ValueError(
      f'k = {k} nearest neighbours asked of {n} rows: k must be in 1..{n}'
    )
  _, nearest = lax.top_k(similarity, k)
  rows = jnp.arange(n)[:, None]
  is_near = jnp.zeros((n, n), bool).at[rows, nearest].set(True)
  reciprocal = jnp.take_along_axis(is_near.T, nearest, 1) & (nearest != rows)
  neighbors = jnp.sort(jnp.where(reciprocal, nearest, n), axis=1)
  return neighbors, jnp.sum(reciprocal, 1)


def _nth_outside(excluded, r):
  """The r-th row (from 0) that is not in `excluded`.

  Args:
    excluded: int32 `[n, k]`, ascending, padded with n.
    r: int32 `[n, t]`.
  """
  # Below the q-th excluded row e_q lie e_q - q rows that are not excluded.
  n, k = excluded.shape
  below = jnp.where(excluded < n, excluded - jnp.arange(k)[None], n)
  return r + jnp.sum(below[:, None, :] <= r[:, :, None], -1)


def sample_triplets(key, similarity, *, k, per_anchor, self_negatives=False):
  """Draws triplets uniformly from reciprocal neighbours and from the rest.

  HIER (CVPR 2023), section 3.3. Rows with fewer than two reciprocal neighbours,
  or without a negative, are no anchors: their places have weight 0.

  Args:
    key: PRNG key.
    similarity: `[n, n]`, see `reciprocal_neighbors`.
    k: static int, neighbours that count as near, the row itself included.
    per_anchor: static int t, triplets of each anchor, drawn with replacement.
    self_negatives: the authors' program lets an anchor be its own negative
      (about 1 / n of its triplets); True does too.

  Returns:
    `Triplets` of T = n t places, those of one anchor side by side.
  """
  n = similarity.shape[0]
  neighbors, count = reciprocal_neighbors(similarity, k)
  rows = jnp.arange(n, dtype=neighbors.dtype)[:, None]
  excluded = neighbors
  if not self_negatives:
    excluded = jnp.sort(jnp.concatenate([neighbors, rows], 1), axis=1)
  rest = n - jnp.sum(excluded < n, 1)
  key_positive, key_negative = jax.random.split(key)
  shape = (n, per_anchor)
  drawn = jax.random.randint(key_positive, shape, 0, count[:, None])
  positive = jnp.take_along_axis(neighbors, drawn, 1)
  drawn = jax.random.randint(key_negative, shape, 0, rest[:, None])
  negative = _nth_outside(excluded, drawn)
  usable = ((count >= 2) & (rest >= 1))[:, None]
  whole = lambda a: jnp.where(usable, a, rows).astype(jnp.int32).ravel()
  return Triplets(
    anchor=whole(jnp.broadcast_to(rows, shape)),
    positive=whole(positive),
    negative=whole(negative),
    weight=jnp.broadcast_to(usable, shape).astype(jnp.float32).ravel(),
  )
