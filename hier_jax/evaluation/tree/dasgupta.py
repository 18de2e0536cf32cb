"""Dasgupta's cost of a tree: similar items should meet low in it."""

import numpy as np

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.structure import as_tree


def dasgupta_cost(tree, similarity, *, normalize: bool = False) -> float:
  """Dasgupta's cost of a tree: similar items should meet low in it.

  sum_{i < j} w_ij (items below the lowest common ancestor of i and j). The
  normalized cost divides this by n sum_{i < j} w_ij. It is the mean share of
  all items that lies in the smallest subtree of a pair, weighted by w; it is 1
  if all pairs meet only at the root. Lower is better.

  Args:
    tree: a `Tree` over the items, or the parent of each of its nodes.
    similarity: w `[n, n]`, symmetric and not negative; its diagonal does not
      count.
    normalize: whether to divide.

  Raises:
    UserError: not a tree; similarities that have another shape, are negative,
      not finite or not symmetric; if normalized, no similarity above 0.

  References:
    Dasgupta, A Cost Function for Similarity-Based Hierarchical Clustering,
    STOC 2016, arXiv 1510.05043, section 2.
  """
  w = np.asarray(similarity, np.float64)
  if w.ndim != 2 or w.shape[0] != w.shape[1] or not len(w):
    raise UserError(
      f'`similarity` has shape {w.shape}; expected [items, items]'
    )
  bad = ~(np.isfinite(w) & (w >= 0))
  bad |= ~(np.abs(w - w.T) <= 1e-5 * np.max(w, initial=0, where=~bad))
  if bad.any():
    raise UserError(
      f'`similarity` holds {bad.sum()} of {w.size} entries that are negative, '
      'NaN or Inf, or not the same both ways; expected a symmetric matrix of 0 '
      'or more: shift or clip it'
    )
  tree = as_tree(tree, len(w))
  size = tree.size[tree.joins]
  cost = total = 0.0
  for place in range(len(size)):
    near = w[tree.order[place], tree.order[place + 1 :]]
    cost += near @ np.maximum.accumulate(size[place:])
    total += near.sum()
  if not normalize:
    return float(cost)
  if not total > 0:
    raise UserError(
      f'`similarity` is 0 for all pairs of the {len(w)} items; expected one '
      'above 0 to normalize by'
    )
  return float(cost / (len(w) * total))


def taxonomic_cost(tree, labels, taxonomy: Taxonomy) -> float:
  """The normalized `dasgupta_cost` with similarities from a taxonomy.

  The similarity of two items is the share of the taxonomy's levels that they
  have in common. Time is O(L n log n), without an array of similarities; the
  cost is NaN if no two items share a level.

  Args:
    tree: a `Tree` over the items, or the parent of each of its nodes.
    labels: classes of the items `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.

  Raises:
    UserError: not a tree, labels missing or unknown.
  """
  codes = taxonomy.codes(_checks.item_labels(labels))
  tree = as_tree(tree, len(codes))
  cost = total = 0
  for nodes in taxonomy.path.T:
    for node, _, met, _ in tree.upward(nodes[codes]):
      pairs_here = sum(met.values())
      cost += pairs_here * int(tree.size[node])
      total += pairs_here
  return cost / (len(codes) * total) if total else float('nan')
