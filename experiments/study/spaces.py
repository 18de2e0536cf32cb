"""Spaces of hyperparameters, and quasi-random points of them."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import numpy as np
from scipy.stats import qmc

__all__ = [
  'Dimension',
  'Point',
  'Space',
  'choice',
  'defaults',
  'linear',
  'log',
  'sobol',
]

# Name of a hyperparameter -> its value.
Point = dict[str, float | int | str]
Space = Mapping[str, 'Dimension']


@dataclasses.dataclass(frozen=True)
class Dimension:
  """The values that one hyperparameter may have.

  Attributes:
    kind: 'log' and 'linear' between two ends, or a 'choice' of some values.
    values: the ends, or the values to choose from.
    default: the value that arms at their defaults have.
    static: whether another value is another program.
  """

  kind: Literal['log', 'linear', 'choice']
  values: tuple[float | int | str, ...]
  default: float | int | str
  static: bool = False

  def at(self, place: float) -> float | int | str:
    """The value at a place in [0, 1), to four digits."""
    if self.kind == 'choice':
      return self.values[int(place * len(self.values))]
    low, high = (float(v) for v in self.values)
    if self.kind == 'log':
      value = math.exp(math.log(low) + place * math.log(high / low))
    else:
      value = low + place * (high - low)
    return float(f'{value:.4g}')

  def place(self, value: float | int | str) -> float:
    """Where a value lies, in [0, 1]; the middle of its share for a choice."""
    if self.kind == 'choice':
      return (self.values.index(value) + 0.5) / len(self.values)
    low, high, value = (float(v) for v in (*self.values, value))
    if self.kind == 'log':
      return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def log(low: float, high: float, default: float) -> Dimension:
  """A positive number, uniform in its logarithm."""
  return Dimension('log', (low, high), default)


def linear(low: float, high: float, default: float) -> Dimension:
  """A number, uniform."""
  return Dimension('linear', (low, high), default)


def choice(
  *values: float | int | str,
  default: float | int | str,
  static: bool = False,
) -> Dimension:
  """One of some values, all alike."""
  return Dimension('choice', values, default, static)


def sobol(
  space: Space,
  num_points: int,
  *,
  seed: int,
  center: Mapping[str, float | int | str] | None = None,
  width: float = 1.0,
) -> list[Point]:
  """Scrambled Sobol points of a space, or of a box about a center.

  Args:
    space: name -> dimension.
    num_points: how many.
    seed: of the scrambling.
    center: the middle of the box, which is as wide as the space in what it
      lacks; None for the whole space.
    width: side of the box as a share of the space's, in (0, 1]. A box that
      would stick out is moved in.

  Returns:
    Points; the same seed gives the same, whatever the number of points.

  Example:
    >>> from experiments.study import spaces
    >>> space = {'alpha': spaces.log(2, 64, 32)}
    >>> len(spaces.sobol(space, 3, seed=0))
    3
  """
  if not space:
    return [{} for _ in range(num_points)]
  power = max(0, math.ceil(math.log2(max(num_points, 1))))
  unit = qmc.Sobol(len(space), rng=np.random.default_rng(seed))
  places = unit.random_base2(power)[:num_points]
  if center is not None:
    places = _boxed(space, places, center, width)
  return [
    {name: d.at(x) for (name, d), x in zip(space.items(), row, strict=True)}
    for row in places.tolist()
  ]


def _boxed(
  space: Space,
  places: np.ndarray,
  center: Mapping[str, float | int | str],
  width: float,
) -> np.ndarray:
  """Places `[n, dimensions]` moved into the box about a center."""
  middle = np.array(
    [d.place(center.get(name, d.default)) for name, d in space.items()]
  )
  widths = np.array([width if name in center else 1.0 for name in space])
  low = np.clip(middle - widths / 2, 0, 1 - widths)
  return np.minimum(low + widths * places, np.nextafter(1, 0))


def defaults(space: Space) -> Point:
  """The point where every dimension has its default."""
  return {name: dimension.default for name, dimension in space.items()}
