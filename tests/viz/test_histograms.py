"""Distances of pairs, counted as NumPy counts them."""

import itertools

import numpy as np
import pytest

from hier_jax.errors import UserError
from hier_jax.viz import _pairs, histograms
from hier_jax.viz import theme as themes
from tests.support import collections, figures, planted_trees


def all_pairs(made):
  """Kind -> distances of all its pairs, one by one."""
  found = {'same class': [], 'same group, another class': []}
  found['another group'] = []
  groups = made.taxonomy.path[:, 0]
  for i, j in itertools.combinations(range(len(made)), 2):
    a, b = made.labels[i], made.labels[j]
    kind = 'same class' if a == b else 'same group, another class'
    if groups[a] != groups[b]:
      kind = 'another group'
    far = planted_trees.distance_of(
      made.embeddings[i], made.embeddings[j], made.c
    )
    found[kind].append(far)
  return found


def test_all_pairs_of_few_items():
  made = collections.planted(images=3)
  wanted = all_pairs(made)
  found = histograms.samples(made)
  assert [sample.name for sample in found] == list(wanted)
  for sample in found:
    exact = np.sort(wanted[sample.name])
    assert sample.total == len(exact)
    np.testing.assert_allclose(
      np.sort(sample.distances), exact, rtol=1e-6, atol=1e-9
    )


def test_bars_are_numpys_and_lines_are_medians():
  made = collections.planted(images=3)
  (axes,) = histograms.figure(made).axes
  found = histograms.samples(made)
  everything = np.concatenate([sample.distances for sample in found])
  edges = np.histogram_bin_edges(everything, 80)
  for patch, line, sample in zip(axes.patches, axes.lines, found, strict=True):
    count, _ = np.histogram(sample.distances, edges)
    # The outline goes up one side of each bar and along its top.
    x, y = patch.get_xy().T
    middle = (edges[:-1] + edges[1:]) / 2
    tops = [y[:-1][(x[:-1] < m) & (x[1:] > m)].max(initial=0) for m in middle]
    np.testing.assert_allclose(tops, 100 * count / count.sum(), atol=1e-9)
    assert line.get_xdata()[0] == np.median(sample.distances)


def test_a_sample_is_of_its_kind_and_by_its_seed(monkeypatch):
  made = collections.planted(images=6)
  everything = all_pairs(made)
  for listed in (10**6, 0):
    monkeypatch.setattr(_pairs, '_LISTED', listed)
    first, again = (histograms.samples(made, pairs=50) for _ in range(2))
    other = histograms.samples(made, pairs=50, seed=1)
    for a, b, c in zip(first, again, other, strict=True):
      assert len(a.distances) == 50 and a.total == len(everything[a.name])
      np.testing.assert_array_equal(a.distances, b.distances)
      assert not np.array_equal(a.distances, c.distances)
      exact = np.array(everything[a.name])
      near = np.abs(a.distances[:, None] - exact).min(1)
      assert near.max() < 1e-6
  (legend,) = histograms.figure(made, pairs=50).legends
  texts = [text.get_text().strip() for text in legend.get_texts()]
  assert texts[0].startswith('same class: median ')
  assert texts[0].endswith(f'50 of {first[0].total:,} pairs')


@pytest.mark.parametrize('listed', [0, 10**6])
def test_each_pair_is_as_likely_as_any_other(listed, monkeypatch):
  monkeypatch.setattr(_pairs, '_LISTED', listed)
  coarse = np.array([0, 0, 0, 0, 1, 1, 1, 2])
  fine = np.array([0, 0, 1, 1, 2, 2, 3, 4])
  first, _, total = _pairs.pairs(coarse, fine, 5, np.random.default_rng(0))
  assert total == 6 and len(first) == 5
  draw = np.random.default_rng(0)
  num = 20_000
  monkeypatch.setattr(_pairs, '_ROUNDS', 99)
  rows = [_pairs.pairs(coarse, fine, 5, draw)[:2] for _ in range(num // 5)]
  pairs, count = np.unique(
    np.concatenate(rows, 1).T, axis=0, return_counts=True
  )
  expected = [[0, 2], [0, 3], [1, 2], [1, 3], [4, 6], [5, 6]]
  assert pairs.tolist() == expected
  np.testing.assert_allclose(count / num, 1 / 6, atol=0.015)


def test_without_a_taxonomy_there_are_two_kinds():
  made = collections.planted(images=2, taxonomy=None, c=None, proxies=None)
  names = [sample.name for sample in histograms.samples(made)]
  assert names == ['same class', 'another class']
  (axes,) = histograms.figure(made).axes
  assert axes.get_xlabel() == 'cosine distance'


def test_a_kind_without_pairs_is_left_out():
  made = collections.planted(images=1)
  names = [sample.name for sample in histograms.samples(made)]
  assert 'same class' not in names and len(names) == 2


def test_equal_items_have_a_figure(tmp_path):
  made = collections.planted(images=2)
  same = collections.planted(images=2, embeddings=0 * made.embeddings)
  themes.write(histograms.figure(same), tmp_path / 'a.png')


def test_names_are_text(tmp_path):
  made = collections.planted(images=2, title=figures.HOSTILE[1])
  themes.write(histograms.figure(made), tmp_path / 'a.svg')
  assert figures.HOSTILE[1] in figures.svg_texts(tmp_path / 'a.svg')


def test_mistakes():
  with pytest.raises(UserError, match='have no labels'):
    histograms.figure(collections.scattered(9))
  one = collections.planted(
    images=1, labels=np.array([0]), ids=('a',), embeddings=np.zeros((1, 2))
  )
  with pytest.raises(UserError, match='two or more'):
    histograms.figure(one)
  with pytest.raises(UserError, match='`pairs` is 0'):
    histograms.samples(collections.planted(), pairs=0)
