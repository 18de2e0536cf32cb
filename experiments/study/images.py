"""The Emoji images, for networks that are trained from scratch on pixels.

Views, pixels and the size of a batch are the quickstart's.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import jax
import numpy as np
from ml_collections import ConfigDict

from experiments.study.features import SPLITS, known
from hier_jax import models
from hier_jax.data import datasets, transforms
from hier_jax.training.config import default as config_lib
from hier_jax.training.run import embedding, inputs

__all__ = ['Images', 'Run', 'config', 'embedder', 'joined', 'load']

NO_WEIGHTS = 'none: from scratch'


# The quickstart's of version 0.3.0. Written out, for runs to stay what they are
# when the quickstart changes.
_SETTINGS = {
  'model.image_size': 32,
  'model.dtype': 'float32',
  # White ground becomes 0, as padding is.
  'model.mean': (1.0, 1.0, 1.0),
  'data.batch_size': 60,
  'data.short_side': 32,
  'data.cache': 'auto',
  # One process a core.
  'data.num_threads': 1,
  'data.train_view.scale': None,
  'data.train_view.flip': 0.0,
  'data.train_view.affine.degrees': 9.0,
  'data.train_view.affine.log_scale': 0.18,
  'data.train_view.affine.log_aspect': 0.2,
  'data.train_view.affine.translate': 0.09,
  'data.train_view.grayscale': 0.4,
  'data.train_view.channel_shuffle': 0.25,
  'data.train_view.brightness': 0.4,
}


def config(backbone: str) -> ConfigDict:
  """What a network sees, and how much of it at a time.

  Args:
    backbone: name of the network.

  Returns:
    A config of `hier-jax train`, of which 'model', 'data' and 'eval' count.
  """
  made = config_lib.default_config()
  made.update_from_flattened_dict({**_SETTINGS, 'model.backbone': backbone})
  return config_lib.resolve(made)


def embedder(
  backbone: str, *, dim: int, c: float | None, radial_scale: float | None
) -> models.Embedder:
  """The quickstart's network with a head of the study."""
  settings = config(backbone).model.to_dict()
  settings |= {'embedding_dim': dim, 'c': c, 'radial_scale': radial_scale}
  return models.create(**settings)


@dataclasses.dataclass(frozen=True, eq=False)
class Images:
  """All images of a data set, and what is known of images and classes.

  Attributes:
    split: the images, in the data set's order.
    labels: int32 `[n]`, each image's class, in 0..C-1.
    subgroup: int32 `[C]`, each class's node of the hierarchy.
    test: split of the plan -> bool `[C]`, whether a class is a test class.
    about: where they come from.
  """

  split: datasets.Split
  labels: np.ndarray
  subgroup: np.ndarray
  test: dict[str, np.ndarray]
  about: dict[str, str]

  def embed(
    self, rows: np.ndarray, apply: Callable[[np.ndarray], Any], backbone: str
  ) -> np.ndarray:
    """Embeddings `[m, d]` of rows.

    Args:
      rows: int `[m]`, which images.
      apply: uint8 `[b, H, W, 3]` -> `[b, d]`.
      backbone: whose config says how images are seen.
    """
    settings = config(backbone)
    view = transforms.EvalView(
      settings.model.image_size, settings.data.eval_resize
    )
    z, _ = embedding.embed_split(
      self.split.select(rows, f'{self.split.name}:held'),
      apply,
      view,
      batch_size=settings.eval.batch_size,
      num_threads=settings.data.num_threads,
    )
    return z


def load() -> Images:
  """The bundled Emoji, prepared where TFDS keeps its data sets."""
  found = {name: datasets.load(of) for name, of in SPLITS.items()}
  return joined({k: [v['train'], v['test']] for k, v in found.items()})


def joined(splits: Mapping[str, Sequence[datasets.Split]]) -> Images:
  """All images of the splits as one.

  Args:
    splits: split of the plan -> its parts, together all images; the field
      'index' is an image's place in the data set.
  """
  found = known(splits)
  labels, subgroup = found.pop('labels'), found.pop('subgroup')
  test = {name: found[f'test_{name}'] for name in splits}
  parts = next(iter(splits.values()))
  digest = ' '.join(part.digest for part in parts)
  digest = hashlib.sha256(digest.encode()).hexdigest()
  name = parts[0].name.partition(':')[0]
  whole = datasets.Split(
    f'{name}:all', _Joined(parts), labels, {}, digest=digest
  )
  about = {
    'images_sha256': digest,
    'features_sha256': digest,
    'weights_sha256': NO_WEIGHTS,
  }
  return Images(whole, labels, subgroup, test, about)


class _Joined:
  """The records of some splits, in the order of the data set."""

  def __init__(self, parts: Sequence[datasets.Split]):
    self._sources = [part.source for part in parts]
    place = np.concatenate([part.fields['index'] for part in parts])
    part = np.repeat(np.arange(len(parts)), [len(p) for p in parts])
    row = np.concatenate([np.arange(len(p)) for p in parts])
    order = np.argsort(place)
    self._part, self._row = part[order], row[order]

  def __len__(self) -> int:
    return len(self._row)

  def __getitem__(self, index: int, /) -> Mapping[str, Any]:
    return self._sources[self._part[index]][int(self._row[index])]


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
  """Images to train a network on from scratch, see `training.Run`.

  Attributes:
    split: the images.
    labels: their classes, int `[m]` in 0..C-1, every one occurs.
    subgroup: each class's node of the true hierarchy, `[C]`.
    epochs: the regime's budget.
    backbone: the network.
  """

  split: datasets.Split
  labels: np.ndarray
  subgroup: np.ndarray
  epochs: int
  backbone: str
  # No frozen network has seen them.
  x = features = None
  pretrained: ClassVar[Mapping[str, Any]] = {}
  # Steps of a call of the compiled program, see `training._steps`.
  chunk = 1

  @property
  def batch_size(self) -> int:
    """Images a step."""
    return int(config(self.backbone).data.batch_size)

  @property
  def example(self) -> np.ndarray:
    """An image `[1, H, W, 3]` for the network's first call."""
    size = config(self.backbone).model.image_size
    return np.zeros((1, size, size, 3), np.uint8)

  def chunks(
    self, images_per_class: int, seed: int, number: int
  ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Views uint8 `[1, b, H, W, 3]` and classes `[1, b]`, so often."""
    settings = config(self.backbone)
    settings.data.images_per_class = images_per_class
    source = inputs.Inputs(
      settings.data,
      self.split,
      seed=seed,
      image_size=settings.model.image_size,
    )
    for batch in source.batches(0, number):
      yield _rows(batch['image'])[None], _rows(batch['label'])[None]


def _rows(spread: jax.Array) -> np.ndarray:
  """`[b, ...]` of rows that are spread over devices."""
  rows = np.asarray(spread)
  return rows.reshape(-1, *rows.shape[2:])
