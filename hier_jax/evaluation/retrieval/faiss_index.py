"""FAISS indexes in which inner products rank like a distance.

`PATH` is an index of lifted vectors that any FAISS program reads; `PATH.npz`
beside it holds what queries are lifted with. Both hold one random token, which
tells files that were written together: `PATH` after the end of what FAISS
reads.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import secrets
from collections.abc import Iterator
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
KINDS = 'flat', 'hnsw', 'ivfpq'
# Links of a node of a graph, and the nodes looked at to make and to search it.
_LINKS, _EF_MAKE, _EF_SEARCH = 32, 200, 128
# Bytes that a vector is compressed to.
_BYTES = 64
# Of the cells that vectors are sorted into, the share that is searched: a
# lifted query and its neighbors are often in different ones.
_PROBED = 1 / 2
# Rows that an index learns from, for each of its cells.
_PER_CELL = 64
# Rows that FAISS needs to learn the 256 values of a byte.
_LEAST = 39 * 256
# Before the token at the end of a file, and the letters of a token.
_MARK, _TOKEN = b'hier_jax', 32

# Arrays that were called otherwise in version 0.1.
_OF_0_1 = {'distance': 'metric', 'center': 'centre'}


@dataclasses.dataclass(frozen=True, eq=False)
class FaissIndex:
  """A gallery to search.

  Attributes:
    index: FAISS index of inner products with the lifted gallery.
    lift: what queries are lifted with.
    token: what files that were written together share; None in older ones.
  """

  index: Any
  lift: Lift
  token: str | None = None

  @property
  def kind(self) -> str:
    """What it is, see `write_faiss`."""
    faiss = library()
    for kind, of in ('flat', faiss.IndexFlat), ('hnsw', faiss.IndexHNSW):
      if isinstance(self.index, of):
        return kind
    return 'ivfpq'

  def search(self, queries, k: int) -> tuple[np.ndarray, np.ndarray]:
    """The k nearest gallery rows of each query, the nearest first.

    Args:
      queries: `[n, d]`, points of the gallery's space.
      k: number of neighbors.

    Returns:
      inner products `[n, k]` float32, which rank like the distance but are not
      distances; and rows of the gallery `[n, k]` int64, -1 if it has fewer than
      k.

    Raises:
      UserError: rows for which the distance is not defined, dimensions other
        than the gallery's, a k that is not a positive integer.
    """
    k = _checks.positive_int('k', k)
    distance, c = self.lift.distance, self.lift.c
    queries = _spaces.points('queries', queries, distance, c)
    _check_width('queries', queries, self.lift)
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
  kind: str = 'flat',
) -> FaissIndex:
  """Writes an index of a gallery, both of its files atomically.

  Args:
    gallery: rows to index `[m, d]`; their ids in the index count from 0.
    path: where the index is written; its lift goes to `PATH.npz` beside it.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      of curvature -c.
    distance: 'cosine', 'euclidean', 'hyperbolic' or 'lorentz', see `per_query`;
      None for the one that c says, which is never 'lorentz'.
    kind: 'flat' is exact. 'hnsw' is a graph of about the same size. 'ivfpq'
      takes about 70 bytes per row, with approximate inner products.

  Returns:
    The `FaissIndex` that was written.

  Raises:
    UserError: FAISS is not installed, rows for which the distance is not
      defined, fewer rows than a compressed index needs to learn from.

  Example:
    >>> import os, tempfile
    >>> from hier_jax import evaluation
    >>> with tempfile.TemporaryDirectory() as folder:
    ...   path = os.path.join(folder, 'gallery.faiss')
    ...   index = evaluation.write_faiss([[0.0], [5.0], [9.0]], path, c=0)
    >>> index.search([[4.0]], k=2)[1].tolist()
    [[1, 0]]
  """
  with writing(gallery, path, c=c, distance=distance, kind=kind) as made:
    return made


@contextlib.contextmanager
def writing(
  gallery,
  path: str | os.PathLike[str],
  *,
  c: float | None = None,
  distance: str | None = None,
  kind: str = 'flat',
) -> Iterator[FaissIndex]:
  """As `write_faiss`, with files that are replaced when the block ends well."""
  faiss = library()
  distance, c = _spaces.resolve(distance, c)
  gallery = _spaces.points('gallery', gallery, distance, c)
  check_kind(kind, len(gallery))
  lift = Lift.about(gallery, c=c, distance=distance)
  vectors = lift.gallery(gallery)
  index = _made(kind, vectors)
  index.add(vectors)
  made = FaissIndex(index, lift, secrets.token_hex(_TOKEN // 2))
  at, beside = files_of(path)
  with (
    # FAISS raises RuntimeError where it cannot write.
    paths.replacing(at, (OSError, RuntimeError)) as new_index,
    paths.replacing(beside) as new_lift,
  ):
    _write(faiss, made, new_index)
    with new_lift.open('wb') as file:
      arrays = dataclasses.asdict(lift) | {'token': made.token}
      # As in files of embeddings: no c is cosine.
      np.savez(file, **{k: v for k, v in arrays.items() if v is not None})
    yield made


def _write(faiss, made: FaissIndex, path: pathlib.Path) -> None:
  faiss.write_index(made.index, str(path))
  if made.token is not None:
    with path.open('ab') as file:
      file.write(_MARK + made.token.encode())


def _token(path) -> str | None:
  """That at the end of a file; None of older ones."""
  with paths.as_path(path).open('rb') as file:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - len(_MARK) - _TOKEN))
    end = file.read()
  if not end.startswith(_MARK):
    return None
  return end.removeprefix(_MARK).decode(errors='replace')


def add_faiss(
  gallery: Float[ArrayLike, 'm d'], path: str | os.PathLike[str]
) -> None:
  """Adds rows to an index that was written, atomically.

  New ids continue after the existing ones. The whole index is read.

  Args:
    gallery: rows `[m, d]`, points of the index's space.
    path: of the index.

  Raises:
    UserError: as `read_faiss`, and for rows of another space.
  """
  faiss = library()
  found = read_faiss(path)
  lift = found.lift
  gallery = _spaces.points('gallery', gallery, lift.distance, lift.c)
  _check_width('gallery', gallery, lift)
  found.index.add(lift.gallery(gallery))
  with paths.replacing(path, (OSError, RuntimeError)) as new_index:
    _write(faiss, found, new_index)


def check_kind(kind: str, rows: int) -> None:
  """Checks, before any work, that an index can be of a kind.

  Args:
    kind: see `write_faiss`.
    rows: the number of those to index.

  Raises:
    UserError: there is no such kind, or it learns from more rows.
  """
  if kind not in KINDS:
    raise UserError(f'`kind` is {kind!r}; expected one of {list(KINDS)}')
  if kind == 'ivfpq' and rows < _LEAST:
    raise UserError(
      f'an ivfpq index learns from {_LEAST:,} rows or more, found {rows:,}:'
      ' take flat or hnsw'
    )


def _made(kind: str, vectors: np.ndarray) -> Any:
  """An empty index of a kind, for vectors `[m, D]`."""
  faiss = library()
  m, dim = vectors.shape
  product = faiss.METRIC_INNER_PRODUCT
  if kind == 'flat':
    return faiss.IndexFlatIP(dim)
  if kind == 'hnsw':
    index = faiss.IndexHNSWFlat(dim, _LINKS, product)
    index.hnsw.efConstruction = _EF_MAKE
    index.hnsw.efSearch = _EF_SEARCH
    return index
  cells = max(1, round(m**0.5))
  code = min(_BYTES, -(-dim // 2))
  # The rotation spreads the vectors evenly over the dimensions of all bytes.
  rotated = code * -(-dim // code)
  index = faiss.index_factory(dim, f'RR{rotated},IVF{cells},PQ{code}', product)
  step = max(1, m // max(_PER_CELL * cells, _LEAST))
  index.train(np.ascontiguousarray(vectors[::step]))
  faiss.extract_index_ivf(index).nprobe = max(1, round(_PROBED * cells))
  return index


def read_faiss(
  path: str | os.PathLike[str], *, mapped: bool = False
) -> FaissIndex:
  """Reads what `write_faiss` wrote.

  Args:
    path: path of the index; its lift is read from `PATH.npz` beside it.
    mapped: whether to map the file into memory, so that a search reads only
      what it touches. Rows cannot be added to such an index.

  Returns:
    The `FaissIndex`, ready to search.

  Raises:
    UserError: FAISS is not installed, one of the files cannot be read, or they
      were not written together.

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
    index = _mapped(faiss, str(path)) if mapped else faiss.read_index(str(path))
  except RuntimeError as error:
    reason = str(error).splitlines()[0]
    raise UserError(f'{path} cannot be read ({reason}): {remedy}') from error
  names = [*_OF_0_1, *_OF_0_1.values(), 'c', 'token']
  arrays = _npz.read(files_of(path)[1], ['scale', 'unit'], remedy, names)
  token = str(arrays['token']) if 'token' in arrays else None
  if token != _token(path):
    raise UserError(f'{path}.npz was not written with {path}: {remedy}')
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
  return FaissIndex(index, lift, token)


def _mapped(faiss, path):
  """The index of a file that is mapped into memory."""
  try:
    # Of vectors one after the other, and of graphs.
    return faiss.read_index(path, faiss.IO_FLAG_MMAP_IFC)
  except RuntimeError:
    # Of vectors in cells.
    return faiss.read_index(path, faiss.IO_FLAG_MMAP)


def _check_width(name, points, lift):
  expected = len(lift.center) + (lift.distance == 'lorentz')
  if points.shape[1] != expected:
    raise UserError(
      f'`{name}` has {points.shape[1]} dimensions and the index {expected};'
      ' expected the same: embed both with one model'
    )


def files_of(path) -> tuple[pathlib.Path, pathlib.Path]:
  """The files of an index: itself, and what queries are lifted with."""
  return paths.as_path(path), paths.as_path(f'{path}.npz')


def items_of(path) -> pathlib.Path:
  """The table of ids beside an index that `hier-jax embed` wrote."""
  return paths.as_path(f'{path}.items')


def library():
  """The module `faiss`; raises UserError where it is not installed."""
  try:
    import faiss
  except ImportError as error:
    raise UserError(
      "FAISS is not installed: pip install 'hier_jax[evaluation]'"
    ) from error
  return faiss
