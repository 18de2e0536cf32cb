"""Chooses the images of a batch, as a pure function of (seed, step)."""

import dataclasses
import enum
import functools
from collections.abc import Callable

import numpy as np

from hier_jax.errors import UserError, listed

KINDS = ('class', 'official', 'hierarchical')


class Stream(enum.IntEnum):
  """Independent streams of random numbers from one seed."""

  BATCH = 0
  EPOCH = 1
  VIEW = 2


def generator(
  seed: int, stream: Stream, step: int, slot: int = 0
) -> np.random.Generator:
  """Returns the generator for one place in a run; nothing random is stored."""
  key = np.random.SeedSequence(seed, spawn_key=(int(stream), step, slot))
  return np.random.Generator(np.random.PCG64(key))


@dataclasses.dataclass(frozen=True, eq=False)
class Sampler:
  """Draws the global batch of a step: P classes and K images of each.

  The P = batch_size / images_per_class classes differ, and so do the K =
  images_per_class images of a class. If there are fewer than P classes, each is
  taken once before any is taken again, with K other images. An image repeats
  only where its class has too few, and then each is taken once before any is
  taken again; for a class with a single image, the positives are other views
  of it. With `images_per_class` 0, an epoch is a permutation of
  the images, and its last partial batch is dropped.

  Kinds other than 'class':
    'official' draws as the authors' program does: the K images with
      replacement, so that an image may meet itself, and classes of a batch
      that follow from the step alone, whatever the seed. They are the
      program's own where classes are numbered as they first appear.
    'hierarchical' takes the classes from few groups, so that a batch holds
      near relatives: P / num_groups classes a group, and from further groups
      what small ones lack. A group comes in proportion to its classes.

  Attributes:
    labels: int [n].
    batch_size: B, of all processes together.
    images_per_class: K, or 0 for plain shuffling.
    seed: also decides the order of the classes.
    kind: one of `KINDS`.
    groups: int [n], the same for all images of a class, as
      `Split.fields[level]` is; of 'hierarchical' alone.
    num_groups: how many of them a batch draws from, a divisor of P.

  Raises:
    UserError: when K does not divide B, when B exceeds n in plain shuffling,
      and for a kind that is unknown or whose groups are missing or no tree.
  """

  labels: np.ndarray
  _: dataclasses.KW_ONLY
  batch_size: int
  images_per_class: int
  seed: int
  kind: str = 'class'
  groups: np.ndarray | None = None
  num_groups: int = 1

  def __post_init__(self) -> None:
    if self.batch_size < 1 or self.images_per_class < 0:
      raise UserError(
        f'batch size {self.batch_size} must be positive and images per class '
        f'{self.images_per_class} at least 0'
      )
    if self.kind not in KINDS:
      raise UserError(f'sampler {self.kind!r} is not one of {", ".join(KINDS)}')
    if self.images_per_class:
      self._check_classes()
    elif self.kind != 'class':
      raise UserError(
        f'sampler {self.kind!r} draws by class, but images per class is 0: '
        'take at least 1'
      )
    elif self.batch_size > len(self.labels):
      raise UserError(
        f'batch size {self.batch_size} exceeds the {len(self.labels)} images '
        'of the data set: take a smaller batch'
      )
    if self.kind == 'hierarchical':
      self._check_groups()

  def _check_classes(self) -> None:
    if self.batch_size % self.images_per_class:
      raise UserError(
        f'batch size {self.batch_size} is not divisible by '
        f'{self.images_per_class} images per class: change one of the two'
      )

  def _check_groups(self) -> None:
    if self.groups is None:
      raise UserError("sampler 'hierarchical' needs groups of classes")
    found = len(np.unique(self.groups))
    if not (
      1 <= self.num_groups <= found and self._num_classes % self.num_groups == 0
    ):
      raise UserError(
        f'{self.num_groups} groups a batch: expected a divisor of its '
        f'{self._num_classes} classes, up to the {found} groups there are'
      )
    order, starts, counts = self._classes
    groups = self.groups[order]
    split = groups != np.repeat(groups[starts], counts)
    if split.any():
      torn = np.unique(self.labels[order][split])
      raise UserError(
        f'{len(torn)} classes lie in more than one group: {listed(torn)}; '
        'take a level that is above the classes'
      )

  @property
  def steps_per_epoch(self) -> int:
    """Batches an epoch, n // B, one at least."""
    return max(1, len(self.labels) // self.batch_size)

  def __call__(self, step: int) -> np.ndarray:
    """Returns the batch of `step`: rows of the data set, int64 [B].

    Images of a class stand side by side when sampled by class.
    """
    if not self.images_per_class:
      epoch, batch = divmod(step, self.steps_per_epoch)
      return self._epoch(epoch)[batch * self.batch_size :][: self.batch_size]
    order, starts, counts = self._classes
    rng = generator(self.seed, Stream.BATCH, step)
    classes = self._draw_classes(rng, step)
    sizes, k = counts[classes], self.images_per_class
    if self.kind == 'official':
      images = rng.integers(sizes[:, None], size=(len(sizes), k))
    else:
      # Classes come in turns: the images of all turns are drawn at once.
      once = sizes[: len(counts)]
      images = _draw(rng, once, self._turns * k).reshape(len(once), -1, k)
      images = images.swapaxes(0, 1).reshape(-1, k)[: len(classes)]
    return order[starts[classes][:, None] + images].ravel()

  @property
  def repetition(self) -> str | None:
    """What a batch repeats for want of classes, in words; None for nothing."""
    if not self.images_per_class or self._turns == 1:
      return None
    _, _, counts = self._classes
    most = self._turns * self.images_per_class
    if self.kind != 'official' and counts.min() >= most:
      return None
    fits = len(counts) * self.images_per_class
    return (
      f'a batch of {self.batch_size} takes {self._num_classes} classes, but'
      f' there are {len(counts)}: each comes up to {self._turns} times, and'
      f' images of a class with fewer than {most} repeat. A batch of up to'
      f' {fits} takes each once'
    )

  @property
  def _turns(self) -> int:
    """How often a batch takes a class at most."""
    _, _, counts = self._classes
    return -(-self._num_classes // len(counts))

  def _draw_classes(self, rng: np.random.Generator, step: int) -> np.ndarray:
    """Returns places in `_classes`, int64 [P]."""
    _, _, counts = self._classes
    num_classes = self._num_classes
    if self.kind == 'official':
      epoch, batch = divmod(step, self.steps_per_epoch)
      legacy = np.random.RandomState((10_000 * batch + epoch) % 2**32)
      few = num_classes > len(counts)
      return legacy.choice(len(counts), num_classes, replace=few)
    if self.kind == 'hierarchical':
      share = num_classes // self.num_groups
      return np.resize(_relatives(rng, self._group, share), num_classes)
    return _draw(rng, np.array([len(counts)]), num_classes)[0]

  @property
  def _num_classes(self) -> int:
    """Classes a batch, P."""
    return self.batch_size // self.images_per_class

  @functools.cached_property
  def _classes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows sorted by class [n]; each class's start and size there [C]."""
    order = np.argsort(self.labels, kind='stable')
    _, starts, counts = np.unique(
      self.labels[order], return_index=True, return_counts=True
    )
    return order, starts, counts

  @functools.cached_property
  def _group(self) -> np.ndarray:
    """Each class's group, numbered from 0, int [C]."""
    order, starts, _ = self._classes
    groups = np.asarray(self.groups)
    return np.unique(groups[order[starts]], return_inverse=True)[1]

  @functools.cached_property
  def _epoch(self) -> Callable[[int], np.ndarray]:
    """The permutation of an epoch; a run asks for the same one n / B times."""
    n = len(self.labels)
    return functools.lru_cache(maxsize=2)(
      lambda epoch: generator(self.seed, Stream.EPOCH, epoch).permutation(n)
    )


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


def _relatives(
  rng: np.random.Generator, group: np.ndarray, share: int
) -> np.ndarray:
  """Orders classes: `share` of one group, of the next, ..., then the rest.

  Args:
    rng: source of randomness.
    group: int [C], of each class, every value of 0 .. max occurs.
    share: number of classes of a group that come before other groups.

  Returns:
    A permutation, int64 [C].
  """
  sizes = np.bincount(group)
  # The smallest of as many exponentials as a group has classes.
  arrival = rng.exponential(size=len(sizes)) / sizes
  order = np.lexsort((rng.random(len(group)), arrival[group]))
  ordered = group[order]
  starts = np.flatnonzero(np.diff(ordered, prepend=-1))
  place = np.arange(len(group)) - np.repeat(starts, sizes[ordered[starts]])
  return order[np.argsort(place >= share, kind='stable')]
