"""`hier-jax explore`."""

import sys

from hier_jax import paths
from hier_jax.cli import verbs
from hier_jax.errors import UserError

__all__ = ['VERB']

_PAGE = 'explore.html'


def _define(values):
  verbs.text_flags(
    values,
    out=f'HTML: Where to write the page; by default {_PAGE} in the workdir, or'
    ' beside the file with its name.',
    data_dir="DIR: The folder of a run's prepared data sets; by default the one"
    ' that it was trained with.',
  )
  verbs.choice_flag(
    values,
    'tree',
    ('auto', 'proxies', 'linkage'),
    'SOURCE: What the tree is made of: the hierarchical proxies, average'
    ' linkage, or auto (the default) for the proxies where there are any.',
    default='auto',
  )
  verbs.integers_flag(
    values, 'k', 'K: How many nearest neighbors of each image; by default 12.'
  )


def _run(values, arguments):
  if not arguments:
    raise UserError(
      'explore needs the workdir of a run, WORKDIR/checkpoints/STEP or a file'
      ' of embeddings; see hier-jax explore --help'
    )
  path = paths.as_path(arguments[0])
  out = paths.check_output(
    values.out or _beside(path), inputs=[path], suffixes=['.html']
  )
  k = _single('k', values.k, 12)
  # Heavy imports wait until the arguments are known to be right.
  from hier_jax.inference import collection
  from hier_jax.viz import explore

  loaded = collection.load(path, data_dir=values.data_dir)
  explore.write(
    loaded, out, k=k, tree=values.tree, progress=sys.stderr.isatty()
  )
  size = out.stat().st_size / 1e6
  print(
    f'{len(loaded.ids)} images written to {out} ({size:.1f} MB): open it in a'
    ' browser'
  )


def _beside(path):
  """The page of a run lies in its workdir, that of a file beside it."""
  if path.is_dir():
    is_step = path.parent.name == 'checkpoints' and path.name.isdecimal()
    return (path.parent.parent if is_step else path) / _PAGE
  return path.with_suffix('.html')


def _single(name, values, default):
  if values is None:
    return default
  if len(values) != 1 or values[0] < 1:
    raise UserError(f'--{name} is {values}; expected one integer of 1 or more')
  return values[0]


VERB = verbs.Verb(
  'explore',
  ('explore WORKDIR[/checkpoints/STEP]|EMBEDDINGS [--out HTML] ...',),
  'Write a page in which one walks the discovered hierarchy on the Poincare'
  ' disk: one HTML file that needs no server and no network.',
  _define,
  _run,
  positional=1,
)
