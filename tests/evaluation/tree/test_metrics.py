"""Every metric of a tree under one call."""

import functools
import math

import numpy as np

from hier_jax.evaluation.tree import metrics
from hier_jax.evaluation.tree.dasgupta import taxonomic_cost
from hier_jax.evaluation.tree.lca import lca_agreement
from hier_jax.evaluation.tree.metrics import tree_metrics
from hier_jax.evaluation.tree.purity import dendrogram_purity
from tests.support import trees
from tests.support.taxonomic_data import TAXONOMY


def test_tree_metrics():
  rng = np.random.default_rng(3)
  parent, y = trees.random_tree(rng, 40, 15), rng.integers(0, 9, 40)
  found = tree_metrics(parent, y, TAXONOMY)
  for level, name in enumerate(TAXONOMY.level_names):
    expected = dendrogram_purity(parent, TAXONOMY.path[y, level])
    assert found[f'{name}/purity'] == expected.value
  lca = lca_agreement(parent, y, TAXONOMY)
  keys = ['lca_spearman', 'lca_kendall', 'lca_triplets', 'lca_tied']
  assert [found[key] for key in keys] == list(lca)
  assert found['dasgupta'] == taxonomic_cost(parent, y, TAXONOMY)
  assert set(found) == {
    'top/purity', 'group/purity', 'class/purity', *keys, 'dasgupta',
  }  # fmt: skip


def test_tree_of_the_taxonomy_itself():
  found = tree_metrics(TAXONOMY.parents(), TAXONOMY.classes, TAXONOMY)
  assert (found['top/purity'], found['group/purity']) == (1, 1)
  assert math.isnan(found['class/purity'])
  assert (found['lca_triplets'], found['lca_tied']) == (1, 0)


def test_a_sampled_purity_comes_with_its_interval(monkeypatch):
  rng = np.random.default_rng(4)
  parent, y = trees.binary_tree(rng, 200), rng.integers(0, 9, 200)
  whole = tree_metrics(parent, y, TAXONOMY)
  sampled = functools.partial(dendrogram_purity, max_exact=1, num_samples=4000)
  monkeypatch.setattr(metrics, 'dendrogram_purity', sampled)
  found = tree_metrics(parent, y, TAXONOMY, seed=5)
  for name in TAXONOMY.level_names:
    key = f'{name}/purity'
    assert 0 < found[f'{key}/ci95'] < 0.02
    assert abs(found[key] - whole[key]) <= 2 * found[f'{key}/ci95']
  assert len(found) == len(whole) + 3
