"""Curves of groups of runs."""

import numpy as np
import pytest
from matplotlib import colors

from hier_jax.training.report import curves
from hier_jax.training.report import runs as runs_lib
from hier_jax.viz import theme as themes
from tests.support import finished_runs


@pytest.fixture
def three(tmp_path):
  return finished_runs.three(tmp_path / 'study')


def test_a_run_of_one_epoch_is_seen(tmp_path):
  (groups,) = [
    runs_lib.groups(runs_lib.load([finished_runs.make(tmp_path / 'a', 0.5)]))
  ]
  for axes in curves.figure(groups, 'recall@1', 'R@1').axes:
    (line,) = axes.lines
    assert line.get_marker() == 'o' and line.get_markersize() > 0


def test_curves_are_means_with_a_band_over_seeds(three):
  groups = runs_lib.groups(runs_lib.load([three]))
  loss, retrieval = curves.figure(groups, 'recall@1', 'R@1').axes
  (line,) = loss.lines
  # Epoch 1: steps 1 and 2. Epoch 2: step 3 alone, since step 4 was skipped.
  np.testing.assert_allclose(line.get_xydata(), [[1, 4.5], [2, 3.0]])
  (line,) = retrieval.lines
  np.testing.assert_allclose(line.get_xydata(), [[0, 20], [2, 60]])
  (band,) = retrieval.collections
  (path,) = band.get_paths()
  ends = {tuple(np.round(p, 9)) for p in path.vertices}
  assert ends == {(0, 20), (2, 50), (2, 70)}
  names = [loss.get_xlabel(), loss.get_ylabel(), retrieval.get_ylabel()]
  assert names == [
    'epoch',
    'training loss, mean of an epoch',
    'R@1 on the test split (%)',
  ]


def test_runs_without_metrics_have_no_curve(three):
  for path in three.glob('*/metrics.jsonl'):
    path.unlink()
  groups = runs_lib.groups(runs_lib.load([three]))
  loss, retrieval = curves.figure(groups, 'recall@1', 'R@1').axes
  for axes in (loss, retrieval):
    assert axes.lines[0].get_xydata().shape == (0, 2)


def test_curves_have_a_theme(three):
  groups = runs_lib.groups(runs_lib.load([three]))
  drawn = curves.figure(groups, 'recall@1', 'R@1', theme='dark')
  look = themes.THEMES['dark']
  assert drawn.get_facecolor() == colors.to_rgba(look.paper)
  loss, _ = drawn.axes
  assert loss.yaxis.label.get_color() == look.ink
  assert loss.lines[0].get_color() == look.hues[0]
