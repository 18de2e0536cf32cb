"""`hier-jax tree`."""

from collections.abc import Sequence

from absl import flags

from hier_jax import paths
from hier_jax.cli import collections, verbs
from hier_jax.viz import theme as themes

__all__ = ['VERB']

_DEPTH = 3
_TREES = '.json', '.nwk', '.newick', '.graphml', '.dot', '.gv'


def _define(values: flags.FlagValues) -> None:
  collections.define_source(values)
  verbs.number_flag(
    values, 'depth', f'N: Levels to print below the root; {_DEPTH} by default.'
  )
  verbs.text_flags(
    values,
    out='FILE: Write the whole tree to this file too: .json, .nwk, .graphml or'
    ' .dot; or a picture of it: .png or .svg.',
  )
  verbs.theme_flag(values, 'pictures')
  collections.define(values)


def _run(values: flags.FlagValues, arguments: Sequence[str]) -> None:
  path, inputs = collections.named(values, arguments, 'tree')
  out = None
  if values.out is not None:
    out = paths.check_output(
      values.out, inputs=inputs, suffixes=[*_TREES, *themes.SUFFIXES]
    )
  depth = verbs.whole(values, 'depth')
  source = str(values['from'].value)
  if out is not None and out.suffix in themes.SUFFIXES:
    themes.check()
  loaded = collections.load(values, path)
  # Heavy imports wait until the arguments are known to be right.
  import rich

  from hier_jax.evaluation import write_tree
  from hier_jax.viz import icicle
  from hier_jax.viz.outline import outline

  made = outline(loaded, source=source, depth=depth or _DEPTH)
  print(made.note)
  rich.print(made.text)
  if out is None:
    return
  if out.suffix in themes.SUFFIXES:
    drawn = icicle.figure(loaded, source=made.hierarchy, theme=values.theme)
    themes.write(drawn, out)
  else:
    out.parent.mkdir(parents=True, exist_ok=True)
    write_tree(made.tree, out)
  print(f'tree written to {out}')


VERB = verbs.Verb(
  'tree',
  (f'tree {collections.FORM} [--out FILE] ...',),
  'Print the discovered hierarchy, and write it as a tree file or a picture.',
  _define,
  _run,
  positional=1,
)
