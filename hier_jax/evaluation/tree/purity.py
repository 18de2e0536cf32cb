"""How pure the nodes of a tree are, and how many of them hold items."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, Shaped
from numpy.typing import ArrayLike
from scipy import stats

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.structure import Tree, as_tree


class Estimate(NamedTuple):
  """A mean and its confidence interval, of no width where it is exact."""

  value: float
  low: float
  high: float


class Usage(NamedTuple):
  """How the items of a tree are spread over its inner nodes.

  Attributes:
    num_used: inner nodes with an item directly below them.
    perplexity: perplexity of the items' direct parents: num_used if all hold
      equally many items, 1 if one holds all.
    at_root: share of the items that lie directly below the root.
  """

  num_used: int
  perplexity: float
  at_root: float


class NodePurity(NamedTuple):
  """Items below each inner node of a tree, and how alike they are.

  Attributes:
    size: int64 `[P]`, items below each inner node, in the order of the nodes.
    purity: `[P, L]`, share of the most common node of each level of the
      taxonomy among these items.
    mean_purity: `[L]`, mean over the inner nodes weighted by their items. The
      root is left out unless it is the only inner node, since its purity is the
      same in every tree.
    num_used: see `Usage`.
    perplexity: see `Usage`.
  """

  size: np.ndarray
  purity: np.ndarray
  mean_purity: np.ndarray
  num_used: int
  perplexity: float


def dendrogram_purity(
  tree: Tree | Integer[ArrayLike, ' nodes'],
  labels: Shaped[ArrayLike, ' n'],
  *,
  max_exact: int = 1_000_000,
  num_samples: int = 100_000,
  confidence: float = 0.95,
  seed: int = 0,
) -> Estimate:
  """How pure the smallest subtrees around two items of a class are.

  For each pair of items of the same class, take the share of that class among
  the items below the pair's lowest common ancestor; the purity is the mean over
  all pairs. It is 1 exactly if every class has a subtree of its own. Up to
  `max_exact` items it is exact, in O(n log n) steps; above, it is estimated
  from random pairs, with a normal confidence interval.

  Args:
    tree: a `Tree` over the items, or the parent of each of its nodes.
    labels: classes of the items `[n]`, any dtype that sorts.
    max_exact: largest number of items with which all pairs are counted.
    num_samples: number of pairs that are drawn where there are more items.
    confidence: confidence level of the interval, in (0, 1).
    seed: seed of the random pairs.

  Returns:
    An `Estimate`: the mean and its confidence interval, of no width where all
    pairs are counted.

  Raises:
    UserError: not a tree, labels of another length, no class of two items, bad
      options.

  References:
    Heller and Ghahramani, Bayesian Hierarchical Clustering, ICML 2005 (its
    pairs are drawn item first, so that a class counts by its items).
    Kobren et al., A Hierarchical Algorithm for Extreme Clustering, KDD 2017,
    arXiv 1704.01858, equation 1 (all pairs alike, as here).

  Example:
    >>> from hier_jax import evaluation
    >>> parent = [4, 4, 5, 5, 6, 6, -1]
    >>> evaluation.dendrogram_purity(parent, ['a', 'a', 'b', 'b']).value
    1.0
    >>> evaluation.dendrogram_purity(parent, ['a', 'b', 'a', 'b']).value
    0.5
  """
  _checks.positive_int('num_samples', num_samples)
  _checks.positive_int('max_exact', max_exact)
  _checks.confidence(confidence)
  labels = _checks.item_labels(labels)
  tree = as_tree(tree, len(labels))
  codes = np.unique(labels, return_inverse=True)[1]
  count = np.bincount(codes)
  num_pairs = int(np.sum(count * (count - 1) // 2))
  if not num_pairs:
    raise UserError(
      f'none of the {len(count)} classes has two of the {len(codes)} items; '
      'expected one that has: check the labels'
    )
  if tree.num_leaves <= max_exact:
    total = sum(
      sum(pairs * held[code] for code, pairs in met.items()) / tree.size[node]
      for node, held, met, _ in tree.upward(codes)
    )
    return Estimate(*[float(total / num_pairs)] * 3)
  drawn = _sampled_purity(tree, codes, count, num_samples, seed)
  mean, error = drawn.mean(), stats.sem(drawn)
  width = stats.norm.ppf(0.5 + confidence / 2) * error
  low, high = np.clip([mean - width, mean + width], 0, 1)
  return Estimate(float(mean), float(low), float(high))


def node_purity(tree, labels, taxonomy: Taxonomy) -> NodePurity:
  """What the inner nodes of a tree hold, at each level of a taxonomy.

  For a tree whose inner nodes are proxies, this says how many of them are in
  use and whether each holds items of one kind.

  Args:
    tree: a `Tree` over the items, or the parent of each of its nodes.
    labels: classes of the items `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.

  Raises:
    UserError: not a tree, labels missing or unknown.
  """
  codes = taxonomy.codes(_checks.item_labels(labels))
  tree = as_tree(tree, len(codes))
  inner = slice(len(codes), None)
  size = tree.size[inner]
  purity = np.empty((len(size), taxonomy.num_levels))
  for level, nodes in enumerate(taxonomy.path.T):
    for node, _, _, most in tree.upward(nodes[codes]):
      purity[node - len(codes), level] = most / tree.size[node]
  weight = np.where(tree.parent[inner] >= 0, size, 0)
  if not weight.any():
    weight = size
  used = usage(tree, len(codes))
  mean = weight @ purity / weight.sum()
  return NodePurity(size, purity, mean, used.num_used, used.perplexity)


def usage(tree, num_items: int) -> Usage:
  """How many inner nodes of a tree hold its items, and how evenly.

  Args:
    tree: a `Tree` over the items, or the parent of each of its nodes.
    num_items: its leaves.

  Raises:
    UserError: not a tree.
  """
  parent = as_tree(tree, num_items).parent
  nodes, direct = np.unique(parent[:num_items], return_counts=True)
  share = direct / num_items
  return Usage(
    len(nodes),
    float(np.exp(-np.sum(share * np.log(share)))),
    float(np.sum(share[parent[nodes] < 0])),
  )


def _sampled_purity(tree, codes, count, num_samples, seed):
  """Purity `[num_samples]` for pairs of the same class, all alike."""
  rng = _checks.rng(seed)
  weight = count * (count - 1.0)
  group = rng.choice(len(count), num_samples, p=weight / weight.sum())
  first = rng.integers(count[group])
  second = rng.integers(count[group] - 1)
  second += second >= first
  members = np.argsort(codes, kind='stable')
  begin = (np.cumsum(count) - count)[group]
  node = tree.lca(members[begin + first], members[begin + second])
  # The group's items below the node stand between two places.
  places = np.sort(codes * tree.num_leaves + tree.start[: tree.num_leaves])
  low = group * tree.num_leaves + tree.start[node]
  below = np.searchsorted(places, [low, low + tree.size[node]])
  return (below[1] - below[0]) / tree.size[node]
