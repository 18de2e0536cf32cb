"""Checks of the arrays and numbers that evaluation is handed.

Each takes the name by which the caller knows the value, returns the value in
the form evaluation works on, and raises `UserError` where it is no good.
"""

import math
import operator

import jax.numpy as jnp
import numpy as np

from hier_jax.errors import UserError

_MAX_LISTED = 5


def positive_int(name: str, value) -> int:
  """The value as an integer of 1 or more."""
  try:
    number = operator.index(value)
  except TypeError:
    number = 0
  if number < 1:
    raise UserError(f'`{name}` is {value!r}; expected an integer of 1 or more')
  return number


def curvature(name: str, value) -> float:
  """The value as a finite float of 0 or more."""
  number = float(value)
  if not 0 <= number < math.inf:
    raise UserError(
      f'`{name}` is {number}; expected 0 (cosine) or the positive c of a ball '
      'of curvature -c'
    )
  return number


def points(name: str, x, c: float) -> np.ndarray:
  """Finite float64 `[n, d]`, inside the ball of curvature -c where c > 0."""
  x = np.asarray(x)
  if x.ndim != 2 or 0 in x.shape:
    raise UserError(
      f'`{name}` has shape {x.shape}; expected [rows, dimensions], none of '
      'them 0'
    )
  # NumPy alone does not count bfloat16 as floating.
  if not jnp.issubdtype(x.dtype, jnp.floating):
    raise UserError(
      f'`{name}` has dtype {x.dtype}; expected a floating dtype: cast it'
    )
  x = x.astype(np.float64)
  bad = ~np.isfinite(x).all(axis=1)
  if bad.any():
    raise UserError(f'`{name}` holds NaN or Inf in {_listed(bad)}')
  bad = c * np.sum(x * x, axis=1) >= 1
  if bad.any():
    raise UserError(
      f'`{name}` lies outside the ball (c |x|^2 >= 1 at c = {c}) in '
      f'{_listed(bad)}; project it, or pass the c it was trained with'
    )
  return x


def class_labels(name: str, labels, length: int) -> np.ndarray:
  """Labels `[length]` of any dtype."""
  labels = np.asarray(labels)
  if labels.shape != (length,):
    raise UserError(
      f'`{name}` has shape {labels.shape}; expected ({length},), one a row'
    )
  return labels


def _listed(bad: np.ndarray) -> str:
  rows = np.flatnonzero(bad)
  shown = ', '.join(map(str, rows[:_MAX_LISTED]))
  more = ', ...' if len(rows) > _MAX_LISTED else ''
  return f'{len(rows)} of {len(bad)} rows (row {shown}{more})'
