"""Checks of the embeddings and labels that losses are given."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from hier_jax import debug
from hier_jax.poincare import _arguments

__all__ = ['classes', 'rows', 'shape']


def shape(name: str, a: ArrayLike, *sizes: int | None) -> None:
  """Checks the shape of an array.

  Args:
    name: of the argument.
    a: the array.
    *sizes: the size of each dimension; None for any.

  Raises:
    ValueError: for another rank or size, with both shapes.
  """
  found = jnp.shape(a)
  fits = len(found) == len(sizes) and all(
    wanted in (None, size) for size, wanted in zip(found, sizes, strict=True)
  )
  if not fits:
    wanted = ', '.join('any' if n is None else str(n) for n in sizes)
    raise ValueError(f'{name} has shape {found}, expected [{wanted}]')


def rows(
  z: ArrayLike,
  labels: ArrayLike,
  *others: ArrayLike,
  ranks: tuple[int, ...] = (2, 1),
) -> None:
  """Checks embeddings `[b, d]` and labels `[b]`, and what embeddings meet.

  Args:
    z: embeddings.
    labels: of any integer type.
    *others: arrays `[..., d]` such as proxies.
    ranks: of all of these in order; 2 for each of `others` by default.

  Raises:
    TypeError: for what is no array of JAX or NumPy.
    ValueError: for another rank, lengths that differ, labels that are no
      integers or, of NumPy's int64, too large for JAX's int32.
  """
  arrays = z, labels, *others
  for name, a in zip(('z', 'labels', 'proxies'), arrays, strict=False):
    _array(name, a)
  ranks = *ranks, *[2] * (len(arrays) - len(ranks))
  shapes = ', '.join(str(jnp.shape(a)) for a in arrays)
  if any(jnp.ndim(a) != rank for a, rank in zip(arrays, ranks, strict=True)):
    wanted = ', '.join(map(str, ranks))
    raise ValueError(f'arrays of rank {wanted} expected, got shapes {shapes}')
  if jnp.shape(z)[:1] != jnp.shape(labels)[:1]:
    raise ValueError(f'one label a row of z expected, got shapes {shapes}')
  if any(jnp.shape(a)[-1] != jnp.shape(z)[-1] for a in others):
    raise ValueError(f'z and proxies need one d, got shapes {shapes}')
  dtype = jnp.result_type(labels)
  if not (
    jnp.issubdtype(dtype, jnp.integer) or jnp.issubdtype(dtype, jnp.bool_)
  ):
    raise ValueError(
      f'labels are {dtype}, expected integers: convert class numbers with'
      ' .astype(int32); scores or one-hot rows are no labels'
    )
  if isinstance(labels, np.ndarray) and labels.dtype != dtype and labels.size:
    for value in (labels.min(), labels.max()):
      if value != value.astype(dtype):
        raise ValueError(
          f'labels hold {value}, which JAX would cut to {dtype}: number the'
          ' classes (numpy.unique(labels, return_inverse=True)[1]), or set'
          ' jax_enable_x64'
        )
  for name, a in zip(('z', 'proxies'), (z, *others), strict=False):
    _arguments.check_finite(name, a)


def _array(name: str, a: Any) -> None:
  if isinstance(a, (jax.Array, np.ndarray)) and a.dtype.kind not in 'OSUmM':
    return
  if hasattr(a, '__jax_array__'):
    return
  kind = getattr(a, 'dtype', type(a).__name__)
  raise TypeError(
    f'{name} is {kind}, expected an array of numbers: jax.numpy.asarray makes'
    ' one of lists, numpy.unique(names, return_inverse=True)[1] of class names'
  )


def classes(labels: ArrayLike, number: int, where: ArrayLike) -> None:
  """With `debug_checks`, that labels of rows that count are in 0..C-1."""
  of = jnp.asarray(labels)
  debug.check(
    lambda: jnp.logical_not(where) | ((of >= 0) & (of < number)),
    of,
    f'labels{{place}} is {{value}}, expected a class in 0..{number - 1}',
  )
