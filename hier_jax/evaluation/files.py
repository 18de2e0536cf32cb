"""Embeddings from files of any framework, and figures into files."""

import json
import math
import pathlib
import zipfile
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from hier_jax import atomic
from hier_jax.errors import UserError
from hier_jax.evaluation.hierarchy.metrics import hierarchy_metrics
from hier_jax.evaluation.retrieval.metrics import RECALL_AT, retrieval_metrics
from hier_jax.evaluation.taxonomy import Taxonomy

FIGURES = ('map@r', 'r_precision', 'mrr', 'map')


class Embedded(NamedTuple):
  """What a file of embeddings holds.

  Attributes:
    embeddings: `[n, d]`.
    labels: `[n]`.
    c: curvature, or None where the file does not say.
  """

  embeddings: np.ndarray
  labels: np.ndarray
  c: float | None


def read(path) -> Embedded:
  """Reads an .npz with arrays `embeddings`, `labels` and perhaps `c`.

  Raises:
    UserError: no such file, another format, or an array that is missing.
  """
  path = pathlib.Path(path)
  try:
    with np.load(path, allow_pickle=False) as archive:
      if not isinstance(archive, np.lib.npyio.NpzFile):
        raise ValueError('a single array')
      arrays = dict(archive)
  except FileNotFoundError:
    raise UserError(f'{path} does not exist') from None
  except (OSError, ValueError, zipfile.BadZipFile) as error:
    raise UserError(
      f'{path} cannot be read as .npz ({error}): write it with'
      ' numpy.savez(path, embeddings=..., labels=...)'
    ) from error
  missing = [name for name in ('embeddings', 'labels') if name not in arrays]
  if missing:
    held = ', '.join(sorted(arrays)) or 'nothing'
    raise UserError(
      f'{path} lacks the array {missing[0]!r}, it holds {held}: write it with'
      ' numpy.savez(path, embeddings=..., labels=...)'
    )
  c = arrays.get('c')
  if c is not None and c.size != 1:
    raise UserError(f'{path}: `c` has shape {c.shape}; expected one number')
  return Embedded(
    arrays['embeddings'],
    arrays['labels'],
    None if c is None else float(c.item()),
  )


def evaluate(
  query,
  gallery=None,
  *,
  c: float | None = None,
  taxonomy=None,
  recall_at: Sequence[int] = RECALL_AT,
) -> dict[str, float | int]:
  """Figures of embeddings in files.

  Args:
    query: .npz of the queries, see `read`.
    gallery: .npz of the gallery; None means the queries, each left out of its
      own ranking.
    c: curvature; None takes what the query file says, else 0 (cosine).
    taxonomy: CSV of the classes' tree, see `Taxonomy.from_csv`; None leaves the
      figures of hierarchy out.
    recall_at: the K of Recall@K.

  Returns:
    `retrieval_metrics` with `FIGURES`, 'c' and, under 'hierarchy/', what
    `hierarchy_metrics` finds.

  Raises:
    UserError: see `read`, `retrieval_metrics` and `hierarchy_metrics`.
  """
  queries = read(query)
  c = c if c is not None else queries.c or 0.0
  ranking: dict[str, Any] = {}
  if gallery is not None:
    items = read(gallery)
    ranking = {'gallery': items.embeddings, 'gallery_labels': items.labels}
  data = queries.embeddings, queries.labels
  found: dict[str, float | int] = {'c': c}
  found |= retrieval_metrics(
    *data, recall_at=recall_at, figures=FIGURES, c=c, **ranking
  )
  if taxonomy is not None:
    tree = Taxonomy.from_csv(taxonomy)
    figures = hierarchy_metrics(
      *data, tree, c=c, recall_at=recall_at, **ranking
    )
    found |= {f'hierarchy/{key}': value for key, value in figures.items()}
  return found


def write_json(path, figures):
  """Writes figures, atomically; one that is not defined is null."""
  known = {
    key: None if isinstance(value, float) and math.isnan(value) else value
    for key, value in figures.items()
  }
  text = json.dumps(known, indent=2, allow_nan=False)
  atomic.write_text(path, f'{text}\n')


def as_lines(figures) -> str:
  """Figures as text, one a line."""
  width = max(map(len, figures))
  shown = lambda value: f'{value:.4f}' if isinstance(value, float) else value
  return '\n'.join(
    f'{key.ljust(width)}  {shown(value)}' for key, value in figures.items()
  )
