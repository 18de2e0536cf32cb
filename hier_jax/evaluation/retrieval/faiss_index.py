"""FAISS indexes in which inner products rank as a distance does.

`PATH` is an exact index of lifted vectors that any FAISS program reads;
`PATH.npz` beside it holds what queries are lifted with.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy.typing import ArrayLike

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.evaluation import _checks, _npz
from hier_jax.evaluation.retrieval import _spaces
from hier_jax.evaluation.retrieval.lift import Lift

# Searched at a time: their neighbors are what costs memory.
_QUERIES = 4096

# Arrays that were called otherwise in version 0.1.
_OF_0_1 = {'distance': 'metric', 'center': 'centre'}


@dataclasses.dataclass(frozen=True, eq=False)
class FaissIndex:
  """A gallery to search.

  Attributes:
    index: `faiss.IndexFlatIP` of the lifted gallery, or another index of inner
      products made from it.
    lift: what queries are lifted with.
  """

  index: Any
  lift: Lift

  def search(self, queries, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest gallery rows of each query, the nearest first.

    Args:
      queries: `[n, d]`, points of the gallery's space.
      k: number of neighbors.

    Returns:
      inner products `[n, k]` float32, which order as the distance does but are
      no distances, and rows of the gallery `[n, k]` int64, -1 where it has
      fewer.

    Raises:
      UserError: rows that the distance is not defined for, other dimensions
        than the gallery's, a k that is not a positive integer.
    """
    k = _checks.positive_int('k', k)
    distance, c = self.lift.distance, self.lift.c
    queries = _spaces.points('queries', queries, distance, c)
    expected = len(self.lift.center) + (distance == 'lorentz')
    if queries.shape[1] != expected:
      raise UserError(
        f'`queries` has {queries.shape[1]} dimensions and the gallery'
        f' {expected}; expected the same: embed both with one model'
      )
    found = [
      self.index.search(self.lift.queries(queries[i : i + _QUERIES]), k)
      for i in range(0, len(queries), _QUERIES)
    ]
    scores, rows = zip(*found, strict=True)
    return np.concatenate(scores), np.concatenate(rows)


def write_faiss(
  gallery: Float[ArrayLike, 'm d'],
  path: str | os.PathLike[str],
  *,
  c: float | None = None,
  distance: str | None = None,
) -> FaissIndex:
  """Writes an exact index of a gallery, both of its files atomically.

  Args:
    gallery: rows to index `[m, d]`; their ids in the index count from 0.
    path: where the index is written; its lift goes to `PATH.npz` beside it.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      of curvature -c.
    distance: 'cosine', 'euclidean', 'hyperbolic' or 'lorentz', see `per_query`;
      None for the one that c says, which is never 'lorentz'.

  Returns:
    The `FaissIndex` that was written.

  Raises:
    UserError: where FAISS is not installed, and for rows that the distance is
      not defined for.

  Example:
    >>> import os, tempfile
    >>> from hier_jax import evaluation
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = os.path.join(folder, 'gallery.faiss')
    ...   index = evaluation.write_faiss([[0.0], [5.0], [9.0]], path, c=0)
    >>> index.search([[4.0]], k=2)[1].tolist()
    [[1, 0]]
  """
  faiss = library()
  distance, c = _spaces.resolve(distance, c)
  gallery = _spaces.points('gallery', gallery, distance, c)
  lift = Lift.about(gallery, c=c, distance=distance)
  vectors = lift.gallery(gallery)
  index = faiss.IndexFlatIP(vectors.shape[1])
  index.add(vectors)
  at, beside = files_of(path)
  with (
    # FAISS raises RuntimeError where it cannot write.
    paths.replacing(at, (OSError, RuntimeError)) as new_index,
    paths.replacing(beside) as new_lift,
  ):
    faiss.write_index(index, str(new_index))
    with new_lift.open('wb') as file:
      arrays = dataclasses.asdict(lift)
      # As in files of embeddings: no c is cosine.
      np.savez(file, **{k: v for k, v in arrays.items() if v is not None})
  return FaissIndex(index, lift)


def read_faiss(path: str | os.PathLike[str]) -> FaissIndex:
  """Reads what `write_faiss` wrote.

  Args:
    path: path of the index; its lift is read from `PATH.npz` beside it.

  Returns:
    The `FaissIndex`, ready to search.

  Raises:
    UserError: where FAISS is not installed or either file cannot be read.

  Example:
    >>> import os, tempfile
    >>> from hier_jax import evaluation
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = os.path.join(folder, 'gallery.faiss')
    ...   written = evaluation.write_faiss([[0.0], [5.0], [9.0]], path, c=0)
    ...   index = evaluation.read_faiss(path)
    >>> index.lift.distance, index.index.ntotal
    ('euclidean', 3)
  """
  faiss = library()
  remedy = 'write both files of the index anew, with --export faiss'
  try:
    index = faiss.read_index(str(path))
  except RuntimeError as error:
    reason = str(error).splitlines()[0]
    raise UserError(f'{path} cannot be read ({reason}): {remedy}') from error
  names = [*_OF_0_1, *_OF_0_1.values(), 'c']
  arrays = _npz.read(files_of(path)[1], ['scale', 'unit'], remedy, names)
  for name, old in _OF_0_1.items():
    if name not in arrays and old not in arrays:
      raise UserError(f'{path}.npz lacks the array {name!r}: {remedy}')
    arrays[name] = arrays[name if name in arrays else old]
  lift = Lift(
    distance=str(arrays['distance']),
    c=float(arrays['c']) if 'c' in arrays else None,
    scale=float(arrays['scale']),
    center=arrays['center'],
    unit=float(arrays['unit']),
  )
  return FaissIndex(index, lift)


def files_of(path) -> tuple[pathlib.Path, pathlib.Path]:
  """The files of an index: itself, and what queries are lifted with."""
  return paths.as_path(path), paths.as_path(f'{path}.npz')


def library():
  """The module `faiss`; raises UserError where it is not installed."""
  try:
    import faiss
  except ImportError as error:
    raise UserError(
      "FAISS is not installed: pip install 'hier_jax[evaluation]'"
    ) from error
  return faiss
