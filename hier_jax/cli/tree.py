"""`hier-jax tree`."""

from collections.abc import Sequence

from absl import flags

from hier_jax import paths
from hier_jax.cli import embed as embed_verb
from hier_jax.cli import explore, verbs
from hier_jax.errors import UserError

__all__ = ['VERB']

_DEPTH = 3
_TREES = '.json', '.nwk', '.newick', '.graphml', '.dot', '.gv'
_FIGURES = '.png', '.svg'


def _define(values: flags.FlagValues) -> None:
  verbs.choice_flag(
    values,
    'from',
    ('auto', 'proxies', 'linkage'),
    'SOURCE: What the tree is made of: the hierarchical proxies, complete'
    ' linkage, or auto (the default), the proxies where there are any.',
    default='auto',
  )
  verbs.number_flag(
    values, 'depth', f'N: Levels to print below the root; {_DEPTH} by default.'
  )
  verbs.text_flags(
    values,
    out='FILE: Write the whole tree to this file too: .json, .nwk, .graphml or'
    ' .dot; or a picture of it: .png or .svg.',
  )
  explore.define_collection(values)


def _run(values: flags.FlagValues, arguments: Sequence[str]) -> None:
  if not arguments:
    raise UserError(
      'tree needs the workdir of a run, WORKDIR/checkpoints/STEP or a file of'
      ' embeddings; see hier-jax tree --help'
    )
  path = paths.as_path(arguments[0])
  out = None
  if values.out is not None:
    inputs = [path, *filter(None, [values.taxonomy])]
    out = paths.check_output(
      values.out, inputs=inputs, suffixes=[*_TREES, *_FIGURES]
    )
  depth = embed_verb.whole(values, 'depth')
  source = str(values['from'].value)
  # Heavy imports wait until the arguments are known to be right.
  import rich

  from hier_jax.evaluation import write_tree
  from hier_jax.inference import collection
  from hier_jax.viz import figures
  from hier_jax.viz.outline import outline

  if out is not None and out.suffix in _FIGURES:
    figures.check()
  loaded = collection.load(
    path,
    split=values.split,
    data_dir=values.data_dir,
    images=values.images,
    taxonomy=values.taxonomy,
  )
  made = outline(loaded, source=source, depth=depth or _DEPTH)
  print(made.note)
  rich.print(made.text)
  if out is None:
    return
  if out.suffix in _FIGURES:
    figures.write(figures.icicle(loaded, source=source), out)
  else:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_tree(made.tree, out)
  print(f'tree written to {out}')


VERB = verbs.Verb(
  'tree',
  ('tree WORKDIR[/checkpoints/STEP]|EMBEDDINGS [--out FILE] ...',),
  'Print the discovered hierarchy, and write it as a tree file or a picture.',
  _define,
  _run,
  positional=1,
)
