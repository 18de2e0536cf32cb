"""What an added loss is told of the training images before the first step.

Each function is an `Added.context`: (features of the training images or None,
their labels, each class's subgroup) -> arrays by name.
"""

from __future__ import annotations

import numpy as np

from experiments.study import controls

__all__ = [
  'class_cosines',
  'classes',
  'flat_cosines',
  'flat_levels',
  'pseudo_levels',
  'sizes',
  'true_levels',
]

# Nodes of the levels above the classes, as shares of the classes.
_LEVELS = 1 / 32, 1 / 8


def pseudo_levels(x, labels, subgroup=None) -> dict[str, np.ndarray]:
  """Average linkage of the class means of any features."""
  del subgroup
  nodes = sizes(int(labels.max()) + 1)
  return {'levels': controls.pseudo_levels(np.asarray(x), labels, nodes)}


def classes(x, labels, subgroup) -> dict[str, np.ndarray]:
  """The classes as the only level."""
  del x, subgroup
  return {'levels': np.arange(int(labels.max()) + 1, dtype=np.int32)[:, None]}


def flat_levels(x, labels, subgroup) -> dict[str, np.ndarray]:
  """Each class by itself at every level: before there are pseudo-levels."""
  (level,) = classes(x, labels, subgroup).values()
  return {'levels': np.tile(level, (1, len(sizes(len(level))) + 1))}


def true_levels(x, labels, subgroup) -> dict[str, np.ndarray]:
  """The annotated hierarchy: the upper bound."""
  del x, labels
  return {'levels': controls.true_levels(subgroup)}


def class_cosines(x, labels, subgroup=None) -> dict[str, np.ndarray]:
  """Cosines of the class means."""
  del subgroup
  means = controls.class_means(np.asarray(x), labels)
  unit = means / np.linalg.norm(means, axis=1, keepdims=True)
  return {'teacher': np.float32(unit @ unit.T)}


def flat_cosines(x, labels, subgroup) -> dict[str, np.ndarray]:
  """No two classes are alike: before there are class means."""
  del x, subgroup
  return {'teacher': np.eye(int(labels.max()) + 1, dtype=np.float32)}


def sizes(number: int) -> list[int]:
  """Numbers of nodes of the pseudo-levels above that many classes, the coarsest
  first.
  """
  return sorted({max(2, round(share * number)) for share in _LEVELS})
