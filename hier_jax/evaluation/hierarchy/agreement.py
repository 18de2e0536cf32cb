"""How a tree over items agrees with their classes and with a taxonomy.

Trees are parents of nodes, see `dendrogram`: the items first, then the inner
nodes.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from hier_jax.errors import UserError
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.dendrogram import laid_out


class Estimate(NamedTuple):
  """A metric and its confidence interval, of no width where it is exact."""

  value: float
  low: float
  high: float


class LcaAgreement(NamedTuple):
  """How a tree's common ancestors agree with those of a taxonomy.

  Attributes:
    spearman: rank correlation of the depths of the pairs' common ancestors;
      NaN where one of both is the same for all pairs.
    kendall: likewise, Kendall's tau-b.
    triplets: share of the triples of items i, j, k, where by the taxonomy i and
      j meet below i and k, that the tree orders so too; NaN without any.
    tied: share where in the tree both meet at one node: they count as wrong.
  """

  spearman: float
  kendall: float
  triplets: float
  tied: float


class Usage(NamedTuple):
  """What the items of a tree hang under.

  Attributes:
    num_used: inner nodes with an item directly below them.
    perplexity: of the items' direct parents: num_used where they hold equally
      many each, 1 where one holds all.
    at_root: share of the items directly below the root.
  """

  num_used: int
  perplexity: float
  at_root: float


class NodePurity(NamedTuple):
  """Items below each inner node of a tree, and how alike they are.

  Attributes:
    size: int64 `[P]`, items below each inner node, in the order of the nodes.
    purity: `[P, L]`, share of the commonest node of each level of the taxonomy
      among them.
    mean_purity: `[L]`, mean over the inner nodes, weighted by their items,
      without the root, whose purity no tree changes (unless it is the only
      one).
    num_used: see `Usage`.
    perplexity: likewise.
  """

  size: np.ndarray
  purity: np.ndarray
  mean_purity: np.ndarray
  num_used: int
  perplexity: float


def dendrogram_purity(
  tree,
  labels,
  *,
  max_exact: int = 200_000,
  num_samples: int = 100_000,
  confidence: float = 0.95,
  seed: int = 0,
) -> Estimate:
  """How pure the smallest subtrees are that hold two items of a class.

  The mean over all pairs of items of the same class of the share of that class
  among the items below their lowest common ancestor: 1 exactly where every
  class has a subtree of its own. Exact in O(n log n) steps; above `max_exact`
  items from pairs drawn at random, with a normal confidence interval.

  Args:
    tree: see `dendrogram.laid_out`.
    labels: classes of the items `[n]`, any dtype that sorts.
    max_exact: most items for which all pairs are counted.
    num_samples: pairs drawn above that.
    confidence: of the interval.
    seed: of the draw.

  Raises:
    UserError: not a tree, labels of another length, no class of two items.

  References:
    Heller and Ghahramani, Bayesian Hierarchical Clustering, ICML 2005 (its
    pairs are drawn item first, so that a class counts by its items).
    Kobren et al., A Hierarchical Algorithm for Extreme Clustering, KDD 2017,
    arXiv 1704.01858, equation 1 (all pairs alike, as here).
  """
  labels = _labels(labels)
  tree = laid_out(tree, len(labels))
  codes = np.unique(labels, return_inverse=True)[1]
  count = np.bincount(codes)
  num_pairs = int(np.sum(count * (count - 1) // 2))
  if not num_pairs:
    raise UserError(
      f'none of the {len(count)} classes has two of the {len(codes)} items; '
      'expected one that has: check the labels'
    )
  if tree.num_items <= max_exact:
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


def dasgupta_cost(tree, similarity, *, normalise: bool = False) -> float:
  """Dasgupta's cost of a tree: similar items should meet low in it.

  sum_{i < j} w_ij (items below the lowest common ancestor of i and j). The
  normalised cost is that over n sum_{i < j} w_ij: the mean share of all items
  that the smallest subtree of a pair holds, pairs drawn by w; 1 where all meet
  at the root only. Less is better.

  Args:
    tree: see `dendrogram.laid_out`.
    similarity: w `[n, n]`, symmetric and not negative; its diagonal does not
      count.
    normalise: whether to divide.

  Raises:
    UserError: not a tree, similarities of another shape, negative or not
      finite or not symmetric, and where normalised none above 0.

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
  tree = laid_out(tree, len(w))
  size = tree.size[tree.joins]
  cost = total = 0.0
  for place in range(len(size)):
    near = w[tree.order[place], tree.order[place + 1 :]]
    cost += near @ np.maximum.accumulate(size[place:])
    total += near.sum()
  if not normalise:
    return float(cost)
  if not total > 0:
    raise UserError(
      f'`similarity` is 0 for all pairs of the {len(w)} items; expected one '
      'above 0 to normalise by'
    )
  return float(cost / (len(w) * total))


