"""A small stand-in for the study's features, and for its runs."""

import numpy as np

from experiments.study import arms, features, metrics, regimes, training

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
  about = {'features_sha256': 'f' * 64, 'weights_sha256': 'w' * 64}
  return features.Features(
    x.astype(np.float32), labels, subgroup.astype(np.int32), test, about
  )


def shrink(monkeypatch):
  """Makes runs of the regime 'tiny' short."""
  monkeypatch.setitem(regimes.REGIMES, 'tiny', regimes.Regime(4, epochs=2))
  monkeypatch.setattr(arms, 'BATCH_SIZE', 12)
  monkeypatch.setattr(training, '_CHUNK', 2)


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
    'features': 'f',
    'weights': 'w',
    **more,
  }
