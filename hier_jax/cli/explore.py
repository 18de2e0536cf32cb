"""`hier-jax explore`."""

import sys

from absl import flags

from hier_jax import paths
from hier_jax.cli import embed as embed_verb
from hier_jax.cli import verbs
from hier_jax.errors import UserError

__all__ = ['VERB']

_PAGE = 'explore.html'
_K = 12


def _define(values):
  verbs.text_flags(
    values,
    out=f'HTML: Where to write the page; by default {_PAGE} in the workdir, or'
    ' beside the file with its name.',
  )
  verbs.choice_flag(
    values,
    'tree',
    ('auto', 'proxies', 'linkage'),
    'SOURCE: What the tree is made of: the hierarchical proxies, complete'
    ' linkage, or auto (the default), the proxies where there are any.',
    default='auto',
  )
  verbs.number_flag(
    values, 'k', f'K: Nearest neighbors of each image; {_K} by default.'
  )
  verbs.number_flag(
    values,
    'limit',
    'N: Of more images so many are shown, evenly spaced; 20,000 by default,'
    ' with which the page is smooth.',
  )
  define_collection(values)


def define_collection(values: flags.FlagValues) -> None:
  """Defines the flags of `collection.load`."""
  verbs.text_flags(
    values,
    split="SPLIT: Which images of a run's data set; by default test.",
    taxonomy='CSV: A tree above the classes, as evaluate takes it; by default'
    ' that of the data set.',
    images="DIR: The folder of a file's images, if they were moved.",
    data_dir='DIR: The folder of prepared data sets.',
  )


def _run(values, arguments):
  if not arguments:
    raise UserError(
      'explore needs the workdir of a run, WORKDIR/checkpoints/STEP or a file'
      ' of embeddings; see hier-jax explore --help'
    )
  path = paths.as_path(arguments[0])
  inputs = [path, *filter(None, [values.taxonomy])]
  out = paths.check_output(
    values.out or _beside(path), inputs=inputs, suffixes=['.html']
  )
  k, limit = (embed_verb.whole(values, name) for name in ('k', 'limit'))
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.inference import collection
  from hier_jax.viz import explore

  loaded = collection.load(
    path,
    split=values.split,
    data_dir=values.data_dir,
    images=values.images,
    taxonomy=values.taxonomy,
  )
  explore.write(
    loaded,
    out,
    k=k or _K,
    tree=values.tree,
    limit=limit or explore.LIMIT,
    progress=sys.stderr.isatty(),
  )
  size = out.stat().st_size / 1e6
  print(f'page written to {out} ({size:.1f} MB): open it in a browser')


def _beside(path):
  """The page of a run lies in its workdir, that of a file beside it."""
  if path.is_dir():
    is_step = path.parent.name == 'checkpoints' and path.name.isdecimal()
    return (path.parent.parent if is_step else path) / _PAGE
  return path.with_suffix('.html')


VERB = verbs.Verb(
  'explore',
  ('explore WORKDIR[/checkpoints/STEP]|EMBEDDINGS [--out HTML] ...',),
  'Write a page in which one walks the discovered hierarchy on the Poincare'
  ' disk: one HTML file that needs no server and no network.',
  _define,
  _run,
  positional=1,
)
