"""Files of embeddings, from any framework or from `hier-jax embed`.

An .npz holds `embeddings` and any of `labels`, `c`, `proxies`, `ids` and
`metadata`, a JSON text. Parquet has one row per item, with the columns `id`,
`embedding` and `label`; the rest is in the metadata of its schema.
"""

import base64
import io
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hier_jax import json_files, paths
from hier_jax.errors import UserError, plain
from hier_jax.evaluation import _checks, _npz

__all__ = ['SUFFIXES', 'Embedded', 'parquet_library', 'read', 'write']

SUFFIXES = '.npz', '.parquet'
_REMEDY = 'write it with numpy.savez(path, embeddings=..., labels=...)'
# Key of our entry in the metadata of a Parquet schema.
_KEY = b'hier_jax'


class Embedded(NamedTuple):
  """What a file of embeddings holds.

  Attributes:
    embeddings: `[n, d]`.
    labels: `[n]`, or None.
    c: curvature: None for cosine, 0 for Euclidean, c > 0 for points of the ball
      of curvature -c.
    proxies: hierarchical proxies `[P, d]`, points of the same ball, or None.
    ids: n texts that tell the rows apart, or None.
    about: what else is known, such as the model and the source.
  """

  embeddings: np.ndarray
  labels: np.ndarray | None = None
  c: float | None = None
  proxies: np.ndarray | None = None
  ids: Sequence[str] | None = None
  about: Mapping[str, Any] = {}


def read(path: str | os.PathLike) -> Embedded:
  """Reads a file of embeddings.

  Embeddings from a file without `c` are ranked by cosine, with c = 0 by
  Euclidean distance, and with c > 0 as points of the ball of curvature -c.

  Args:
    path: of the .npz or .parquet.

  Raises:
    UserError: no such file, another format, an array that is missing, or
      labels or ids of another number than the rows.
  """
  path = paths.as_path(path)
  if path.suffix not in (*SUFFIXES, '.npy') and not path.exists():
    raise UserError(
      f'{path} does not exist: expected the workdir of a run, '
      'WORKDIR/checkpoints/STEP, or an .npz or .parquet of embeddings'
    )
  reader = _read_parquet if path.suffix == '.parquet' else _read_npz
  found = reader(path)
  rows = len(found.embeddings)
  for name, values in (('labels', found.labels), ('ids', found.ids)):
    if values is not None and len(values) != rows:
      raise UserError(
        f'{path}: `{name}` has {len(values)} entries for {rows} rows of'
        ' `embeddings`; expected one a row'
      )
  return found


def write(embedded: Embedded, path: str | os.PathLike) -> None:
  """Writes a file of embeddings, atomically; see `read`.

  Raises:
    UserError: another suffix, pyarrow is missing, or it cannot be written.
  """
  path = paths.as_path(path)
  writer = _write_parquet if path.suffix == '.parquet' else _write_npz
  paths.check_output(path, suffixes=SUFFIXES)
  with paths.replacing(path) as temporary:
    writer(embedded, temporary)


def _read_npz(path):
  arrays = _npz.read(
    path,
    ('embeddings',),
    _REMEDY,
    optional=('labels', 'c', 'proxies', 'ids', 'metadata'),
  )
  ids, labels = arrays.get('ids'), arrays.get('labels')
  return Embedded(
    arrays['embeddings'],
    None if labels is None else _text(path, labels),
    _number(path, arrays.get('c')),
    arrays.get('proxies'),
    None if ids is None else _texts(path, ids),
    _about(path, arrays.get('metadata', '{}')),
  )


def _write_npz(embedded, temporary):
  arrays = {
    'embeddings': embedded.embeddings,
    'labels': embedded.labels,
    'c': embedded.c,
    'proxies': embedded.proxies,
    'ids': None if embedded.ids is None else np.array(embedded.ids, np.str_),
    'metadata': np.array(json.dumps(dict(embedded.about))),
  }
  with temporary.open('wb') as file:
    # No c is cosine; other arrays that are None are not known.
    np.savez(file, **{k: v for k, v in arrays.items() if v is not None})


def _text(path, labels):
  """Labels that are bytes as text, so that both kinds of files compare."""
  if labels.dtype.kind != 'S':
    return labels
  try:
    return np.strings.decode(labels, 'utf-8')
  except UnicodeDecodeError as error:
    raise UserError(
      f'{path}: `labels` are bytes and no UTF-8 ({error}); expected text: '
      'decode them'
    ) from error


