"""Trees over items, and their common ancestors the slow way."""

import numpy as np


def random_tree(rng, num_items, num_inner):
  """Parents of items and at most as many inner nodes, in no order."""
  # Each inner node hangs on an earlier one, items on any of them.
  above = [-1, *(int(rng.integers(i)) for i in range(1, num_inner))]
  held = rng.integers(num_inner, size=num_items)
  used = {0}
  for node in held:
    while node not in used:
      used.add(int(node))
      node = above[node]
  number = dict(zip(used, rng.permutation(len(used)) + num_items, strict=True))
  parent = np.full(num_items + len(used), -1)
  parent[:num_items] = [number[int(node)] for node in held]
  for node in used - {0}:
    parent[number[node]] = number[above[node]]
  return parent


def binary_tree(rng, num_items):
  """Parents of a random binary tree, as a linkage gives them."""
  parent = np.full(2 * num_items - 1, -1)
  free = list(range(num_items))
  for node in range(num_items, 2 * num_items - 1):
    for _ in range(2):
      parent[free.pop(rng.integers(len(free)))] = node
    free.append(node)
  return parent


def way_up(parent, node):
  """The node, its parent, ..., the root."""
  way = [node]
  while parent[way[-1]] >= 0:
    way.append(int(parent[way[-1]]))
  return way


def common_ancestor(parent, a, b):
  """The deepest node on both ways up."""
  other = set(way_up(parent, b))
  return next(node for node in way_up(parent, a) if node in other)


def below(parent, node, num_items):
  """Items whose way up meets the node."""
  return [i for i in range(num_items) if node in way_up(parent, i)]


def labeled_trees():
  """Trees over items, and the items' classes 0 to 8."""
  rng = np.random.default_rng(0)
  for n, inner in ((2, 1), (15, 6), (25, 40)):
    yield random_tree(rng, n, inner), rng.integers(0, 9, n)
  for n in (2, 13, 24):
    yield binary_tree(rng, n), rng.integers(0, 9, n)
