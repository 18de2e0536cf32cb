"""Sizes and inputs of the benchmark of HIER's loss, and the loss of them."""

import dataclasses
import functools
from collections.abc import Sequence
from unittest import mock

import jax
import jax.numpy as jnp

from experiments.benchmarks.common import timing
from experiments.benchmarks.loss import literal
from hier_jax import losses, poincare

PER_ANCHOR = 50
_GROUP = 10  # classes near one another


@dataclasses.dataclass(frozen=True)
class Sizes:
  """How much is measured; of several sizes the first is the usual one.

  Attributes:
    batches: numbers B of embeddings.
    proxies: numbers P of hierarchical proxies.
    dimensions: D.
    rounds: runs of each program.
    seconds: after which no program begins a round but the second.
    growth: numbers P at which the growth of the data term is measured.
    keys: draws over which mean losses are compared.
    picks: picks that a chi-square test counts.
    choices: numbers of proxies that it picks from.
    chunks: exponents of 2, first and last; None for what suits the device.
    images: batch of the ViT's step; None for what the device can bear.
    image_size: side of its images.
    seed: of all that is drawn.
  """

  batches: Sequence[int] = (180, 1024, 4096)
  proxies: Sequence[int] = (512, 4096)
  dimensions: Sequence[int] = (128, 512)
  rounds: int = 15
  seconds: float = 30
  growth: Sequence[int] = (512, 1024, 2048, 4096)
  keys: int = 16
  picks: int = 10**6
  choices: Sequence[int] = (4, 12, 64, 512)
  chunks: Sequence[int] | None = None
  images: int | None = None
  image_size: int = 224
  seed: int = 0


QUICK = Sizes(
  batches=(60, 120),
  proxies=(64, 128),
  dimensions=(16,),
  rounds=2,
  seconds=2,
  growth=(64, 128),
  keys=4,
  picks=10**5,
  choices=(12,),
  chunks=(12, 13),
  images=2,
  image_size=32,
)
OPTIONS = {'k': 20, 'triplets_per_anchor': PER_ANCHOR} | literal.BALL
distances = functools.partial(poincare.dist_matrix, c=literal.BALL['c'])
embed = functools.partial(poincare.to_ball, **literal.BALL)


@dataclasses.dataclass(frozen=True)
class Case:
  """Embeddings `[B, D]`, proxies `[P, D]`, labels `[B]` and a key."""

  z: jax.Array
  proxies: jax.Array
  labels: jax.Array
  key: jax.Array

  @classmethod
  def create(cls, b, p, d, seed):
    """Two images a class, classes in groups, all on the clip sphere."""
    *keys, last = jax.random.split(jax.random.key(seed), 5)
    labels = jnp.arange(b) // 2
    normal = lambda key: jax.random.normal(key, (b, d))
    kinds = jnp.arange(b), labels, labels // _GROUP
    directions = sum(
      normal(key)[kind] for key, kind in zip(keys[:3], kinds, strict=True)
    )
    # Beyond the clip, as after the head's LayerNorm.
    z = embed(100 * directions)
    proxies = losses.init_hier_proxies(keys[3], p, d)
    return cls(z, proxies, labels, last)

  @classmethod
  def usual(cls, sizes, p=None, d=None):
    """The case of the usual size, but for what is given."""
    p, d = p or sizes.proxies[0], d or sizes.dimensions[0]
    return cls.create(sizes.batches[0], p, d, sizes.seed)

  @property
  def arguments(self):
    """As a function of `value_and_grad` takes them."""
    return self.z, self.proxies, self.labels, self.key

  @property
  def size(self):
    """In words."""
    b, d = self.z.shape
    return f'B = {b}, P = {len(self.proxies)}, D = {d}'


def value_and_grad(**options):
  """The loss as a function of a case's arguments.

  Every call makes another function, which nothing compiled before fits.

  Returns:
    (z, proxies, labels, key) -> (loss, aux), gradients by z and the proxies.
  """

  def loss(z, proxies, labels, key):
    return losses.hier(key, z, labels, proxies, **OPTIONS, **options)

  return jax.value_and_grad(loss, (0, 1), has_aux=True)


def compiled_with(target, attribute, value, name, arguments):
  """The loss, compiled while an attribute of the package is another."""
  jax.clear_caches()
  with mock.patch.object(target, attribute, value):
    found = timing.compiled(name, value_and_grad(), *arguments)
  jax.clear_caches()
  return found
