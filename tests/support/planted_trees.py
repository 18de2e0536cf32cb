"""Hierarchies planted in the ball, and what is found of them."""

import collections
import math

import numpy as np

# A leaf is None; one hangs at the root, one branch is deep, one is wide.
PLANTED = (
  (None, None, (None, None, (None, None))),
  None,
  ((None, None), (None, None), (None, None)),
  (None, None, None, None),
)
BINARY = (((None, None), (None, (None, None))), ((None, None), None))


def plant(spec, step=3.0):
  """Sarkar's placement in the disk at c = 1, by complex numbers.

  Returns:
    points of the leaves and of the internal nodes, `[., 2]`, the root first,
    and the leaves below each internal node.
  """
  leaves, inner, below = [], [], set()

  def place(spec, x, back, root=False):
    if spec is None:
      leaves.append(x)
      return [len(leaves) - 1]
    inner.append(x)
    found = []
    for j, child in enumerate(spec):
      turn = j / len(spec) if root else (j + 1) / (len(spec) + 1)
      z = math.tanh(step / 2) * np.exp(1j * (back + 2 * math.pi * turn))
      y = (x + z) / (1 + np.conj(x) * z)
      # The direction in which the parent is seen from the child.
      seen = np.angle((x - y) / (1 - np.conj(y) * x))
      found += place(child, y, seen)
    below.add(frozenset(found))
    return found

  place(spec, 0j, 0.0, root=True)
  to_plane = lambda z: np.stack([np.real(z), np.imag(z)], -1)
  return to_plane(np.array(leaves)), to_plane(np.array(inner)), below


def distance_of(x, y, c=1.0):
  square = np.sum((x - y) ** 2)
  ratio = square / ((1 - c * (x @ x)) * (1 - c * (y @ y)))
  return math.acosh(1 + 2 * c * ratio) / math.sqrt(c)


def in_ball(rng, n, d, c=1.0, low=0.0):
  """Points from `low` to 0.98 of the radius."""
  x = rng.normal(size=(n, d))
  radius = rng.uniform(low, 0.98, size=(n, 1)) / math.sqrt(c)
  return radius * x / np.linalg.norm(x, axis=1, keepdims=True)


def groups(tree):
  """The leaves below each internal node, as sets, each once."""
  below = collections.defaultdict(set)
  for leaf in range(tree.num_leaves):
    node = tree.parent[leaf]
    while node >= 0:
      below[node].add(leaf)
      node = tree.parent[node]
  return {frozenset(leaves) for leaves in below.values()}
