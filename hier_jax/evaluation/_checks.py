"""Checks of the arrays and numbers that evaluation is handed.

Each takes the caller's name for the value, returns the value in the form that
evaluation works on, and raises `UserError` if it is not valid.
"""

import math
import operator
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from hier_jax import errors
from hier_jax.errors import UserError


def positive_int(name: str, value: Any) -> int:
  """The value as an integer of 1 or more."""
  try:
    number = operator.index(value)
  except TypeError:
    number = 0
  if number < 1:
    raise UserError(f'`{name}` is {value!r}; expected an integer of 1 or more')
  return number


def positive_ints(name: str, values: Iterable[Any]) -> list[int]:
  """The values as integers of 1 or more."""
  try:
    found = list(values)
  except TypeError:
    raise UserError(
      f'`{name}` is {values!r}; expected a list of integers of 1 or more'
    ) from None
  return [positive_int(f'K of {name}', value) for value in found]


def real(
  name: str, value: Any, fits: Callable[[float], bool], expected: str
) -> float:
  """The value as a float that fits; `expected` says in words which ones do."""
  try:
    number = math.nan if isinstance(value, str | bytes) else float(value)
  except (TypeError, ValueError, OverflowError):
    number = math.nan
  if not fits(number):
    raise UserError(f'`{name}` is {value!r}; expected {expected}')
  return number


def confidence(value: Any) -> float:
  """A confidence level between 0 and 1."""
  return real(
    'confidence', value, lambda x: 0 < x < 1, 'a number between 0 and 1'
  )


def rng(seed: Any) -> np.random.Generator:
  """The random numbers of a seed."""
  try:
    return np.random.default_rng(seed)
  except (TypeError, ValueError):
    raise UserError(
      f'`seed` is {seed!r}; expected an integer of 0 or more'
    ) from None


def curvature(name: str, value: Any) -> float | None:
  """The value as a finite float of 0 or more; None is None (cosine)."""
  if value is None:
    return None
  try:
    number = float(value)
  except (TypeError, ValueError):
    number = math.nan
  if not 0 <= number < math.inf:
    shown = value if isinstance(value, str) else number
    raise UserError(
      f'`{name}` is {shown!r}; expected None (cosine), 0 (Euclidean) or the '
      'positive c of a ball of curvature -c'
    )
  return number


def matrix(name: str, x: ArrayLike) -> np.ndarray:
  """Rows `[n, d]` of a floating dtype, at least one of each."""
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
  return x


def points(name: str, x: ArrayLike, c: float | None) -> np.ndarray:
  """Finite float64 `[n, d]`, inside the ball of curvature -c where c > 0."""
  x = matrix(name, x).astype(np.float64)
  finite(name, np.isfinite(x).all(axis=1))
  if c:
    inside_ball(name, ~(c * np.sum(x * x, axis=1) >= 1), c)
  return x


def finite(name: str, rows: np.ndarray) -> None:
  """Refuses rows where `[n]` bool is false as not finite."""
  if not rows.all():
    raise UserError(
      f'`{name}` holds NaN or Inf in {listed(~rows)}; expected finite numbers: '
      'find what made them, or leave these rows out'
    )


def inside_ball(name: str, rows: np.ndarray, c: float) -> None:
  """Refuses rows where `[n]` bool is false as outside the ball."""
  if not rows.all():
    raise UserError(
      f'`{name}` lies outside the ball (c |x|^2 >= 1 at c = {c}) in '
      f'{listed(~rows)}; project it, or pass the c it was trained with'
    )


def row_numbers(name: str, rows: ArrayLike, length: int) -> np.ndarray:
  """Rows `[q]` of an array of that length, one or more, as int64."""
  rows = np.asarray(rows)
  if rows.ndim != 1 or not len(rows) or rows.dtype.kind not in 'iu':
    raise UserError(
      f'`{name}` is {rows.dtype} {rows.shape}; expected integers [rows], one '
      'or more'
    )
  if not 0 <= rows.min() <= rows.max() < length:
    raise UserError(
      f'`{name}` go from {rows.min()} to {rows.max()}; expected 0 to '
      f'{length - 1}'
    )
  return rows.astype(np.int64)


