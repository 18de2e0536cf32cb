"""Indexes of images: FAISS beside a table of ids, both read from the disk.

`PATH` and `PATH.npz` are a `FaissIndex`. `PATH.items` is an SQLite database
with the id, the label and the embedding (float32) of each row, what is known
about the model and the images, and the token of the `FaissIndex`.
"""

import contextlib
import functools
import json
import os
import shutil
import sqlite3
import urllib.parse
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from hier_jax import json_files, paths
from hier_jax.errors import UserError, plain
from hier_jax.evaluation.embedding_files import Embedded
from hier_jax.evaluation.retrieval import faiss_index
from hier_jax.evaluation.retrieval.nearest import nearest

__all__ = ['SUFFIX', 'Index', 'Item', 'add', 'check', 'open_index', 'write']

SUFFIX = '.faiss'
_items = faiss_index.items_of
# Rows that an index proposes for each that is asked for.
_PROPOSED = 10
_TABLES = """
CREATE TABLE items (
  row INTEGER PRIMARY KEY, id BLOB UNIQUE, label INTEGER, embedding BLOB
);
CREATE TABLE labels (number INTEGER PRIMARY KEY, name BLOB UNIQUE);
CREATE TABLE about (text TEXT);
CREATE TABLE token (text TEXT);
"""


class Item(NamedTuple):
  """What an index knows of an image."""

  id: str
  label: str | None