def taxonomic_cost(tree, labels, taxonomy: Taxonomy) -> float:
  """`dasgupta_cost` of a tree where kin are similar, normalised.

  The similarity of two items is the share of the taxonomy's levels at which
  they are the same. O(L n log n), without an array of it; NaN where no two
  items share a level.

  Args:
    tree: see `dendrogram.laid_out`.
    labels: classes of the items `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.

  Raises:
    UserError: not a tree, labels missing or unknown.
  """
  codes = taxonomy.codes(_labels(labels))
  tree = laid_out(tree, len(codes))
  cost = total = 0
  for nodes in taxonomy.path.T:
    for node, _, met, _ in tree.upward(nodes[codes]):
      pairs_here = sum(met.values())
      cost += pairs_here * int(tree.size[node])
      total += pairs_here
  return cost / (len(codes) * total) if total else float('nan')


def lca_agreement(
  tree,
  labels,
  taxonomy: Taxonomy,
  *,
  node_depth=None,
  max_pairs: int = 200_000,
  max_anchors: int = 1_000,
  seed: int = 0,
) -> LcaAgreement:
  """Whether items meet as deep in a tree as they do in a taxonomy.

  Args:
    tree: see `dendrogram.laid_out`.
    labels: classes of the items `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.
    node_depth: how deep each node lies `[num_nodes]`, such as minus the height
      of a linkage or the distance of a proxy from the origin; None for the
      number of edges above it. The correlations compare it between branches;
      the triples only ask which of two nodes is above the other.
    max_pairs: pairs that are correlated: all, or that many at random.
    max_anchors: items i whose triples are counted: all, or that many at random.
    seed: of the draws.

  Raises:
    UserError: not a tree, labels missing or unknown, depths of another length
      or not finite.
  """
  codes = taxonomy.codes(_labels(labels))
  tree = laid_out(tree, len(codes))
  deep = tree.depth if node_depth is None else np.asarray(node_depth, float)
  if deep.shape != tree.parent.shape or not np.isfinite(deep).all():
    raise UserError(
      f'`node_depth` has shape {deep.shape}; expected a finite depth for each '
      f'of the {len(tree.parent)} nodes'
    )
  rng = np.random.default_rng(seed)
  i, j = pairs(len(codes), max_pairs, rng)
  learned = deep[tree.lca(i, j)]
  known = taxonomy.lca_depth(codes[i], codes[j])
  right, tied, total = _triples(tree, codes, taxonomy, max_anchors, rng)
  return LcaAgreement(
    spearman(learned, known),
    _kendall(learned, known),
    float(right / total) if total else float('nan'),
    float(tied / total) if total else float('nan'),
  )


