"""How well a tree over items holds a taxonomy: all tree metrics in one call."""

from collections.abc import Sequence

import numpy as np

from hier_jax.evaluation import taxonomy as taxonomy_lib
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.dasgupta import taxonomic_cost
from hier_jax.evaluation.tree.lca import LcaAgreement, lca_agreement
from hier_jax.evaluation.tree.purity import dendrogram_purity
from hier_jax.evaluation.tree.structure import as_tree


def tree_metrics(
  tree,
  labels,
  taxonomy: Taxonomy,
  *,
  node_depth=None,
  max_pairs: int = 200_000,
  seed: int = 0,
  progress: bool = False,
) -> dict[str, float]:
  """Metrics of a tree over items with classes in a taxonomy.

  Args:
    tree: a `Tree` over the items, or the parent of each of its nodes.
    labels: classes of the items `[n]`, see `Taxonomy.codes`.
    taxonomy: the classes' tree.
    node_depth: `[num_nodes]`, see `lca_agreement`.
    max_pairs: pairs that are correlated: all, or that many at random.
    seed: of all that is random.
    progress: whether to show a bar on stderr, after some seconds.

  Returns:
    '<level>/purity', the dendrogram purity of every level, NaN where no two
    items share a node of it; 'lca_spearman', 'lca_kendall', 'lca_triplets' and
    'lca_tied' of `lca_agreement`; 'dasgupta', the cost of
    `taxonomic_cost`. Where a purity is of pairs drawn at random (see
    `dendrogram_purity`), '<level>/purity/ci95' is half the width of its 95 %
    confidence interval.

  Raises:
    UserError: not a tree, labels missing or unknown.
  """
  codes = taxonomy_lib.expect(taxonomy).codes(labels)
  tree = as_tree(tree, len(codes))
  purity, sampled = [], {}
  for name, nodes in zip(
    taxonomy.level_names, taxonomy.path.T[:, codes], strict=True
  ):
    purity.append(float('nan'))
    if len(np.unique(nodes)) < len(nodes):
      found = dendrogram_purity(tree, nodes, seed=seed)
      purity[-1] = found.value
      if found.low < found.high:
        sampled[f'{name}/purity/ci95'] = (found.high - found.low) / 2
  lca = lca_agreement(
    tree,
    labels,
    taxonomy,
    node_depth=node_depth,
    max_pairs=max_pairs,
    seed=seed,
    progress=progress,
  )
  cost = taxonomic_cost(tree, labels, taxonomy)
  keys = tree_keys(taxonomy.level_names)
  return dict(zip(keys, [*purity, *lca, cost], strict=True)) | sampled


def tree_keys(level_names: Sequence[str]) -> list[str]:
  """Keys of the result of `tree_metrics`, in order."""
  lca = LcaAgreement._fields
  return [
    *(f'{name}/purity' for name in level_names),
    *(f'lca_{name}' for name in lca),
    'dasgupta',
  ]
