"""Embeddings from files of any framework, and figures into files."""

import json
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from hier_jax import paths
from hier_jax.errors import UserError
from hier_jax.evaluation import faiss_index, npz
from hier_jax.evaluation.hierarchy.agreement import node_purity
from hier_jax.evaluation.hierarchy.metrics import hierarchy_metrics
from hier_jax.evaluation.retrieval.metrics import RECALL_AT, retrieval_metrics
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree.proxies import proxy_tree

FIGURES = ('map@r', 'r_precision', 'mrr', 'map')


class Embedded(NamedTuple):
  """What a file of embeddings holds.

  Attributes:
    embeddings: `[n, d]`.
    labels: `[n]`.
    c: curvature, or None where the file does not say.
    proxies: hierarchical proxies `[P, d]`, points of the same ball, or None.
  """

  embeddings: np.ndarray
  labels: np.ndarray
  c: float | None = None
  proxies: np.ndarray | None = None


def read(path) -> Embedded:
  """Reads an .npz with `embeddings`, `labels` and perhaps `c` and `proxies`.

  Raises:
    UserError: no such file, another format, or an array that is missing.
  """
  remedy = 'write it with numpy.savez(path, embeddings=..., labels=...)'
  arrays = npz.read(path, ('embeddings', 'labels'), remedy)
  c = arrays.get('c')
  if c is not None and c.size != 1:
    raise UserError(f'{path}: `c` has shape {c.shape}; expected one number')
  return Embedded(
    arrays['embeddings'],
    arrays['labels'],
    None if c is None else float(c.item()),
    arrays.get('proxies'),
  )


class Task(NamedTuple):
  """What to rank for whom.

  Attributes:
    queries: what to rank the gallery for.
    home: path without suffix, beside which files of this task are written.
    gallery: None means the queries, each left out of its own ranking.
    taxonomy: tree of the classes; None for no figures of hierarchy.
    recall_at: the K of Recall@K.
    names: what the taxonomy calls the labels; None means their own text.
  """

  queries: Embedded
  home: pathlib.Path
  gallery: Embedded | None = None
  taxonomy: Taxonomy | None = None
  recall_at: Sequence[int] = RECALL_AT
  names: Mapping[int, str] | None = None

  def curvature(self, c: float | None = None) -> float:
    """The c given, else what the queries' file says, else 0 (cosine)."""
    return c if c is not None else self.queries.c or 0.0


def read_task(query, gallery=None) -> Task:
  """Reads the files of the queries and of the gallery, see `read`."""
  items = None if gallery is None else read(gallery)
  return Task(read(query), home(query, gallery), items)


def home(query, gallery=None) -> pathlib.Path:
  """The `Task.home` of files."""
  return paths.as_path(query if gallery is None else gallery).with_suffix('')


def figures(task: Task, *, c: float | None = None) -> dict[str, float | int]:
  """Figures of embeddings.

  Args:
    task: what to rank.
    c: curvature, see `Task.curvature`.

  Returns:
    `retrieval_metrics` with `FIGURES`, 'c' and, under 'hierarchy/', what
    `hierarchy_metrics` finds. Where the queries come with proxies its 'tree/'
    is `proxy_tree`, and 'proxies/used', '/perplexity' and '/<level>/purity' are
    those of `node_purity`.

  Raises:
    UserError: see `retrieval_metrics` and `hierarchy_metrics`.
  """
  c = task.curvature(c)
  options: dict[str, Any] = {'c': c, 'recall_at': task.recall_at}
  if task.gallery is not None:
    options['gallery'] = task.gallery.embeddings
    options['gallery_labels'] = task.gallery.labels
  data = task.queries.embeddings, task.queries.labels
  found: dict[str, float | int] = {'c': c}
  found |= retrieval_metrics(*data, figures=FIGURES, **options)
  taxonomy = task.taxonomy
  if taxonomy is not None:
    if task.names is not None:
      taxonomy = taxonomy.labelled(task.names)
    tree = None
    if task.queries.proxies is not None and c:
      x, proxies = task.queries.embeddings, task.queries.proxies
      tree = proxy_tree(x, proxies, c=c)
    of_tree = hierarchy_metrics(*data, taxonomy, tree=tree, **options)
    if tree is not None:
      of_tree |= _of_proxies(tree, task.queries.labels, taxonomy)
    found |= {f'hierarchy/{key}': value for key, value in of_tree.items()}
  return found


def _of_proxies(tree, labels, taxonomy):
  found = node_purity(tree, labels, taxonomy)
  purity = zip(taxonomy.level_names, found.mean_purity.tolist(), strict=True)
  return {
    'proxies/used': found.num_used,
    'proxies/perplexity': found.perplexity,
    **{f'proxies/{level}/purity': value for level, value in purity},
  }


def check_faiss(home: pathlib.Path, *, inputs) -> None:
  """Checks, before any work, that `export_faiss` can write its index.

  Args:
    home: as `Task.home`.
    inputs: what is read, and must not be written over.

  Raises:
    UserError: as `paths.check_output`, or FAISS is not installed.
  """
  faiss_index.library()
  for path in faiss_index.files_of(_index(home)):
    paths.check_output(path, inputs=inputs)


def _index(home):
  return home.with_name(f'{home.name}.faiss')


def export_faiss(task: Task, *, c: float | None = None) -> pathlib.Path:
  """Writes an index of the gallery, see `write_faiss`; returns its path."""
  path = _index(task.home)
  items = task.gallery or task.queries
  faiss_index.write_faiss(path, items.embeddings, c=task.curvature(c))
  return path


def write_json(path, found):
  """Writes figures, atomically; one that is not defined is null."""
  known = {
    key: None if isinstance(value, float) and math.isnan(value) else value
    for key, value in found.items()
  }
  text = json.dumps(known, indent=2, allow_nan=False)
  paths.write_text(path, f'{text}\n')


def as_lines(found) -> str:
  """Figures as text, one a line."""
  width = max(map(len, found))
  shown = lambda value: f'{value:.4f}' if isinstance(value, float) else value
  return '\n'.join(
    f'{key.ljust(width)}  {shown(value)}' for key, value in found.items()
  )