class Index:
  """An index of images; only what a search touches is read from the disk.

  Args:
    path: of the .faiss.

  Attributes:
    path: of the .faiss.
    about: what is known of the model and the images.

  Raises:
    UserError: there is no such index, `embed` did not write it, or its files
      were not written together.
  """

  def __init__(self, path: str | os.PathLike):
    self.path = paths.as_local(path, 'the index')
    self._faiss = faiss_index.read_faiss(self.path, mapped=True)
    items = _items(self.path)
    if not items.exists():
      raise UserError(
        f'{items} does not exist, which knows the images of {self.path}: write'
        ' the index with hier-jax embed, or copy all three of its files'
      )
    where = urllib.parse.quote(os.fspath(items.absolute()))
    self._base = sqlite3.connect(
      f'file:{where}?mode=ro', uri=True, check_same_thread=False
    )
    with _naming(items):
      (text,) = self._base.execute('SELECT text FROM about').fetchone()
      self.about: Mapping[str, Any] = dict(json_files.parse(text))
      # Rows count from 0; to count them would read them all.
      (last,) = self._base.execute('SELECT max(row) FROM items').fetchone()
      token = _token(self._base)
    if token != self._faiss.token:
      raise UserError(
        f'{items} was not written with {self.path}: write the index anew, or'
        ' copy all three of its files'
      )
    known = 0 if last is None else last + 1
    if known < len(self):
      raise UserError(
        f'{items} knows {known:,} of the {len(self):,} images of {self.path}:'
        ' write the index anew'
      )

  def __len__(self) -> int:
    """The number of images."""
    return self._faiss.index.ntotal

  @property
  def c(self) -> float | None:
    """Its curvature: None for cosine, 0 for Euclidean."""
    return self._faiss.lift.c

  @property
  def kind(self) -> str:
    """What it is, see `write_faiss`."""
    return self._faiss.kind

  def has(self, name: str) -> bool:
    """Whether the index holds an image of this id."""
    with _naming(_items(self.path)):
      found = self._base.execute(
        'SELECT row FROM items WHERE id = ?', [_bytes(name)]
      ).fetchone()
      return found is not None and found[0] < len(self)

  @functools.cached_property
  def labels(self) -> frozenset[str]:
    """Names of the classes in the index."""
    with _naming(_items(self.path)):
      rows = self._base.execute('SELECT name FROM labels').fetchall()
      return frozenset(_text(name) for (name,) in rows)

  def item(self, row: int) -> Item:
    """What is known of a row."""
    with _naming(_items(self.path)):
      name, label = self._base.execute(
        'SELECT id, name FROM items LEFT JOIN labels ON label = number'
        ' WHERE row = ?',
        [int(row)],
      ).fetchone()
      return Item(_text(name), None if label is None else _text(label))

  def embedded(self) -> Embedded:
    """Everything in the index, read into memory; an index has no proxies."""
    with _naming(_items(self.path)):
      rows = self._base.execute(
        'SELECT id, name, embedding FROM items LEFT JOIN labels ON label ='
        ' number WHERE row < ? ORDER BY row',
        [len(self)],
      ).fetchall()
      names, labels, found = zip(*rows, strict=True) if rows else ((), (), ())
      x = np.stack([np.frombuffer(one, '<f4') for one in found])
      known = None not in labels
      return Embedded(
        x,
        np.array([_text(name) for name in labels]) if known else None,
        self.c,
        None,
        [_text(name) for name in names],
        self.about,
      )

  def search(self, queries, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances `[n, k]` and rows `[n, k]`, the nearest first; -1 is none.

    The index proposes more than k rows, and these are ranked by exact distances
    in float64, since inner products of compressed vectors are inexact.
    """
    most = min(_PROPOSED * k, len(self))
    _, proposed = self._faiss.search(queries, most)
    far = np.full((len(queries), k), np.inf)
    rows = np.full((len(queries), k), -1)
    for i, found in enumerate(proposed):
      found = np.sort(found[found >= 0])
      if len(found):
        near, order = nearest(
          queries[i : i + 1], self._embeddings(found), k, c=self.c
        )
        far[i, : near.shape[1]], rows[i, : near.shape[1]] = near, found[order]
    return far, rows

  def _embeddings(self, rows: np.ndarray) -> np.ndarray:
    """Those of some rows `[m, d]`."""
    read = lambda row: self._base.execute(
      'SELECT embedding FROM items WHERE row = ?', [int(row)]
    ).fetchone()[0]
    with _naming(_items(self.path)):
      return np.stack([np.frombuffer(read(row), '<f4') for row in rows])


def check(path: str | os.PathLike, *, inputs: Iterable) -> None:
  """Checks, before any work, that an index can be written."""
  faiss_index.library()
  path = paths.as_local(path, 'the index')
  for file in (*faiss_index.files_of(path), _items(path)):
    paths.check_output(file, inputs=inputs)


def open_index(path: str | os.PathLike) -> Index:
  """Opens an index; see `Index`."""
  return Index(path)


def write(embedded: Embedded, path: str | os.PathLike, *, kind: str) -> int:
  """Writes an index of embeddings with ids; returns the number of rows."""
  path = paths.as_local(path, 'the index')
  # All files are whole before the first takes another's place.
  with (
    faiss_index.writing(
      embedded.embeddings, path, c=embedded.c, kind=kind
    ) as made,
    _replacing(_items(path), None) as base,
  ):
    base.executescript(_TABLES)
    base.execute('INSERT INTO token VALUES (?)', [made.token])
    base.execute(
      'INSERT INTO about VALUES (?)', [json.dumps(dict(embedded.about))]
    )
    _insert(base, 0, embedded)
  return len(embedded.embeddings)


def add(index: Index, embedded: Embedded) -> int:
  """Adds images to an index; returns the number of its rows.

  The table of ids is written first. If a crash between the two writes leaves
  more rows in the table than in the index, readers ignore the surplus rows and
  the next call writes them anew.
  """
  start = len(index)
  with _replacing(_items(index.path), _items(index.path)) as base:
    base.execute('DELETE FROM items WHERE row >= ?', [start])
    _insert(base, start, embedded)
  faiss_index.add_faiss(embedded.embeddings, index.path)
  return start + len(embedded.embeddings)


def _token(base) -> str | None:
  """What the files of the index share; None in older ones."""
  known = base.execute(
    "SELECT name FROM sqlite_master WHERE name = 'token'"
  ).fetchone()
  return known and base.execute('SELECT text FROM token').fetchone()[0]


@contextlib.contextmanager
def _replacing(path, old) -> Iterator[sqlite3.Connection]:
  """A database that takes another's place when the block ends well."""
  with paths.replacing(path, (OSError, sqlite3.Error)) as temporary:
    if old is not None:
      shutil.copyfile(old, temporary)
    base = sqlite3.connect(temporary)
    try:
      # The file is renamed when it is whole: no journal is needed.
      base.execute('PRAGMA journal_mode = OFF')
      yield base
      base.commit()
    finally:
      base.close()


def _insert(base, start, embedded):
  labels = embedded.labels
  names = [] if labels is None else [_bytes(str(x)) for x in labels.tolist()]
  base.executemany(
    'INSERT OR IGNORE INTO labels (name) VALUES (?)', ([x] for x in set(names))
  )
  numbers = {
    name: number
    for number, name in base.execute('SELECT number, name FROM labels')
  }
  base.executemany(
    'INSERT INTO items VALUES (?, ?, ?, ?)',
    (
      (
        start + i,
        _bytes(name),
        numbers[names[i]] if names else None,
        embedded.embeddings[i].astype('<f4').tobytes(),
      )
      for i, name in enumerate(embedded.ids)
    ),
  )


@contextlib.contextmanager
def _naming(path):
  try:
    yield
  except (sqlite3.Error, AttributeError, TypeError, ValueError) as error:
    raise UserError(
      f'{path} is no table of images ({plain(str(error))}): write the index'
      ' anew'
    ) from error


def _bytes(text: str) -> bytes:
  # Names of files need not be UTF-8.
  return text.encode(errors='surrogateescape')


def _text(data: bytes) -> str:
  return data.decode(errors='surrogateescape')
