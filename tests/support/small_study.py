"""A small stand-in for the study's features, and for its runs."""

import dataclasses

import numpy as np

from experiments.study import (
  arms,
  comparisons,
  features,
  folds,
  metrics,
  regimes,
  training,
)
from experiments.study.records import Job

CLASSES, IMAGES, DIM = 24, 5, 16


def make(seed: int = 0) -> features.Features:
  """Features of classes about centers, of two subgroups."""
  rng = np.random.default_rng(seed)
  # Each fold of split A has classes of one subgroup.
  subgroup = np.arange(CLASSES) // 2 % 2
  labels = np.repeat(np.arange(CLASSES), IMAGES).astype(np.int32)
  group = rng.standard_normal((2, DIM))
  center = group[subgroup] + rng.standard_normal((CLASSES, DIM))
  x = center[labels] + 0.5 * rng.standard_normal((len(labels), DIM))
  test = {
    'A': np.arange(CLASSES) % 2 == 1,
    'B': subgroup % 2 == 1,
  }
  names = 'images', 'features', 'weights'
  about = {f'{name}_sha256': name[0] * 64 for name in names}
  return features.Features(
    x.astype(np.float32), labels, subgroup.astype(np.int32), test, about
  )


def shrink(monkeypatch):
  """Makes runs of the regime 'tiny' short."""
  monkeypatch.setitem(regimes.REGIMES, 'tiny', regimes.Regime(4, epochs=2))
  monkeypatch.setattr(arms, 'BATCH_SIZE', 12)
  monkeypatch.setattr(training, '_CHUNK', 2)


def search_less(monkeypatch, **less):
  """Makes the search of every regime that has one small."""
  for name, regime in regimes.REGIMES.items():
    if not regime.search.points:
      continue
    search = dataclasses.replace(regime.search, **less)
    small = dataclasses.replace(regime, search=search)
    monkeypatch.setitem(regimes.REGIMES, name, small)


def outcome(score: float, **more) -> dict:
  """What a run comes to, all metrics alike."""
  names = (*metrics.PER_CLASS,)
  of = dict.fromkeys(names, score)
  return {
    'metrics': {'cosine': of, 'hyperbolic': of},
    'steps': 1,
    'loss': 0.0,
    'diverged': False,
    'cpu_s': 36.0,
    'processor': 'none',
    'versions': 'none',
    'images': 'i',
    'features': 'f',
    'weights': 'w',
    **more,
  }


def tested_lines(gains, trees=0.1, split='B', regime='a128'):
  """Test lines of SupCon's arms; gain of each in points of both metrics."""
  rng = np.random.default_rng(0)
  found = {}
  for seed in range(5):
    level = rng.uniform(3000, 5000, 40) + rng.normal(0, 20)
    for arm, (retrieval, kin) in gains.items():
      name = f'sup_con+{arm}'
      job = Job.of(regime, split, name, {}, folds.TEST, seed, 'test')
      noise = rng.normal(0, 30, (2, 40))
      line = outcome(0.5, ranking='cosine', counts=[5] * 40)
      line['per_class'] = {
        'map@r': (level + 100 * retrieval + noise[0]).astype(int).tolist(),
        metrics.KIN: (level + 100 * kin + noise[1]).astype(int).tolist(),
      }
      line['trees'] = {'dp_subgroup': 0.4, 'lca_triplets': 0.4}
      if arm in comparisons.CLAIMED:
        line['trees'] |= {
          'proxy_dp_subgroup': 0.4 + trees,
          'proxy_lca_triplets': 0.4 + trees,
        }
      found[job] = line
  return found
