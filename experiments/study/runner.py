"""Runs a job: trains, embeds, measures."""

from __future__ import annotations

import os
import time

import jax
import jax.numpy as jnp
import numpy as np

import hier_jax
from experiments.benchmarks.common import report
from experiments.study import (
  arms,
  blocks,
  features,
  folds,
  images,
  metrics,
  records,
  regimes,
  training,
)
from experiments.study.features import PARTS, Features
from experiments.study.records import Job

__all__ = ['RANKINGS', 'Runner', 'ranked_alike']

RANKINGS = 'cosine', 'hyperbolic'
_PACKAGES = 'jax', 'jaxlib', 'flax', 'optax', 'numpy', 'scipy'


class Runner:
  """Holds the data and runs jobs with it.

  Attributes:
    data: features, or the images themselves for regimes with a network.
    about: what every line says of the machine and the packages.
  """

  def __init__(self, data: Features | images.Images):
    """Standardizes features, each part by image, and moves them."""
    self.data = data
    self.about = {
      'processor': report.machine(),
      'versions': (
        f'hier_jax {hier_jax.__version__}, {report.versions(_PACKAGES)}'
      ),
      **{
        name: data.about[f'{name}_sha256'][:12]
        for name in ('images', 'features', 'weights')
      },
    }
    self._x = self._tokens = None
    if isinstance(data, Features):
      self._x = jnp.asarray(standardized(data.x))
      if data.tokens is not None:
        self._tokens = blocks.Tokens(self._x, jnp.asarray(data.tokens))

  def run(self, job: Job, ranking: str | None = None) -> dict:
    """What a job comes to.

    Args:
      job: what is asked for.
      ranking: by which the values of each class and the trees are kept, as in
        a test; None for neither.

    Returns:
      'metrics': ranking -> metric -> mean, 'trees', 'per_class', 'counts',
      'steps', 'loss', 'diverged', 'cpu_s' and `about`. A diverged run has 0
      for every metric.
    """
    start = time.process_time()
    part, trained, z = self._trained(job)
    c = arms.arm(job.arm).added.c
    labels = self.data.labels[part.held]
    finite = bool(np.isfinite(z).all())
    if not finite:
      # Every item is at the same place, which ranks worst.
      z = np.zeros_like(z)
    values = {
      name: metrics.of_run(z, labels, self.data.subgroup, of)
      for name, of in _spaces(z, c).items()
    }
    outcome = {
      'metrics': {name: _means(v) for name, v in _both(values, c).items()},
      'steps': trained.steps,
      'loss': round(trained.loss, 5) if finite else None,
      'diverged': not finite,
    }
    if ranking is not None:
      outcome |= self._details(job, trained, z, labels, values, ranking)
    seconds = time.process_time() - start
    return outcome | {'cpu_s': round(seconds, 2), **self.about}

  def _trained(self, job: Job):
    """The part of the data, the trained arm, and the held out embeddings."""
    regime = regimes.regime(job.regime)
    part = folds.part(self.data, job.split, job.fold, regime.images)
    arm, point = arms.arm(job.arm), dict(job.point)
    run = self._run(part, regime, regime.budget(job.split))
    trained = training.train(arm, point, run, dim=regime.dim, seed=job.seed)
    program = training.program_of(
      arm,
      point,
      regime.dim,
      len(part.train_classes),
      regime.backbone,
      regime.blocks,
    )
    return part, trained, self._embed(program, trained, part.held)

  def _run(self, part: folds.Part, regime: regimes.Regime, epochs: int):
    """What the regime trains on."""
    subgroup = self.data.subgroup[part.train_classes]
    if regime.backbone is None:
      return training.Run(
        self._tokens if regime.blocks else self._x,
        part.train,
        part.train_labels,
        subgroup,
        epochs,
        self.data.blocks if regime.blocks else {},
      )
    name = f'{self.data.split.name}:fit'
    return images.Run(
      self.data.split.select(part.train, name),
      part.train_labels,
      subgroup,
      epochs,
      regime.backbone,
    )

  def _embed(self, program, trained, rows):
    if program.backbone is None:
      x = self._tokens if program.blocks else self._x
      return training.embed(program, trained, blocks.take(x, rows))
    apply = lambda pixels: training.embed(program, trained, pixels)
    return self.data.embed(rows, apply, program.backbone)

  def _details(self, job, trained, z, labels, values, ranking):
    """Values of each class and of trees, by one ranking."""
    arm = arms.arm(job.arm)
    regime = regimes.regime(job.regime)
    program = training.program_of(arm, dict(job.point), regime.dim, 1)
    c = arm.added.c if ranking == 'hyperbolic' else None
    trees = metrics.of_trees(z, labels, self.data.subgroup, c)
    proxies = training.ball_proxies(program, trained.params)
    if proxies is not None and np.isfinite(proxies).all():
      trees |= metrics.of_proxies(
        z, labels, self.data.subgroup, arm.added.c, proxies
      )
    chosen = _both(values, arm.added.c)[ranking]
    per_class = metrics.of_classes(chosen, labels)
    return {
      'ranking': ranking,
      'trees': {name: round(value, 5) for name, value in trees.items()},
      'per_class': {k: records.ints(v) for k, v in per_class.items()},
      'counts': np.unique(labels, return_counts=True)[1].tolist(),
    }


def standardized(x: np.ndarray) -> np.ndarray:
  """Each part of each row with mean 0 and variance 1, float32 `[n, F]`."""
  parts = np.split(x, len(PARTS), axis=1)
  return np.concatenate([features.standardized(p) for p in parts], 1)


def ranked_alike(z: np.ndarray) -> bool:
  """Whether all rows are as long, so that cosines rank as distances do."""
  length = np.linalg.norm(z.astype(np.float64), axis=1)
  return bool(np.ptp(length) <= 1e-5 * length.max())


def _spaces(z: np.ndarray, c: float | None) -> dict[str, float | None]:
  """Rankings that differ, with their curvatures."""
  found: dict[str, float | None] = {'cosine': None}
  if c is not None and not ranked_alike(z):
    found['hyperbolic'] = c
  return found


def _both(values: dict, c: float | None) -> dict:
  """Values by each ranking, where cosine stands for both."""
  if c is None:
    return values
  return {name: values.get(name, values['cosine']) for name in RANKINGS}


def _means(values: dict[str, np.ndarray]) -> dict[str, float]:
  return {k: round(float(np.nanmean(v)), 6) for k, v in values.items()}


def share_programs():
  """Keeps compiled programs in a folder, for the next process.

  `JAX_COMPILATION_CACHE_DIR` names another.
  """
  if 'JAX_COMPILATION_CACHE_DIR' not in os.environ:
    jax.config.update('jax_compilation_cache_dir', 'runs/study/programs')
  jax.config.update('jax_persistent_cache_min_compile_time_secs', 1.0)
