"""The page for walking a hierarchy: one HTML file, no network."""

import dataclasses
import json
import os
import pathlib
from typing import Any

import numpy as np

from hier_jax import paths
from hier_jax.evaluation import _checks
from hier_jax.evaluation.collection import Collection
from hier_jax.viz import scene as scene_lib

__all__ = ['LIMIT', 'page', 'write']

# Items that a page is smooth with.
LIMIT = 20_000

_TEMPLATE = pathlib.Path(__file__).parent / 'page' / 'built' / 'page.html'
_MARK = '"the scene"'


def write(
  collection: Collection,
  path: str | os.PathLike,
  *,
  k: int = 12,
  tree: str = 'auto',
  limit: int = LIMIT,
  progress: bool = False,
) -> pathlib.Path:
  """Writes a collection's page.

  Args:
    collection: what to show.
    path: the HTML file.
    k: nearest neighbors of each item.
    tree: 'proxies', 'linkage', or 'auto' for proxies where there are any.
    limit: largest number of items to show; of more, evenly spaced ones are
      shown, and the page says so.
    progress: whether to show bars on stderr, after some seconds.

  Returns:
    The path.

  Raises:
    UserError: see `scene.build`; or the path cannot be written.
  """
  path = paths.check_output(path, suffixes=['.html'])
  shown = _some(collection, _checks.positive_int('limit', limit))
  scene = scene_lib.build(shown, k=k, tree=tree, progress=progress)
  paths.write_text(path, page(scene))
  return path


def _some(collection, limit):
  """The collection, or `limit` of its items, evenly spaced."""
  n = len(collection.ids)
  if n <= limit:
    return collection
  rows = np.arange(limit) * n // limit
  image = collection.image
  about = f'{limit:,} of {n:,} images, evenly spaced; neighbors are among them'
  return dataclasses.replace(
    collection,
    embeddings=np.asarray(collection.embeddings)[rows],
    ids=tuple(collection.ids[row] for row in rows),
    labels=None if collection.labels is None else collection.labels[rows],
    image=None if image is None else lambda item: image(int(rows[item])),
    info={'shown': about, **collection.info},
  )


def page(scene: dict[str, Any]) -> str:
  """The HTML of a scene.

  Names reach the page as JSON in which no character can end the script, and the
  page only ever puts them into text nodes.
  """
  before, _, after = _TEMPLATE.read_text('utf-8').partition(_MARK)
  # ASCII: what lies outside, U+2028 and marks of direction too, is escaped.
  text = json.dumps(scene, allow_nan=False, separators=(',', ':'))
  for mark in '<>&':
    text = text.replace(mark, f'\\u{ord(mark):04x}')
  return before + text + after
