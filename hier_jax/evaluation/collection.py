"""Embedded items and what is known about them, for people to look at."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from hier_jax.errors import UserError, listed
from hier_jax.evaluation import _checks
from hier_jax.evaluation.retrieval import _spaces
from hier_jax.evaluation.taxonomy import Taxonomy

__all__ = ['Collection']


@dataclasses.dataclass(frozen=True, eq=False)
class Collection:
  """Embedded items and what is known about them, to be searched and shown.

  Attributes:
    embeddings: `[n, d]`, any floating dtype.
    c: None for cosine, 0 for Euclidean, c > 0 for points of the ball of
      curvature -c.
    ids: n texts, no two the same: the item's path relative to its source, or
      'SPLIT/INDEX' of a data set.
    labels: int64 `[n]`, rows of `classes`; None where the items have no class.
    classes: names by number; None without labels.
    taxonomy: tree above these classes with one row per class, in the same
      order; or None.
    proxies: hierarchical proxies `[P, d]`, points of the same ball, or None.
    image: function from the number of an item to its RGB picture; None if there
      are no pictures. It raises UserError for a picture that cannot be read.
    title: what the model and the data are called.
    info: what else is known about the model and the data, for people.
    metrics: the run's retrieval metrics, if they are known.

  Raises:
    UserError: rows that are not finite or lie outside the ball, wrong shapes,
      repeated ids, labels without a class, a taxonomy that lacks a class.
  """

  embeddings: np.ndarray
  c: float | None
  ids: tuple[str, ...]
  labels: np.ndarray | None = None
  classes: tuple[str, ...] | None = None
  taxonomy: Taxonomy | None = None
  proxies: np.ndarray | None = None
  image: Callable[[int], Image.Image] | None = None
  title: str = ''
  info: Mapping[str, str] = dataclasses.field(default_factory=dict)
  metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)

  def __post_init__(self):
    metric, c = _spaces.resolve(None, self.c)
    x = _spaces.points('embeddings', self.embeddings, metric, c)
    put = lambda name, value: object.__setattr__(self, name, value)
    put('embeddings', x)
    put('c', c)
    put('ids', _ids(self.ids, len(x)))
    if (self.labels is None) != (self.classes is None):
      raise UserError(
        'only one of `labels` and `classes` is given; pass both or none'
      )
    if self.classes is not None:
      classes = tuple(map(str, self.classes))
      put('classes', classes)
      put('labels', _labels(self.labels, len(x), len(classes)))
    if self.taxonomy is not None:
      put('taxonomy', _taxonomy(self.taxonomy, self.classes))
    if self.proxies is not None:
      proxies = _spaces.points('proxies', self.proxies, metric, c)
      if proxies.shape[1] != x.shape[1]:
        raise UserError(
          f'`proxies` has {proxies.shape[1]} dimensions and `embeddings`'
          f' {x.shape[1]}; expected the same'
        )

  def __len__(self) -> int:
    """The number of items n."""
    return len(self.ids)

  def label(self, item: int) -> str | None:
    """The name of an item's class; None where it has none."""
    if self.labels is None or self.classes is None:
      return None
    return self.classes[self.labels[item]]


def _ids(ids, length) -> tuple[str, ...]:
  ids = tuple(map(str, ids))
  if len(ids) != length:
    raise UserError(
      f'there are {len(ids)} ids for {length} rows of `embeddings`; expected as'
      ' many'
    )
  if len(set(ids)) != length:
    known: set[str] = set()
    twice = [name for name in ids if name in known or known.add(name)]  # type: ignore[func-returns-value]
    raise UserError(
      f'{len(twice)} ids stand twice: {listed(twice)}; expected one an item'
    )
  return ids


def _labels(labels, length, num_classes) -> np.ndarray:
  labels = _checks.class_labels('labels', labels, length)
  if labels.dtype.kind not in 'iu':
    raise UserError(
      f'`labels` are {labels.dtype}; expected integers, rows of `classes`'
    )
  if length and not 0 <= labels.min() <= labels.max() < num_classes:
    raise UserError(
      f'`labels` go from {labels.min()} to {labels.max()}; expected 0 to'
      f' {num_classes - 1}, rows of `classes`'
    )
  return labels.astype(np.int64)


def _taxonomy(taxonomy, classes) -> Taxonomy:
  if classes is None:
    raise UserError(
      'there is a taxonomy, but the items have no classes that it could be of:'
      ' leave it out, or label them'
    )
  return taxonomy.labeled({name: name for name in classes})
