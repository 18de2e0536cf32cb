"""Which classes are trained on and which are measured."""

from typing import NamedTuple

import numpy as np

from experiments.study.features import Features
from experiments.study.images import Images
from hier_jax.errors import UserError

__all__ = ['FOLDS', 'TEST', 'Part', 'part']

FOLDS = 5
TEST = 'test'


class Part(NamedTuple):
  """Images to train on, and images of other classes to measure.

  Attributes:
    train: rows `[m]` of the data.
    train_labels: int `[m]`, in 0..C-1, every one occurs.
    train_classes: int `[C]`, which class each of these is.
    held: rows `[k]` of the data.
  """

  train: np.ndarray
  train_labels: np.ndarray
  train_classes: np.ndarray
  held: np.ndarray


def part(
  data: Features | Images,
  split: str,
  fold: int | str,
  images: int | None = None,
) -> Part:
  """The images of a fold, or of the test.

  Fold k holds out every fifth of the training classes, from the k-th on; the
  test trains on all of them and measures the test classes. A fold never
  touches a test class.

  Args:
    data: what is known of the images.
    split: 'A', 'B' or 'icons', as the data has.
    fold: 0 to 4, or 'test'.
    images: images of each training class; None for all. The first ones are
      taken.

  Raises:
    UserError: there is no such split or fold.
  """
  if split not in data.test:
    raise UserError(
      f'split {split!r} is unknown; expected {" or ".join(data.test)}, or'
      ' the features of other images with --features'
    )
  if fold != TEST and fold not in range(FOLDS):
    raise UserError(
      f'fold {fold!r} is unknown; expected 0 to {FOLDS - 1} or {TEST!r}'
    )
  test = data.test[split]
  classes = np.flatnonzero(~test)
  if fold == TEST:
    fit, held = classes, np.flatnonzero(test)
  else:
    held = classes[int(fold) :: FOLDS]
    fit = np.setdiff1d(classes, held)
  train = np.flatnonzero(np.isin(data.labels, fit))
  if images is not None:
    train = train[_rank(data.labels[train]) < images]
  labels = np.searchsorted(fit, data.labels[train])
  held_rows = np.flatnonzero(np.isin(data.labels, held))
  return Part(train, labels.astype(np.int32), fit, held_rows)


def _rank(labels: np.ndarray) -> np.ndarray:
  """Place of each row among the rows of its class."""
  order = np.argsort(labels, kind='stable')
  _, start, count = np.unique(
    labels[order], return_index=True, return_counts=True
  )
  rank = np.empty(len(labels), np.int64)
  rank[order] = np.arange(len(labels)) - np.repeat(start, count)
  return rank
