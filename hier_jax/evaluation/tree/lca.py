"""Whether common ancestors in a tree agree with a taxonomy."""

from typing import NamedTuple

import numpy as np
import tqdm

from hier_jax.errors import UserError
from hier_jax.evaluation import _checks, _correlation
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.structure import as_tree


class LcaAgreement(NamedTuple):
  """How well a tree's common ancestors agree with a taxonomy's.

  Attributes:
    spearman: rank correlation of the depths of pairs' common ancestors in both
      trees; NaN if the depth is the same for all pairs in one of them.
    kendall: the same by Kendall's tau-b.
    triplets: of the triples i, j, k in which, by the taxonomy, i and j meet
      below i and k, the share that the tree orders in the same way; NaN if
      there are none.
    tied: share in which both meet at the same node of the tree; these count as
      wrong.
  """

  spearman: float
  kendall: float
  triplets: float
  tied: float


def lca_agreement(
  tree,
  labels,
  taxonomy: Taxonomy,
  *,
  node_depth=None,
  max_pairs: int = 200_000,
  max_anchors: int = 1_000,
  seed: int = 0,
  progress: bool = False,
) -> LcaAgreement:
  """Whether items meet as deep in a tree as they do in a taxonomy.

  Args:
    tree: a `Tree` over the items, or the parent of each of its nodes.
    labels: classes of the items `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.
    node_depth: depth of each node `[num_nodes]`, such as minus the height of a
      linkage or the distance of a proxy from the origin; None for the number of
      edges above it. The correlations compare depths between branches; the
      triples only ask which of two nodes is above the other.
    max_pairs: largest number of pairs to correlate; of more, that many are
      drawn.
    max_anchors: largest number of items i whose triples are counted; of more,
      that many are drawn.
    seed: of the draws.
    progress: whether to show a bar on stderr, after some seconds.

  Raises:
    UserError: not a tree, labels missing or unknown, depths of another length
      or not finite, bad options.
  """
  codes = taxonomy.codes(_checks.item_labels(labels))
  tree = as_tree(tree, len(codes))
  deep = tree.depth if node_depth is None else np.asarray(node_depth, float)
  if deep.shape != tree.parent.shape or not np.isfinite(deep).all():
    raise UserError(
      f'`node_depth` has shape {deep.shape}; expected a finite depth for each '
      f'of the {len(tree.parent)} nodes'
    )
  max_anchors = _checks.positive_int('max_anchors', max_anchors)
  rng = _checks.rng(seed)
  i, j = _correlation.pairs(len(codes), max_pairs, rng)
  learned = deep[tree.lca(i, j)]
  known = taxonomy.lca_depth(codes[i], codes[j])
  anchors = np.arange(len(codes))
  if len(codes) > max_anchors:
    anchors = rng.choice(len(codes), max_anchors, replace=False)
  anchors = tqdm.tqdm(anchors, desc='triples', delay=3, disable=not progress)
  right, tied, total = _triples(tree, codes, taxonomy, anchors)
  return LcaAgreement(
    _correlation.spearman(learned, known),
    _correlation.kendall(learned, known),
    float(right / total) if total else float('nan'),
    float(tied / total) if total else float('nan'),
  )


def _triples(tree, codes, taxonomy, anchors):
  """Triples that the tree orders rightly, that it ties, and all of them."""
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
