"""Which images make a batch, as a pure function of (seed, step)."""

import dataclasses
import enum
import functools

import numpy as np

from hier_jax.errors import UserError


class Stream(enum.IntEnum):
  """Independent streams of random numbers of one seed."""

  BATCH = 0
  EPOCH = 1
  VIEW = 2


def generator(
  seed: int, stream: Stream, step: int, slot: int = 0
) -> np.random.Generator:
  """Returns the generator of one place in a run; nothing random is stored."""
  key = np.random.SeedSequence(seed, spawn_key=(int(stream), step, slot))
  return np.random.Generator(np.random.PCG64(key))


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
  """Draws the global batch of a step: P classes and K images of each.

  The P = batch_size / images_per_class classes differ, and so do the K =
  images_per_class images of a class. Only where a data set has fewer than P
  classes, or a class fewer than K images, is there repetition, and then
  each is taken once before any is taken again. With `images_per_class` 0,
  an epoch is a permutation of the images; its last partial batch is dropped.

  Attributes:
    labels: int [n].
    batch_size: B, of all processes together.
    images_per_class: K, or 0 for plain shuffling.
    seed: also decides the order of the classes.

  Raises:
    UserError: when K does not divide B, when B exceeds n in plain shuffling,
      and when K is at least 2 and a class has one image, thus no positive.
  """

  labels: np.ndarray
  _: dataclasses.KW_ONLY
  batch_size: int
  images_per_class: int
  seed: int

  def __post_init__(self):
    if self.batch_size < 1 or self.images_per_class < 0:
      raise UserError(
        f'batch size {self.batch_size} must be positive and images per class '
        f'{self.images_per_class} at least 0'
      )
    if self.images_per_class:
      self._check_classes()
    elif self.batch_size > len(self.labels):
      raise UserError(
        f'batch size {self.batch_size} exceeds the {len(self.labels)} images '
        'of the data set: take a smaller batch'
      )

  def _check_classes(self):
    if self.batch_size % self.images_per_class:
      raise UserError(
        f'batch size {self.batch_size} is not divisible by '
        f'{self.images_per_class} images per class: change one of the two'
      )
    names, counts = np.unique(self.labels, return_counts=True)
    single = names[counts == 1]
    if self.images_per_class > 1 and len(single):
      raise UserError(
        f'{len(single)} classes have a single image, thus no positive: '
        f'{", ".join(map(str, single[:5]))}{", ..." * (len(single) > 5)}; '
        'drop them or set images per class to 0'
      )

  @property
  def steps_per_epoch(self) -> int:
    """Batches an epoch, n // B, one at least."""
    return max(1, len(self.labels) // self.batch_size)

  def __call__(self, step: int) -> np.ndarray:
    """Returns the batch of `step`: rows of the data set, int64 [B].

    Images of a class stand side by side when sampled by class.
    """
    if self.images_per_class:
      return self._by_class(step)
    epoch, batch = divmod(step, self.steps_per_epoch)
    order = generator(self.seed, Stream.EPOCH, epoch).permutation(
      len(self.labels)
    )
    return order[batch * self.batch_size :][: self.batch_size]

  def _by_class(self, step: int) -> np.ndarray:
    order, starts, counts = self._classes
    rng = generator(self.seed, Stream.BATCH, step)
    num_classes = self.batch_size // self.images_per_class
    (classes,) = _draw(rng, np.array([len(counts)]), num_classes)
    images = _draw(rng, counts[classes], self.images_per_class)
    return order[starts[classes][:, None] + images].ravel()

  @functools.cached_property
  def _classes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by class [n]; each class's start and size there [C]."""
    order = np.argsort(self.labels, kind='stable')
    _, starts, counts = np.unique(
      self.labels[order], return_index=True, return_counts=True
    )
    return order, starts, counts


def _draw(rng: np.random.Generator, sizes: np.ndarray, k: int) -> np.ndarray:
  """Draws k of range(size), for each size; repeats only once all are taken.

  Args:
    rng: source of randomness.
    sizes: int [m], positive.
    k: how many of each.

  Returns:
    int64 [m, k].
  """
  noise = rng.random((len(sizes), sizes.max()))
  noise[np.arange(sizes.max()) >= sizes[:, None]] = np.inf
  ranked = noise.argsort(axis=1)
  return np.take_along_axis(ranked, np.arange(k) % sizes[:, None], axis=1)
