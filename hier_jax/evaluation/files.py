"""Embeddings from files of any framework, and metrics into files."""

import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from hier_jax import paths
from hier_jax.errors import UserError, plain
from hier_jax.evaluation import _checks
from hier_jax.evaluation.embedding_files import Embedded, read
from hier_jax.evaluation.hierarchy import _processes, graded
from hier_jax.evaluation.hierarchy.metrics import (
  hierarchy_metrics,
  some_are_ranked,
)
from hier_jax.evaluation.retrieval import faiss_index, rankings
from hier_jax.evaluation.retrieval import metrics as retrieval
from hier_jax.evaluation.retrieval.metrics import RECALL_AT
from hier_jax.evaluation.taxonomy import Taxonomy
from hier_jax.evaluation.tree import purity
from hier_jax.evaluation.tree.proxies import proxy_tree

METRICS = ('map@r', 'r_precision', 'mrr', 'map')


class Task(NamedTuple):
  """Queries, the gallery to rank for them, and how.

  Attributes:
    queries: rows for which the gallery is ranked.
    home: path without suffix; files of this task are written beside it.
    gallery: rows to rank; None for the queries, each left out of its own
      ranking.
    taxonomy: tree of the classes; None for no hierarchy metrics.
    recall_at: the K of Recall@K.
    names: the taxonomy's names of the labels; None if it uses their own text.
    ties: see `per_query`.
  """

  queries: Embedded
  home: pathlib.Path
  gallery: Embedded | None = None
  taxonomy: Taxonomy | None = None
  recall_at: Sequence[int] = RECALL_AT
  names: Mapping[int, str] | None = None
  ties: str = 'pessimistic'

  @property
  def c(self) -> float | None:
    """The curvature of queries and gallery, see `Embedded`.

    Raises:
      UserError: queries and gallery have different curvatures.
    """
    if self.gallery is not None and self.gallery.c != self.queries.c:
      raise UserError(
        f'the queries have c = {self.queries.c} and the gallery c = '
        f'{self.gallery.c}; expected the same: embed both with one model, or '
        'give --c'
      )
    return self.queries.c

  def with_c(self, c: float | None) -> 'Task':
    """Returns the task with this curvature, whatever its files say."""
    gallery = self.gallery
    return self._replace(
      queries=self.queries._replace(c=c),
      gallery=None if gallery is None else gallery._replace(c=c),
    )


def read_task(query, gallery=None) -> Task:
  """Reads the files of the queries and of the gallery, see `read`."""
  queries = _labeled(query)
  items = None if gallery is None else _labeled(gallery)
  return Task(queries, home(query, gallery), items)


def _labeled(path):
  embedded = read(path)
  if embedded.labels is None:
    raise UserError(
      f"{path} lacks 'labels', the class of each row: embed again with"
      ' --labels folder, or write it with numpy.savez(path, embeddings=...,'
      ' labels=...)'
    )
  return embedded


def home(query, gallery=None) -> pathlib.Path:
  """The `Task.home` of files."""
  return paths.as_path(query if gallery is None else gallery).with_suffix('')


def metrics(
  task: Task, *, progress: bool = False, in_processes: bool = False
) -> dict[str, float | int | str | None]:
  """Metrics of embeddings.

  Args:
    task: what to rank.
    progress: whether to show bars on stderr, after some seconds.
    in_processes: whether to rank a large gallery by levels in a process a core,
      started for it, in place of threads. Each takes some 0.35 GB.

  Returns:
    `rankings.both` with `METRICS`, and 'c', None for cosine. Where the
    queries come with proxies and c > 0, 'proxies/num', and 'proxies/used',
    '/perplexity' and '/at_root', the `purity.Usage` of their `proxy_tree`.
    With a gallery
    'num_in_gallery', how many queries are rows of it, which they find first.
    With a taxonomy, under 'hierarchy/', what `hierarchy_metrics` finds, with
    that tree, 'ties', which are pessimistic where they cannot be as the task
    says, and 'proxies/<level>/purity' of `node_purity`.

  Raises:
    UserError: see `retrieval_metrics` and `hierarchy_metrics`.
  """
  x, labels, _, proxies, *_ = task.queries
  if labels is None:
    raise UserError('the queries have no labels; expected the class of each')
  c, taxonomy = task.c, task.taxonomy
  if taxonomy is not None and task.names is not None:
    taxonomy = taxonomy.labeled(task.names)
  options = _options(task, progress)
  kin_options = options | {'ties': _kin_ties(task)}
  levels, known = None, None
  if taxonomy is not None:
    levels, known = _by_levels(
      x, labels, taxonomy, task.ties, kin_options, in_processes
    )
  found: dict[str, float | int | str | None] = {'c': c}
  found |= rankings.both(x, labels, metrics=METRICS, known=known, **options)
  if task.gallery is not None:
    found['num_in_gallery'] = _checks.num_shared(x, task.gallery.embeddings)
  tree = None
  if proxies is not None and c:
    tree = proxy_tree(x, proxies, c=c)
    used = purity.usage(tree, len(x))
    found |= {
      'proxies/num': len(proxies),
      'proxies/used': used.num_used,
      'proxies/perplexity': used.perplexity,
      'proxies/at_root': used.at_root,
    }
  if taxonomy is not None:
    kin = hierarchy_metrics(
      x, labels, taxonomy, tree=tree, ranked=levels, **kin_options
    )
    kin['ties'] = kin_options['ties']
    if tree is not None:
      pure = purity.node_purity(tree, labels, taxonomy).mean_purity
      for level, value in zip(taxonomy.level_names, pure, strict=True):
        kin[f'proxies/{level}/purity'] = float(value)
    found |= {f'hierarchy/{key}': value for key, value in kin.items()}
  return found