def _texts(path, ids):
  if ids.ndim != 1 or ids.dtype.kind != 'U':
    raise UserError(
      f'{path}: `ids` is {ids.dtype} {ids.shape}; expected one text a row'
    )
  return ids.tolist()


def _number(path, c):
  if c is None:
    return None
  if c.size != 1:
    raise UserError(f'{path}: `c` has shape {c.shape}; expected one number')
  return _checks.curvature(f'c of {path}', c.item())


def _about(path, text):
  try:
    about = json_files.parse(np.asarray(text).item())
    if not isinstance(about, dict):
      raise ValueError('it is no object')
  except (TypeError, ValueError) as error:
    raise UserError(
      f'{path}: `metadata` is no JSON object ({plain(str(error))}): leave it'
      ' out'
    ) from error
  return about


def parquet_library() -> Any:
  """The module `pyarrow.parquet`; raises UserError where it is missing."""
  try:
    import pyarrow.parquet
  except ImportError as error:
    raise UserError(
      "Parquet needs pyarrow: pip install 'hier_jax[parquet]', or name an .npz"
    ) from error
  return pyarrow.parquet


def in_parquet(value: Any) -> Any:
  """An id or a label as Parquet holds it: names need not be UTF-8."""
  if not isinstance(value, str):
    return value
  data = value.encode(errors='surrogateescape')
  return data.decode(errors='backslashreplace')


def _write_parquet(embedded, temporary):
  parquet = parquet_library()
  import pyarrow as pa

  x = np.asarray(embedded.embeddings)
  flat = pa.array(np.ascontiguousarray(x).reshape(-1))
  columns = {'embedding': pa.FixedSizeListArray.from_arrays(flat, x.shape[1])}
  if embedded.ids is not None:
    ids = pa.array(map(in_parquet, embedded.ids), pa.string())
    columns = {'id': ids, **columns}
  if embedded.labels is not None:
    columns['label'] = pa.array(map(in_parquet, embedded.labels.tolist()))
  about = {'c': embedded.c, 'metadata': dict(embedded.about)}
  if embedded.proxies is not None:
    file = io.BytesIO()
    np.save(file, embedded.proxies)
    about['proxies'] = base64.b64encode(file.getvalue()).decode()
  table = pa.table(columns)
  table = table.replace_schema_metadata({_KEY: json.dumps(about)})
  parquet.write_table(table, temporary)


def _read_parquet(path):
  parquet = parquet_library()
  import pyarrow as pa

  try:
    with path.open('rb') as file:
      table = parquet.read_table(pa.PythonFile(file))
  except FileNotFoundError:
    raise UserError(f'{path} does not exist') from None
  except (OSError, pa.ArrowException) as error:
    raise UserError(
      f'{path} cannot be read as Parquet ({plain(str(error))})'
    ) from error
  about = _about(path, (table.schema.metadata or {}).get(_KEY, b'{}'))
  column = lambda name: (
    table[name].combine_chunks() if name in table.column_names else None
  )
  rows, ids, labels = map(column, ('embedding', 'id', 'label'))
  if rows is None:
    held = ', '.join(map(plain, table.column_names))
    raise UserError(
      f"{path} lacks the column 'embedding', it holds {held or 'nothing'}"
    )
  c = about.get('c')
  return Embedded(
    _matrix(path, rows),
    None if labels is None else np.array(labels.to_pylist()),
    _checks.curvature(f'c of {path}', c),
    _proxies(path, about.get('proxies')),
    None if ids is None else [str(x) for x in ids.to_pylist()],
    about.get('metadata', {}),
  )


def _matrix(path, rows):
  """`[n, d]` of lists of one length."""
  import pyarrow as pa

  kinds = pa.FixedSizeListArray, pa.ListArray, pa.LargeListArray
  if isinstance(rows, kinds) and len(rows) and not rows.null_count:
    lengths = np.unique(rows.value_lengths().to_numpy())
    values = rows.flatten().to_numpy(zero_copy_only=False)
    if len(lengths) == 1:
      return values.reshape(len(rows), -1)
  raise UserError(
    f"{path}: the column 'embedding' is {rows.type} of {len(rows)} rows;"
    ' expected lists of numbers, all of one length'
  )


def _proxies(path, text):
  if text is None:
    return None
  try:
    file = io.BytesIO(base64.b64decode(text, validate=True))
    return np.load(file, allow_pickle=False)
  except (EOFError, TypeError, ValueError) as error:
    raise UserError(
      f'{path}: its proxies cannot be read ({plain(str(error))})'
    ) from error