def node_purity(tree, labels, taxonomy: Taxonomy) -> NodePurity:
  """What the inner nodes of a tree hold, at each level of a taxonomy.

  For a tree whose inner nodes are proxies: how many of them are in use, and
  whether what lies below each is of one kind.

  Args:
    tree: see `dendrogram.laid_out`.
    labels: classes of the items `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.

  Raises:
    UserError: not a tree, labels missing or unknown.
  """
  codes = taxonomy.codes(_labels(labels))
  tree = laid_out(tree, len(codes))
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
    tree: see `dendrogram.laid_out`.
    num_items: its leaves.

  Raises:
    UserError: not a tree.
  """
  parent = laid_out(tree, num_items).parent
  nodes, direct = np.unique(parent[:num_items], return_counts=True)
  share = direct / num_items
  return Usage(
    len(nodes),
    float(np.exp(-np.sum(share * np.log(share)))),
    float(np.sum(share[parent[nodes] < 0])),
  )


def pairs(
  num: int, most: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
  """All pairs i < j of 0 .. num - 1, or `most` of them at random."""
  if num * (num - 1) // 2 <= most:
    return np.triu_indices(num, 1)
  i, j = rng.integers(num, size=most), rng.integers(num - 1, size=most)
  j = np.where(j >= i, j + 1, j)
  return np.minimum(i, j), np.maximum(i, j)


def _kendall(x, y) -> float:
  if len(x) < 2:
    return float('nan')
  return float(stats.kendalltau(x, y).statistic)


def spearman(x: np.ndarray, y: np.ndarray) -> float:
  """Rank correlation of `[n]` and `[n]`; NaN where either is constant."""
  if len(x) < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
    return float('nan')
  return float(stats.spearmanr(x, y).statistic)


def _labels(labels) -> np.ndarray:
  labels = np.asarray(labels)
  if labels.ndim != 1 or not len(labels):
    raise UserError(
      f'`labels` has shape {labels.shape}; expected [items], one or more'
    )
  return labels


def _sampled_purity(tree, codes, count, num_samples, seed):
  """Purity `[num_samples]` for pairs of the same class, all alike."""
  rng = np.random.default_rng(seed)
  weight = count * (count - 1.0)
  group = rng.choice(len(count), num_samples, p=weight / weight.sum())
  first = rng.integers(count[group])
  second = rng.integers(count[group] - 1)
  second += second >= first
  members = np.argsort(codes, kind='stable')
  begin = (np.cumsum(count) - count)[group]
  node = tree.lca(members[begin + first], members[begin + second])
  # The group's items below the node stand between two places.
  places = np.sort(codes * tree.num_items + tree.start[: tree.num_items])
  low = group * tree.num_items + tree.start[node]
  below = np.searchsorted(places, [low, low + tree.size[node]])
  return (below[1] - below[0]) / tree.size[node]


def _triples(tree, codes, taxonomy, max_anchors, rng):
  """Triples that the tree orders rightly, that it ties, and all of them."""
  anchors = np.arange(len(codes))
  if len(codes) > max_anchors:
    anchors = rng.choice(len(codes), max_anchors, replace=False)
  joins = tree.depth[tree.joins]
  width = 1 + int(tree.depth.max())
  shape = (1 + taxonomy.num_levels, width)
  sums = np.zeros(3)
  for anchor in anchors:
    place = tree.start[anchor]
    # From the anchor outwards the ancestors can only rise.
    met = [
      np.minimum.accumulate(joins[:place][::-1]),
      np.minimum.accumulate(joins[place:]),
    ]
    others = np.concatenate([tree.order[:place][::-1], tree.order[place + 1 :]])
    known = taxonomy.lca_depth(codes[anchor], codes[others])
    cell = known.astype(np.int64) * width + np.concatenate(met)
    table = np.bincount(cell, minlength=shape[0] * width).reshape(shape)
    higher = np.cumsum(table, 0) - table
    above = np.cumsum(higher, 1) - higher
    sums += (
      np.sum(table * above),
      np.sum(table * higher),
      np.sum(table.sum(1) * higher.sum(1)),
    )
  return sums
