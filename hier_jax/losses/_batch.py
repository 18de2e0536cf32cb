"""The pairs of a batch: its rows as anchors, against all rows and a memory."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.typing import ArrayLike

from hier_jax import numerics, poincare
from hier_jax.losses import _checks, _sharding
from hier_jax.losses._memory import Memory

__all__ = ['Pairs', 'cosine_similarity', 'distance', 'make', 'similarity']


class Pairs(NamedTuple):
  """Anchors, what they are compared with, and which pairs are which.

  Attributes:
    anchors: `[b, d]`, float32 or float64, this device's rows.
    others: `[n, d]`, the rows of all devices, then the memory's.
    positive: bool `[b, n]`, pairs of a class; no row is its own positive.
    negative: bool `[b, n]`, pairs of two classes.
  """

  anchors: jax.Array
  others: jax.Array
  positive: jax.Array
  negative: jax.Array


def make(
  z: ArrayLike,
  labels: ArrayLike,
  *,
  where: ArrayLike | None = None,
  memory: Memory | None = None,
  axis_name: str | None = None,
) -> Pairs:
  """Returns the `Pairs` of the rows that count.

  Args:
    z: `[b, d]` embeddings.
    labels: int `[b]`.
    where: bool `[b]`, the rows that count; None for all.
    memory: `Memory` whose rows are compared with too; None for none.
    axis_name: mapped axis over whose devices the batch is spread.
  """
  _checks.rows(z, labels)
  z, labels = numerics.widened(jnp.asarray(z)), jnp.asarray(labels)
  where = _sharding.mask_of(where, z)
  others, classes, counts = (
    _sharding.gather(a, axis_name) for a in (z, labels, where)
  )
  index, _ = _sharding.position(axis_name)
  places = functools.partial(jnp.arange, dtype=jnp.int32)
  itself = index * labels.shape[0] + places(labels.shape[0])
  if memory is not None:
    _checks.shape('memory.embeddings', memory.embeddings, None, z.shape[1])
    _checks.shape('memory.labels', memory.labels, len(memory.embeddings))
    remembered = lax.stop_gradient(memory.embeddings).astype(z.dtype)
    others = jnp.concatenate([others, remembered])
    classes = jnp.concatenate([classes, memory.labels])
    counts = jnp.concatenate([counts, memory.filled])
  same = labels[:, None] == classes[None]
  both = where[:, None] & counts[None]
  apart = itself[:, None] != places(counts.shape[0])[None]
  return Pairs(z, others, both & same & apart, both & ~same)


def cosine_similarity(x: ArrayLike, y: ArrayLike) -> jax.Array:
  """Cosines `[n, m]` of the rows of `[n, d]` and `[m, d]`, float32 at least."""
  x, y = (numerics.unit(numerics.widened(jnp.asarray(a))) for a in (x, y))
  return jnp.matmul(x, y.T, precision=lax.Precision.HIGHEST)


def similarity(x: jax.Array, y: jax.Array, c: ArrayLike | None) -> jax.Array:
  """Similarities `[n, m]`: cosines for c None, else minus the distances."""
  if c is None:
    return cosine_similarity(x, y)
  return -poincare.dist_matrix(x, y, c=c)


def distance(x: jax.Array, y: jax.Array, c: ArrayLike | None) -> jax.Array:
  """Distances `[n, m]` of that curvature; between directions for c None."""
  if c is not None:
    return poincare.dist_matrix(x, y, c=c)
  return poincare.dist_matrix(numerics.unit(x), numerics.unit(y), c=0) / 2