def class_labels(name: str, labels: ArrayLike, length: int) -> np.ndarray:
  """Labels `[length]` of any dtype."""
  labels = np.asarray(labels)
  if labels.shape != (length,):
    raise UserError(
      f'`{name}` has shape {labels.shape}; expected ({length},), one a row'
    )
  return labels


def item_labels(labels: ArrayLike) -> np.ndarray:
  """Labels of the items of a tree `[n]`, one or more, of any dtype."""
  labels = np.asarray(labels)
  if labels.ndim != 1 or not len(labels):
    raise UserError(
      f'`labels` has shape {labels.shape}; expected [items], one or more'
    )
  return labels


def labeled(name: str, labels: np.ndarray) -> None:
  """Refuses labels that are None or NaN."""
  missing = labels != labels  # NaN alone differs from itself.
  if labels.dtype == object:
    missing = missing | np.array([label is None for label in labels])
  if np.any(missing):
    raise UserError(
      f'`{name}` lacks the label of {listed(missing)}; expected one a row: '
      'label these, or leave them out'
    )


def not_same(name: str, gallery: np.ndarray, queries: np.ndarray) -> None:
  """Refuses a gallery that is the queries, in any order: each finds itself."""
  if len(gallery) == len(queries) and (
    gallery is queries or Counter(_keys(gallery)) == Counter(_keys(queries))
  ):
    raise UserError(
      f'`{name}` holds the same {len(queries)} rows as the queries: each would '
      f'find itself first; leave `{name}` out, and each is left out of its own '
      'ranking'
    )


def num_shared(queries: np.ndarray, gallery: np.ndarray) -> int:
  """How many queries are rows of the gallery too."""
  known = set(_keys(gallery))
  return sum(key in known for key in _keys(queries))


def _keys(x: np.ndarray) -> Iterator[bytes]:
  """Of each row, the same for equal rows; 0 is added to make -0 a 0."""
  return ((row.astype(np.float64) + 0.0).tobytes() for row in x)


def class_codes(
  labels: np.ndarray, gallery_labels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Numbers the classes of both from 0: equal numbers for equal labels only.

  Raises:
    UserError: labels that are missing, or that cannot be compared.
  """
  named = {'labels': labels, 'gallery_labels': gallery_labels}
  for name, values in named.items():
    labeled(name, values)
  kinds = [_label_kind(name, values) for name, values in named.items()]
  if kinds[0] != kinds[1]:
    raise UserError(
      f'`labels` are {kinds[0]} ({labels.dtype}) and `gallery_labels` '
      f'{kinds[1]} ({gallery_labels.dtype}); expected the same: convert one'
    )
  arrays = list(named.values())
  if len({x.dtype.kind for x in arrays}) > 1 or arrays[0].dtype == object:
    # Together NumPy would make floats of int64 and uint64.
    arrays = [np.array([*x.tolist(), None], object)[:-1] for x in arrays]
  codes = np.unique(np.concatenate(arrays), return_inverse=True)[1]
  return codes[: len(labels)], codes[len(labels) :]


_LABEL_KINDS = {
  **dict.fromkeys('iuf', 'numbers'),
  **dict.fromkeys('UT', 'text'),
  'S': 'bytes',
  'b': 'bools',
}


def _label_kind(name: str, labels: np.ndarray) -> str:
  """The kind of labels; labels of one kind can be compared."""
  if labels.dtype != object:
    return _LABEL_KINDS.get(labels.dtype.kind, str(labels.dtype))
  kinds = {
    _LABEL_KINDS.get(np.dtype(t).kind, t.__name__)
    for t in {type(label) for label in labels}
  }
  if len(kinds) > 1:
    raise UserError(
      f'`{name}` mixes {" and ".join(sorted(kinds))}; expected one kind: '
      'convert them'
    )
  return next(iter(kinds))


def listed(bad: np.ndarray) -> str:
  """How many rows are bad, and which come first."""
  rows = np.flatnonzero(bad)
  return f'{len(rows)} of {len(bad)} rows (row {errors.listed(rows)})'
