"""Points that lie about where their taxonomy is, and slow geometry for them."""

import math

import numpy as np

from hier_jax.evaluation.taxonomy import Taxonomy

TAXONOMY = Taxonomy.from_levels(
  [[i // 4, i // 2] for i in range(8)] + [[-1, -1]],
  level_names=['top', 'group', 'class'],
)
SPACES = [('cosine', None), ('euclidean', 0.0), ('hyperbolic', 0.5)]


def tree_like(rng, n, d=6):
  """Points of classes that are near where their taxonomy is, in a ball."""
  y = rng.integers(0, 9, n)
  x = 0.1 * rng.normal(size=(n, d))
  for level in range(3):
    center = 0.5**level * rng.normal(size=(len(TAXONOMY.node_names), d))
    x += center[TAXONOMY.path[y, level]]
  return x * (0.9 / np.linalg.norm(x, axis=1).max()), y


def distance_of(x, y, distance, c):
  """Distance of two rows."""
  if distance == 'cosine':
    return 1 - x @ y / math.sqrt((x @ x) * (y @ y))
  square = (x - y) @ (x - y)
  if distance == 'euclidean':
    return math.sqrt(square)
  ratio = square / ((1 - c * (x @ x)) * (1 - c * (y @ y)))
  return math.acosh(1 + 2 * c * ratio) / math.sqrt(c)


def centroid(x, distance, c):
  """Centroid of rows `[n, d]`."""
  if distance == 'cosine':
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
  if not c:
    return x.mean(0)
  gap = 1 - c * np.sum(x**2, 1)
  time, space = np.mean((2 - gap) / gap), np.mean(2 * x / gap[:, None], 0)
  return space / (time + math.sqrt(time**2 - c * space @ space))
