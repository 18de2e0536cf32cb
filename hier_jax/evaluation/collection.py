"""Embedded items and what is known of them."""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from hier_jax.evaluation.taxonomy import Taxonomy

__all__ = ['Collection']


@dataclasses.dataclass(frozen=True, eq=False)
class Collection:
  """Embedded items and what is known of them: what search and tree show.

  Attributes:
    embeddings: `[n, d]`, floating.
    c: None for cosine, 0 for Euclidean, c > 0 for points of the ball of
      curvature -c.
    ids: one an item, unique: its path relative to its source, or SPLIT/INDEX.
    labels: int `[n]`, row of `classes`; or None.
    classes: names by number; or None.
    taxonomy: of these classes; or None.
    proxies: hierarchical proxies `[P, d]`, points of the same ball; or None.
    image: returns the picture of an item by its number, RGB or RGBA; or None.
    title: what the model and the data are called.
    info: model, curvature, pixel statistics and the like as text, for people.
    metrics: the run's metrics where they are known.
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
