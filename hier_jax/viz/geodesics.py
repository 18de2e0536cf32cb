"""Geodesics of the Poincare disk, for figures."""

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

__all__ = ['arcs', 'turns']


def arcs(
  start: Float[ArrayLike, 'm 2'], end: Float[ArrayLike, 'm 2'], num: int
) -> Float[np.ndarray, 'm num 2']:
  """Points of the geodesics between points of the unit disk.

  They lie at equal steps along the arc of the circle through p and q that meets
  the boundary at right angles, or along a straight line if p, q and the origin
  lie on one. As complex numbers, with 0 <= t <= 1 and a from `turns`, they are
  p + (q - p) sin(t a) / sin(a) exp(i (1 - t) a).

  Args:
    start: p `[m, 2]`, of norm below 1.
    end: q `[m, 2]`, of norm below 1.
    num: number of points of each geodesic, two or more; the first is p and the
      last is q.

  Returns:
    float64 `[m, num, 2]`.

  Example:
    >>> from hier_jax.viz import geodesics
    >>> geodesics.arcs([[-0.5, 0.0]], [[0.5, 0.0]], 3)[0].tolist()
    [[-0.5, 0.0], [0.0, 0.0], [0.5, 0.0]]
  """
  p, q = _complex(start), _complex(end)
  angle = turns(start, end)[:, None]
  t = np.linspace(0, 1, num)
  # sin(t a) / sin(a) is t for a = 0; a stays below a right angle.
  share = t * np.sinc(t * angle / np.pi) / np.sinc(angle / np.pi)
  found = p + (q - p) * share * np.exp(1j * (1 - t) * angle)
  return np.stack([found.real, found.imag], axis=-1)


def turns(
  start: Float[ArrayLike, 'm 2'], end: Float[ArrayLike, 'm 2']
) -> Float[np.ndarray, ' m']:
  """The angle from the chord to the tangent, half the turn of a geodesic.

  It is arg(1 - p conj(q)), since (q - p) / (1 - conj(p) q) is the direction in
  which the geodesic from p to q begins.

  Args:
    start: p `[m, 2]`, of norm below 1.
    end: q `[m, 2]`, of norm below 1.

  Returns:
    float64 `[m]`, between two right angles: 0 for a line through the origin.
  """
  p, q = _complex(start), _complex(end)
  return np.angle(1 - p * q.conj())[:, 0]


def _complex(points):
  """`[m, 1]` of `[m, 2]`."""
  points = np.asarray(points, np.float64)
  return points[:, :1] + 1j * points[:, 1:]
