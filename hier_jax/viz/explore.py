"""The page in which one walks a hierarchy: one HTML file, no network."""

import json
import os
import pathlib
from typing import Any

from hier_jax import paths
from hier_jax.evaluation.collection import Collection
from hier_jax.viz import scene as scene_lib

__all__ = ['page', 'write']

_TEMPLATE = pathlib.Path(__file__).parent / 'page' / 'built' / 'page.html'
_MARK = '"the scene"'


def write(
  collection: Collection,
  path: str | os.PathLike,
  *,
  k: int = 12,
  tree: str = 'auto',
  progress: bool = False,
) -> pathlib.Path:
  """Writes a collection's page.

  Args:
    collection: what to show.
    path: the HTML file.
    k: nearest neighbors of each item.
    tree: 'proxies', 'linkage', or 'auto' for proxies where there are any.
    progress: whether to show bars on stderr, after some seconds.

  Returns:
    The path.

  Raises:
    UserError: see `scene.build`; or the path cannot be written.
  """
  path = paths.check_output(path, suffixes=['.html'])
  scene = scene_lib.build(collection, k=k, tree=tree, progress=progress)
  paths.write_text(path, page(scene))
  return path


def page(scene: dict[str, Any]) -> str:
  """The HTML of a scene.

  Names reach the page as JSON in which no character can end the script, and the
  page puts them into text nodes alone.
  """
  before, _, after = _TEMPLATE.read_text('utf-8').partition(_MARK)
  # ASCII: what lies outside, U+2028 and marks of direction too, is escaped.
  text = json.dumps(scene, allow_nan=False, separators=(',', ':'))
  for mark in '<>&':
    text = text.replace(mark, f'\\u{ord(mark):04x}')
  return before + text + after
