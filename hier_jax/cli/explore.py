"""`hier-jax explore`."""

import pathlib
import sys
from typing import TYPE_CHECKING, Any

from absl import flags

from hier_jax import paths
from hier_jax.cli import collections, verbs

if TYPE_CHECKING:
  from hier_jax.evaluation.collection import Collection

__all__ = ['VERB', 'default_out', 'write']

_PAGE = 'explore.html'


def _define(values: flags.FlagValues) -> None:
  verbs.text_flags(
    values,
    out=f'HTML: Where to write the page; by default {_PAGE} in the workdir, or'
    ' beside the file with its name.',
  )
  collections.define_source(values)
  verbs.number_flag(
    values, 'k', 'K: Nearest neighbors of each image; 12 by default.'
  )
  verbs.number_flag(
    values,
    'limit',
    'N: Show at most this many images, evenly spaced; 20,000 by default, with'
    ' which the page is smooth.',
  )
  collections.define(values)


def _run(values: flags.FlagValues, arguments: list[str]) -> None:
  path, inputs = collections.named(values, arguments, 'explore')
  out = paths.check_output(
    values.out or default_out(path), inputs=inputs, suffixes=['.html']
  )
  k, limit = (verbs.whole(values, name) for name in ('k', 'limit'))
  loaded = collections.load(values, path)
  options = {'k': k, 'limit': limit, 'tree': values['from'].value}
  write(loaded, out, **{name: x for name, x in options.items() if x})


def default_out(path: pathlib.Path) -> pathlib.Path:
  """Where the page of a run or a file lies."""
  return collections.beside(path, _PAGE, '.html')


def write(collection: 'Collection', out: pathlib.Path, **options: Any) -> None:
  """Writes a page and says where it lies."""
  from hier_jax.viz import explore

  explore.write(collection, out, progress=sys.stderr.isatty(), **options)
  size = paths.size(out) / 1e6
  print(f'page written to {out} ({size:.1f} MB): open it in a browser')


VERB = verbs.Verb(
  'explore',
  (f'explore {collections.FORM} [--out HTML] ...',),
  'Write a page in which one walks the discovered hierarchy on the Poincare'
  ' disk: one HTML file that needs no server and no network.',
  _define,
  _run,
  positional=1,
)