def _options(task: Task, progress: bool) -> dict[str, Any]:
  """Options of the metrics of retrieval."""
  options: dict[str, Any] = {
    'c': task.c,
    'recall_at': task.recall_at,
    'ties': task.ties,
    'progress': progress,
  }
  if task.gallery is not None:
    options['gallery'] = task.gallery.embeddings
    options['gallery_labels'] = task.gallery.labels
  return options


def _kin_ties(task: Task) -> str:
  """The rule of ties that metrics of the hierarchy know."""
  return task.ties if task.ties in graded.TIES else graded.TIES[0]


def _by_levels(x, labels, taxonomy, ties, options, in_processes):
  """One ranking for the metrics of the hierarchy and of retrieval.

  Returns:
    `GradedPerQuery`, None where only some queries are ranked by levels; and
    what `retrieval_metrics` returns, None where this ranking does not tell.
  """
  if some_are_ranked(x, options.get('gallery')):
    return None, None
  wanted = retrieval.wanted(options['recall_at'], METRICS, ties)
  given = {k: v for k, v in options.items() if k != 'recall_at'}
  given |= {'embeddings': x, 'labels': labels, 'taxonomy': taxonomy}
  gallery = options.get('gallery')
  sizes = len(x), len(x if gallery is None else gallery)
  processes = _processes.number(*sizes) if in_processes else 1
  levels, result = _processes.ranked(processes, wanted=wanted, **given)
  if result is None:
    return levels, None
  c = options['c']
  means = retrieval.means(result, METRICS, distance=None, c=c, ties=ties)
  return levels, means


def check_faiss(home: pathlib.Path, *, inputs) -> None:
  """Checks, before any work, that `export_faiss` can write its index.

  Args:
    home: as `Task.home`.
    inputs: what is read, and must not be written over.

  Raises:
    UserError: as `paths.check_output`, FAISS is not installed, or `hier-jax
      embed` wrote an index of that name.
  """
  faiss_index.library()
  index = _index(home)
  for path in faiss_index.files_of(index):
    paths.check_output(path, inputs=inputs)
  if (items := faiss_index.items_of(index)).exists():
    raise UserError(
      f'{index} is an index that hier-jax embed wrote, with the ids of its'
      f' images in {items}, and would be replaced without them: move its three'
      ' files away, or rename the file that is evaluated'
    )


def _index(home):
  return home.with_name(f'{home.name}.faiss')


def export_faiss(task: Task) -> pathlib.Path:
  """Writes an index of the gallery, see `write_faiss`; returns its path."""
  path = _index(task.home)
  items = task.gallery or task.queries
  faiss_index.write_faiss(items.embeddings, path, c=task.c)
  return path


def write_json(found: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
  """Writes metrics atomically, null for a metric that is not defined."""
  known = {
    key: None if isinstance(value, float) and math.isnan(value) else value
    for key, value in found.items()
  }
  text = json.dumps(known, indent=2, allow_nan=False)
  paths.write_text(path, f'{text}\n')


def as_lines(found: Mapping[str, Any]) -> str:
  """Metrics as text: first how they were measured, then one per line."""
  # Names of levels are in the keys.
  numbers = {
    plain(key): value
    for key, value in found.items()
    if value is not None and not isinstance(value, str)
  }
  width = max(map(len, numbers))
  shown = lambda value: f'{value:.4f}' if isinstance(value, float) else value
  lines = [f'{key.ljust(width)}  {shown(x)}' for key, x in numbers.items()]
  return '\n'.join([*_leads(found), '', *lines])


def _leads(found: Mapping[str, Any]) -> Any:
  """Sentences on how to read the metrics."""
  if found.get('proxies/used') == 1:
    yield (
      'The learned tree is a star: all items hang under one of the '
      f'{found["proxies/num"]} proxies, so that metrics of the tree mean '
      'nothing.'
    )
  yield (
    f'{found["num_queries"]} queries, by {found["distance"]}; ties '
    f'{found["ties"]}, on which {found["num_tied"]} queries depend.'
  )
  mine = f'{found["map@r"]:.4f}'
  cosine = f'{rankings.by_cosine(found).get("map@r", found["map@r"]):.4f}'
  if cosine != mine:
    by = 'cosine' if cosine > mine else 'hyperbolic distance'
    yield (
      f'The better ranking is by {by}: MAP@R is {mine} by hyperbolic distance'
      f' and {cosine} by cosine (--c none).'
    )
  if found.get('hierarchy/ties', found['ties']) != found['ties']:
    yield (
      f'Metrics of the hierarchy have ties {found["hierarchy/ties"]}: they know'
      f' no {found["ties"]} ones.'
    )
  if found.get('num_in_gallery'):
    yield (
      f'{found["num_in_gallery"]} queries are rows of the gallery too, and find'
      ' themselves first.'
    )
  if found['num_unresolved']:
    yield (
      f'{found["num_unresolved"]} queries hold items that float32 cannot tell '
      'apart; these count as ties.'
    )
